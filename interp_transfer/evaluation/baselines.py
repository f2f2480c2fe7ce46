"""What baselines need: random directions of an intervention's norm, the site's mean, the first tokens of right answers."""

from collections.abc import Sequence

from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.transforms import Add, MeanAblate
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.prompts.chats import Prompt
from interp_transfer.vectors.controls import random_directions

RANDOM_DIRECTIONS = 20
REFERENCE_TEXTS = 200


def random_like(like: Intervention, seed: int, draws: int = RANDOM_DIRECTIONS) -> list[Intervention]:
    """Return interventions that add random directions with the norm, site and positions of another."""
    transform = like.transform
    assert isinstance(transform, Add)
    total = transform.direction.float() * transform.strength
    directions = random_directions(draws, total.shape[-1], seed)
    return [Intervention(like.site, Add(v * total.norm()), like.positions, model=like.model) for v in directions]


def mean_ablation(model: HookedModel, task: Task, like: Intervention) -> Intervention:
    """Return an intervention that replaces the activation at the site of ``like`` by its mean over the task's texts."""
    assert isinstance(like.site, str)
    texts = task.texts("train")[:REFERENCE_TEXTS]
    mean: Tensor = capture(model, texts, like.site, progress=False)[like.site].double().mean(dim=0).float()
    return Intervention(like.site, MeanAblate(mean), like.positions, model=like.model)


def first_tokens(model: HookedModel, task: Task, prompts: Sequence[Prompt]) -> list[str]:
    """Return the first token of a right answer to each prompt, as text."""
    tok = tokenizer_of(model)
    return [tok.decode(ids[:1], clean_up_tokenization_spaces=False) for ids in answer_tokens(model, task, prompts)]


def answer_tokens(model: HookedModel, task: Task, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Return the token ids of a right answer to each prompt.

    Raises:
        ValueError: for a task without right answers.
    """
    if task.answers is None:
        raise ValueError(f"the task {task.name!r} has no right answers: give Task.from_pairs(..., answers=...)")
    return tokenizer_of(model)(task.answers(prompts), add_special_tokens=False)["input_ids"]
