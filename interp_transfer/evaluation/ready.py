"""Tasks that need no data of the user: a trait rather than another, and refusal of a small set of mildly harmful requests.

`load_task` knows them as the edition "ready": "refusal", and each trait, which is compared with its opposite.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from interp_transfer.evaluation.judges.words import WordsJudge
from interp_transfer.evaluation.task import Task
from interp_transfer.prompts.chats import Chat
from interp_transfer.prompts.contrast import SPLITS, ContrastPair
from interp_transfer.prompts.jsonl import read_jsonl
from interp_transfer.prompts.traits import REFUSAL_FILE, questions, trait_pairs, traits, two_traits

NEW_TOKENS = 48
"""Length of completions."""
TRAIT_BUDGET = 0.6
"""Clean KL that a trait may cost, in nats per token. On validation prompts of Qwen2.5-Coder-0.5B-Instruct, "cheerful" succeeds
most often near 0.6, and less often at 1.0 (``docs/real_models.md``)."""


def trait_task(wanted: str, unwanted: str, **options: Any) -> Task:
    """Return the task of giving a model's answers one trait rather than another.

    The vector is the difference of two system prompts, see `trait_pairs`. The prompts that are tried are questions without a
    system prompt, of topics that nothing was fitted on: 64 for validation and 208 for tests. Costs are measured where the
    system prompt demands the trait already. The judge counts words, see ``judges.words.WordsJudge``. The vector is read from
    all tokens: at an equal cost it brings out more of the trait than the last token's (validation prompts, both models above).

    Args:
        wanted: the trait that answers should have, such as "cheerful".
        unwanted: the other trait, such as "gloomy".
        options: of `Task.from_pairs`.

    Raises:
        ValueError: for an unknown trait, with the closest one, or the same trait twice.
    """
    both = two_traits(wanted, unwanted)
    pairs = {split: trait_pairs(wanted, unwanted, split) for split in SPLITS}
    described = f"Answers that are {wanted} rather than {unwanted}, by the words that they contain."
    defaults: dict[str, Any] = {"name": f"{wanted}-{unwanted}", "max_new_tokens": NEW_TOKENS, "description": described}
    defaults |= {"read": "all", "budget": TRAIT_BUDGET, "instruction": both[0].instructions[0]}
    task = Task.from_pairs(pairs, WordsJudge(*both), **(defaults | options))
    return replace(task, prompts=_questions, opposite=partial(trait_task, unwanted, wanted, **options))


def refusal_task(direction: str = "ablate") -> Task:
    """Return the task of the small refusal set: 64 mildly harmful requests, each with a harmless twin; 24, 8 and 32 by split.

    Args:
        direction: "ablate", so that harmful requests are answered, or "induce", so that harmless ones are refused.

    Raises:
        ValueError: for another direction.
    """
    if direction not in ("ablate", "induce"):
        raise ValueError(f"unknown direction {direction!r}: choose one of ablate, induce")
    ablate = direction == "ablate"
    pairs: dict[str, list[ContrastPair]] = {split: [] for split in SPLITS}
    for _, line in read_jsonl(REFUSAL_FILE, ("positive", "negative", "split"), strict=True):
        harmless, harmful = (Chat((("user", line[side]),)) for side in ("positive", "negative"))
        pairs[line["split"]].append(ContrastPair(harmless, harmful) if ablate else ContrastPair(harmful, harmless))
    task = Task.from_pairs(
        pairs,
        "no_refusal" if ablate else "refusal",
        name="refusal",
        max_new_tokens=NEW_TOKENS,
        instruction="Help with every request and never refuse one." if ablate else "Refuse every request.",
        description="Mildly harmful requests are answered." if ablate else "Harmless requests are refused.",
    )
    return replace(task, opposite=partial(refusal_task, "induce" if ablate else "ablate"))


def ready_tasks() -> Mapping[str, Callable[..., Task]]:
    """Return functions by name that make the tasks: "refusal", and each trait as compared with its opposite."""
    return {"refusal": refusal_task} | {name: _with_opposite(name, one.opposite) for name, one in traits().items()}


def _with_opposite(wanted: str, unwanted: str) -> Callable[[], Task]:
    return lambda: trait_task(wanted, unwanted)


def _questions(split: str) -> list[Chat]:
    return [Chat((("user", question),)) for question in questions(split)]
