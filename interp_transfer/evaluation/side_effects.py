"""Side effects of an intervention: its cost where it should change nothing.

Success says that an intervention has its effect. Its cost is measured on clean prompts of the task, on other skills of the
model and on plain English. The effect itself is measured without a judge, too: how much likelier the right answers become, and
how far the model moves from its own answers.

Predictions are teacher-forced: under all conditions the model reads the same prompts and answers, and the answers' tokens are
scored. What a divergence means depends on the answers. On the unsteered model's own answers to clean prompts and on English it
is a cost. On its own answers to the behaviour's prompts, which show what is to be removed, it is the effect. On the right
answers to the same prompts the loss falls if the intervention works; a divergence there gives the distance, not the direction.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from interp_transfer.evaluation.baselines import answer_tokens
from interp_transfer.evaluation.capability.costs import Cost, cost_of, whole_texts
from interp_transfer.evaluation.completions import completions_each
from interp_transfer.evaluation.evaluator import draw
from interp_transfer.evaluation.judges.refusal import RefusalJudge
from interp_transfer.evaluation.judges.rules import RepetitionJudge
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import predicted, teacher_forced_each
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.tokens import tokenize
from interp_transfer.plugins import known_model
from interp_transfer.prompts.english import english_texts
from interp_transfer.stats import Estimate, mean_interval, rate, share_to_dict

N = 100
CLEAN = ("clean_valid", "clean_shows", "clean_refused", "clean_repeats", "clean_same")
"""Shares of clean prompts."""
TokenIds = Sequence[Sequence[int]]


@dataclass(frozen=True)
class SideEffects:
    """The side effects of one condition.

    Attributes:
        clean_valid: share of the task's clean prompts with a valid answer.
        clean_shows: share of the clean prompts on which the unwanted behaviour shows, by the task's judge.
        clean_refused: share of the clean prompts that are refused, by the rules of `judges.refusal`; a model can refuse at a
            low divergence, as its first tokens decide.
        clean_repeats: share of the clean prompts whose answer repeats itself or is empty.
        clean_same: share of the clean prompts whose answer is that of the unsteered model, token by token; 1 with a divergence
            of 0 shows an intervention that changes nothing.
        skills: the model's other skills, see ``plugins.KnownModel.skills``; empty if none are known.
        clean: predictions of the unsteered model's own answers to clean prompts.
        english: predictions of plain English, off the task's distribution.
        behaviour: predictions of the unsteered model's own answers to the steered prompts, where a change is wanted.
        right: predictions of the right answers to the same prompts, where the loss should fall. None without right answers.
        logit_difference: between the first token of the right answer and the token that the unsteered model predicts, after
            the prompts on which these differ; None if there are none.
    """

    clean_valid: Estimate
    clean_shows: Estimate
    clean_refused: Estimate
    clean_repeats: Estimate
    clean_same: Estimate
    skills: Mapping[str, Estimate]
    clean: Cost
    english: Cost
    behaviour: Cost
    right: Cost | None
    logit_difference: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON stores them."""
        return {
            **{name: share_to_dict(getattr(self, name)) for name in CLEAN},
            "skills": {name: share_to_dict(share) for name, share in self.skills.items()},
            **{name: cost.to_dict() for name in ("clean", "english", "behaviour", "right") if (cost := getattr(self, name))},
            "logit_difference": self.logit_difference and self.logit_difference.to_dict(),
        }


