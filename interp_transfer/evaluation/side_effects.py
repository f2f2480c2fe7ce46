"""What an intervention costs elsewhere: the other side of what it does.

Success says that an intervention does what it is for. Beside it belongs what it does where nothing is to be done: to clean
prompts of the task, to the other skills of the model, to plain English. And as a measure of the effect that needs no judge: how
much likelier it makes the right answers, where it is meant to act, and how far it takes the model from its own.

Predictions are teacher-forced: all conditions read the same tokens, prompt and answer, and the answer's are scored. Which
answers decides what a figure says. On the unsteered model's own answers to clean prompts, and on English, a divergence is a
cost. On its own answers to the behaviour's prompts, which show what is to be removed, it is the effect. The loss of the right
answers to the same prompts falls if the intervention works; a divergence there says how far, not which way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from interp_transfer.evaluation.capability.costs import whole_texts
from interp_transfer.evaluation.evaluator import answer_tokens, completions_each, draw
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import TeacherForced, predicted, teacher_forced_each
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.tokens import tokenize
from interp_transfer.plugins import known_model
from interp_transfer.prompts.english import english_texts
from interp_transfer.stats import Estimate, mean_interval, rate, share_to_dict

N = 100
Settings = Mapping[str, Sequence[Intervention]]
"""Interventions that are applied together, by name of the condition."""


@dataclass(frozen=True)
class Cost:
    """What an intervention does to predictions of given tokens; means over texts.

    Attributes:
        kl: from the model as it is, nats per token.
        agreement: share of tokens for which both hold the same one for the likeliest.
        loss: negative log-likelihood of the tokens, nats per token; its exponential is the perplexity.
        loss_before: of the model as it is.
    """

    kl: Estimate
    agreement: Estimate
    loss: Estimate
    loss_before: Estimate

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {name: one.to_dict() for name, one in vars(self).items()}


@dataclass(frozen=True)
class SideEffects:
    """What one condition does beside what it is for.

    Attributes:
        clean_valid: clean prompts of the task that are answered as they should be.
        clean_shows: clean prompts on which the unwanted behaviour shows, by the task's judge.
        skills: what the model can do besides the task, see ``plugins.KnownModel.skills``; empty where nothing is known.
        clean: predictions of the unsteered model's own answers to clean prompts.
        english: predictions of plain English, off the distribution of the task.
        behaviour: predictions of the unsteered model's own answers to the prompts that are steered: here a change is wanted.
        right: predictions of the right answers to the same prompts: here the loss is to fall. None for a task without answers.
        logit_difference: of the right answer's first token and the one that the unsteered model says, behind those prompts;
            over prompts where the two differ; None if there is none, or for a task without answers.
    """

    clean_valid: Estimate
    clean_shows: Estimate
    skills: Mapping[str, Estimate]
    clean: Cost
    english: Cost
    behaviour: Cost
    right: Cost | None
    logit_difference: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "clean_valid": share_to_dict(self.clean_valid),
            "clean_shows": share_to_dict(self.clean_shows),
            "skills": {name: share_to_dict(share) for name, share in self.skills.items()},
            **{name: cost.to_dict() for name in ("clean", "english", "behaviour", "right") if (cost := getattr(self, name))},
            "logit_difference": self.logit_difference and self.logit_difference.to_dict(),
        }


def side_effects(
    model: HookedModel, task: Task, settings: Settings, *, n: int = N, split: str = "test", seed: int = 0, progress: bool = True
) -> dict[str, SideEffects]:
    """What each of several conditions costs, on the same prompts and texts.

    Args:
        model: the model that is steered.
        task: prompts, clean prompts and judge; skills are measured where it or the model brings them.
        settings: by name of the condition; an empty one is the model as it is.
        n: prompts and texts of each sort, at most.
        split: of the task's prompts.
        seed: draws them.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: for no settings, or no prompts.
    """
    if not settings:
        raise ValueError("no conditions to find the cost of: give at least one, {'moved': [add(vector, 1.0)]}")
    given = [tuple(one) for one in settings.values()]
    clean = draw(task.clean(split), min(n, len(task.clean(split))), seed, f"clean {split} prompts of {task.name}")
    steered = draw(task.prompts(split), min(n, len(task.prompts(split))), seed, f"{split} prompts of {task.name}")
    options: dict[str, Any] = {"max_new_tokens": task.max_new_tokens, "progress": progress}
    wanted = answer_tokens(model, task, steered) if task.answers is not None else []
    asked = [(p, w) for p, w in zip(tokenize(model, steered), wanted, strict=bool(wanted)) if w]
    right = [p for p, _ in asked], [w for _, w in asked]
    parts = {
        "clean": (tokenize(model, clean), generate_tokens(model, clean, **options)),
        "english": whole_texts(model, english_texts(n, at_most=True)),
        "behaviour": (tokenize(model, steered), generate_tokens(model, steered, **options)),
    }
    costs = {name: _costs(model, texts, given, progress) for name, texts in parts.items()}
    right_costs = _costs(model, right, given, progress) if asked else [None] * len(given)
    first = _logit_differences(model, *right, given) if asked else [None] * len(given)
    said = completions_each(model, clean, given, **options)
    measure = skills_of(model, task)
    able = measure(model, given, n=n, progress=progress) if measure is not None else [{} for _ in given]
    found = {}
    for index, name in enumerate(settings):
        judged = task.judge(clean, said[index])
        found[name] = SideEffects(
            clean_valid=rate([v.intact for v in judged]),
            clean_shows=rate([not v.success for v in judged]),
            skills=able[index],
            **{part: of_each[index] for part, of_each in costs.items()},
            right=right_costs[index],
            logit_difference=first[index],
        )
    return found


def skills_of(model: HookedModel, task: Task) -> Callable[..., Sequence[Mapping[str, Estimate]]] | None:
    """What measures the skills of a model besides the task: the task's own measure, or that of a known model; or None."""
    known = known_model(identity(model).name)
    return task.skills or (known.skills if known is not None else None)


def _costs(
    model: HookedModel,
    texts: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]],
    settings: Sequence[tuple[Intervention, ...]],
    progress: bool,
) -> list[Cost]:
    """Of prompts and answers as token ids."""
    return [_cost(each) for each in teacher_forced_each(model, *texts, settings, progress=progress)]


def _cost(each: TeacherForced) -> Cost:
    """Means with their intervals; what of these lies beyond what is possible is cut off."""
    kl, agreement = (mean_interval(values.tolist()) for values in (each.kl, each.agreement))
    kl, agreement = replace(kl, low=max(kl.low, 0.0)), replace(agreement, high=min(agreement.high, 1.0))
    loss, before = (mean_interval(values.tolist()) for values in (each.loss, each.loss_before))
    return Cost(kl, agreement, loss, before)


def _logit_differences(
    model: HookedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    settings: Sequence[tuple[Intervention, ...]],
) -> list[Estimate | None]:
    """A difference of log-probabilities is one of logits."""
    lengths = torch.tensor([len(p) for p in prompts])
    last = torch.arange(int(lengths.max())) == lengths[:, None] - 1
    right = torch.tensor([answer[0] for answer in answers])
    own = predicted(model, prompts, last).cpu().argmax(dim=-1)
    apart = right != own
    if not apart.any():
        return [None] * len(settings)
    row = torch.arange(len(right))
    found: list[Estimate | None] = []
    for interventions in settings:
        placed = {"prompt_lengths": lengths, "rows": row}
        after = predicted(model, prompts, last, *interventions, **placed).cpu()
        found.append(mean_interval((after[row, right] - after[row, own])[apart].tolist()))
    return found