def side_effects(
    model: HookedModel,
    task: Task,
    settings: Mapping[str, Sequence[Intervention]],
    *,
    n: int = N,
    split: str = "test",
    seed: int = 0,
    progress: bool = True,
) -> dict[str, SideEffects]:
    """Measure the side effects of several conditions on the same prompts and texts.

    Args:
        model: the model that is steered.
        task: prompts, clean prompts and judge; skills are measured if the task or a plugin's model defines them.
        settings: by name of the condition, interventions that are applied together; none for the unsteered model.
        n: maximum number of prompts and texts of each kind.
        split: of the task's prompts.
        seed: draws the prompts.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: for no settings, or no prompts.
    """
    if not settings:
        raise ValueError("no conditions to find the cost of: give at least one, {'moved': [add(vector, 1.0)]}")
    each = [tuple(setting) for setting in settings.values()]
    clean = draw(task.clean(split), min(n, len(task.clean(split))), seed, f"clean {split} prompts of {task.name}")
    steered = draw(task.prompts(split), min(n, len(task.prompts(split))), seed, f"{split} prompts of {task.name}")
    options: dict[str, Any] = {"max_new_tokens": task.max_new_tokens, "progress": progress}
    texts: dict[str, tuple[TokenIds, TokenIds]] = {
        "clean": (tokenize(model, clean), generate_tokens(model, clean, **options)),
        "english": whole_texts(model, english_texts(n, at_most=True)),
        "behaviour": (tokenize(model, steered), generate_tokens(model, steered, **options)),
    }
    right_answers = answer_tokens(model, task, steered) if task.answers is not None else [[] for _ in steered]
    answered = [(p, answer) for p, answer in zip(texts["behaviour"][0], right_answers, strict=True) if answer]
    logit_differences: list[Estimate | None] = [None] * len(each)
    if answered:
        texts["right"] = [p for p, _ in answered], [answer for _, answer in answered]
        logit_differences = _logit_differences(model, *texts["right"], each)
    costs = {
        name: [cost_of(f) for f in teacher_forced_each(model, *pair, each, progress=progress)] for name, pair in texts.items()
    }
    completions = completions_each(model, clean, each, **options)
    plain = completions[each.index(())] if () in each else completions_each(model, clean, [()], **options)[0]
    measure = skills_of(model, task)
    skills = measure(model, each, n=n, progress=progress) if measure is not None else [{} for _ in each]
    effects = {}
    for index, name in enumerate(settings):
        answers = completions[index]
        verdicts = task.judge(clean, answers)
        refused, sound = (judge(clean, answers) for judge in (RefusalJudge(refused=True), RepetitionJudge()))
        effects[name] = SideEffects(
            clean_valid=rate([v.intact for v in verdicts]),
            clean_shows=rate([not v.success for v in verdicts]),
            clean_refused=rate([v.success for v in refused]),
            clean_repeats=rate([not v.success for v in sound]),
            clean_same=rate([one == other for one, other in zip(answers, plain, strict=True)]),
            skills=skills[index],
            clean=costs["clean"][index],
            english=costs["english"][index],
            behaviour=costs["behaviour"][index],
            right=costs["right"][index] if answered else None,
            logit_difference=logit_differences[index],
        )
    return effects


def skills_of(model: HookedModel, task: Task) -> Callable[..., Sequence[Mapping[str, Estimate]]] | None:
    """Return the function that measures the model's skills besides the task: the task's, or that of a plugin's model."""
    known = known_model(identity(model).name)
    return task.skills or (known.skills if known is not None else None)


@torch.no_grad()
def _logit_differences(
    model: HookedModel, prompts: TokenIds, answers: TokenIds, settings: Sequence[tuple[Intervention, ...]]
) -> list[Estimate | None]:
    """See ``SideEffects.logit_difference``; a difference of log-probabilities equals one of logits."""
    lengths = torch.tensor([len(p) for p in prompts])
    last = torch.arange(int(lengths.max())) == lengths[:, None] - 1
    right = torch.tensor([answer[0] for answer in answers])
    own = predicted(model, prompts, last).cpu().argmax(dim=-1)
    apart = right != own
    if not apart.any():
        return [None] * len(settings)
    row = torch.arange(len(right))
    differences: list[Estimate | None] = []
    for interventions in settings:
        after = predicted(model, prompts, last, *interventions, prompt_lengths=lengths, rows=row).cpu()
        differences.append(mean_interval((after[row, right] - after[row, own])[apart].tolist()))
    return differences
