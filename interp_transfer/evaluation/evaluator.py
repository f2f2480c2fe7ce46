"""An evaluator judges conditions on the same prompts.

It holds the prompts, the model that answers them, the task that judges the answers, and the clean prompts on which costs are
measured. All conditions of a comparison use one evaluator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.evaluation.judges.rules import Verdict
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.generation import generate, generate_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.merging import can_share, merged
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.interventions.transforms import Add, MeanAblate
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.tokens import render_chat, tokenize, tokenizer_of
from interp_transfer.prompts.chats import Chat, Prompt
from interp_transfer.stats import Estimate, clustered_rate, mean_interval, rate, share_to_dict

RANDOM_DRAWS = 5
CLEAN_PROMPTS = 100
REFERENCE_TEXTS = 200


@dataclass(frozen=True)
class Condition:
    """The outcome under one condition.

    Attributes:
        success: share of prompts on which the intervention had its effect.
        intact: share of prompts on which it had its effect and the completion is a valid answer.
        cost: clean KL: nats per token against the unsteered model, on the unsteered model's own answers to clean prompts.
        strength: of the intervention; 0 where that has no meaning.
        completions: one for each prompt; of the first draw if there are several.
        verdicts: on those completions.
        note: describes the condition.
        readings: further readings of ``completions`` by the task, by name.
        differ: indices of the completions on which the task's judges disagree.
    """

    success: Estimate
    intact: Estimate
    cost: Estimate
    strength: float
    completions: tuple[str, ...] = field(repr=False)
    verdicts: tuple[Verdict, ...] = field(repr=False)
    note: str = ""
    readings: Mapping[str, Estimate] = field(default_factory=dict, hash=False)
    differ: tuple[int, ...] = ()

    @property
    def clean_kl(self) -> float:
        """The mean of ``cost``."""
        return self.cost.value

    def columns(self) -> dict[str, float | int]:
        """Return the columns of a table: success, intact and clean KL with their intervals, and n."""
        shares = self.success.columns("success") | self.intact.columns("intact")
        return {**shares, **self.cost.columns("clean_kl"), "n": self.success.n}

    def to_dict(self) -> dict[str, Any]:
        """Return the condition as result.json stores it."""
        return {
            "strength": self.strength,
            "success": share_to_dict(self.success),
            "intact": share_to_dict(self.intact),
            "clean_kl": self.cost.value,
            "clean_kl_interval": {"low": self.cost.low, "high": self.cost.high, "n": self.cost.n},
            "note": self.note,
            "readings": {name: share_to_dict(share) for name, share in self.readings.items()},
        }

    def __str__(self) -> str:
        return f"success {self.success:.2f}  intact {self.intact:.2f}  clean KL {self.clean_kl:.3f}"


def condition(
    task: Task, prompts: Sequence[Prompt], draws: Sequence[Sequence[str]], cost: Estimate, strength: float, note: str
) -> Condition:
    """Judge completions. Several draws of the same prompts are pooled, with intervals clustered by prompt."""
    verdicts = [task.judge(prompts, texts) for texts in draws]
    success = [[v[i].success for v in verdicts] for i in range(len(prompts))]
    intact = [[v[i].intact for v in verdicts] for i in range(len(prompts))]
    if len(draws) == 1:
        rates = rate([s for [s] in success]), rate([s for [s] in intact])
    else:
        rates = clustered_rate(success), clustered_rate(intact)
    return Condition(*rates, cost, float(strength), tuple(draws[0]), tuple(verdicts[0]), note)


def add_readings(task: Task, prompts: Sequence[Prompt], judged: Condition) -> Condition:
    """Return the condition with the task's further readings of its completions, if the task has any."""
    if task.readings is None:
        return judged
    readings = {
        name: rate([bool(applies) for applies in outcomes if applies is not None])
        for name, outcomes in task.readings(prompts, judged.completions).items()
        if any(applies is not None for applies in outcomes)
    }
    differ = () if task.differ is None else tuple(task.differ(prompts, judged.completions))
    return replace(judged, readings=readings, differ=differ)


@dataclass(frozen=True)
class CleanKL:
    """Measures interventions by their divergence on the unsteered model's own answers to clean prompts."""

    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]

    def __call__(
        self, model: HookedModel, settings: Sequence[Sequence[Intervention]], progress: bool = False
    ) -> list[Float[Tensor, " prompt"]]:
        """Return the divergence from the unsteered model under each setting, in nats per token; 0 without interventions."""
        steered = [setting for setting in settings if setting]
        each = iter(teacher_forced_each(model, self.prompts, self.answers, steered, progress=progress) if steered else [])
        return [next(each).kl if setting else torch.zeros(len(self.prompts)) for setting in settings]


@dataclass(frozen=True)
class Evaluator:
    """Prompts of one model and task, and the measure of costs.

    Attributes:
        model: the model that is steered.
        task: its judge decides.
        prompts: answered under every condition.
        clean_kl: measures costs on clean prompts.
    """

    model: HookedModel
    task: Task
    prompts: tuple[Prompt, ...]
    clean_kl: CleanKL

    def judge(
        self, draws: Sequence[Sequence[Intervention]], strength: float, note: str = "", progress: bool = True
    ) -> Condition:
        """Judge one condition. Each draw is a setting of interventions that are applied together; draws are pooled."""
        return self.judge_each([draws], [strength], note, progress)[0]

    def judge_each(
        self,
        conditions: Sequence[Sequence[Sequence[Intervention]]],
        strengths: Sequence[float],
        note: str = "",
        progress: bool = True,
    ) -> list[Condition]:
        """Judge several conditions, each as for ``judge``; those that add vectors at the same sites share batches."""
        settings = [tuple(draw) for draws in conditions for draw in draws]
        completions = iter(self.completions(settings, progress))
        costs = iter(self.clean_kl(self.model, settings, progress))
        judged = []
        for draws, strength in zip(conditions, strengths, strict=True):
            texts = [next(completions) for _ in draws]
            kl = torch.stack([next(costs) for _ in draws]).mean(dim=0)
            what = note or "; ".join(map(str, draws[0]))
            judged.append(condition(self.task, self.prompts, texts, cost(kl), strength, what))
        return judged

    def completions(self, settings: Sequence[Sequence[Intervention]], progress: bool = True) -> list[list[str]]:
        """Return the completions of the prompts under each setting."""
        return completions_each(self.model, self.prompts, settings, self.task.max_new_tokens, progress)

    def unsteered(self, progress: bool = True) -> Condition:
        """Judge the model without interventions."""
        return self.judge([()], 0.0, "nothing done", progress)

    def random(self, like: Intervention, seed: int, strength: float, progress: bool = True) -> Condition:
        """Judge random vectors with the norm, site and positions of ``like``, pooled."""
        note = f"{RANDOM_DRAWS} random vectors of the reference's norm, at its site and positions"
        return self.judge([(r,) for r in random_like(like, seed)], strength, note, progress)

    def mean_ablated(self, like: Intervention, progress: bool = True) -> Condition:
        """Judge the mean activation at the site and positions of ``like``."""
        note = "the site's mean in place of its activation"
        return self.judge([(mean_ablation(self.model, self.task, like),)], 0.0, note, progress)

    def forced_first_token(self) -> Condition:
        """Judge the unsteered model when the first token of the right answer is given: a task that this solves says little."""
        starts = first_tokens(self.model, self.task, self.prompts)
        tokenizer = tokenizer_of(self.model)
        texts = [render_chat(tokenizer, p) if isinstance(p, Chat) else p for p in self.prompts]
        forced = [text + start for text, start in zip(texts, starts, strict=True)]
        rest = generate(self.model, forced, max_new_tokens=self.task.max_new_tokens - 1, progress=False)
        completions = [start + end for start, end in zip(starts, rest, strict=True)]
        free = cost(torch.zeros(len(self.clean_kl.prompts)))
        note = "no steering; the first token of the right answer is given"
        return condition(self.task, self.prompts, [completions], free, 0.0, note)


def cost(kl: Float[Tensor, " prompt"]) -> Estimate:
    """Return mean clean KL with its interval, which is cut off at 0."""
    mean = mean_interval(kl.tolist())
    return replace(mean, low=max(0.0, mean.low))


def completions_each(
    model: HookedModel,
    prompts: Sequence[Prompt],
    settings: Sequence[Sequence[Intervention]],
    max_new_tokens: int,
    progress: bool = True,
) -> list[list[str]]:
    """Complete the same prompts under each of several settings; those that add vectors at the same sites share batches.

    Args:
        model: any hooked model.
        prompts: texts or chats.
        settings: for each setting, interventions that are applied together.
        max_new_tokens: maximum length of a completion.
        progress: show bars when it takes longer than two seconds.
    """
    completions: list[list[str]] = [[] for _ in settings]
    n = len(prompts)
    for group in _batched(settings):
        steer = settings[group[0]] if len(group) == 1 else merged([settings[k] for k in group], n)
        texts = generate(model, [*prompts] * len(group), *steer, max_new_tokens=max_new_tokens, progress=progress)
        for block, k in enumerate(group):
            completions[k] = texts[block * n : block * n + n]
    return completions


def _batched(settings: Sequence[Sequence[Intervention]]) -> list[list[int]]:
    """Group the indices of settings that can share batches."""
    groups: list[list[int]] = []
    for k, setting in enumerate(settings):
        group = next((g for g in groups if can_share(setting, settings[g[0]])), None)
        if group is None:
            groups.append([k])
        else:
            group.append(k)
    return groups


def evaluator(model: HookedModel, task: Task, split: str, *, n: int = 200, seed: int = 0, clean_prompts: int = 0) -> Evaluator:
    """Draw prompts of a split, and answer clean ones without steering.

    Args:
        model: any hooked model.
        task: its prompts and judge are used.
        split: of the task.
        n: number of prompts.
        seed: draws the prompts.
        clean_prompts: number of prompts that costs are measured on; at least CLEAN_PROMPTS, or all if there are fewer.

    Raises:
        ValueError: for fewer prompts than n.
    """
    prompts = draw(task.prompts(split), n, seed, f"{split} prompts of {task.name}")
    clean = task.clean(split)
    drawn = draw(clean, min(max(clean_prompts, CLEAN_PROMPTS), len(clean)), seed, f"clean {split} prompts of {task.name}")
    answers = generate_tokens(model, drawn, max_new_tokens=task.max_new_tokens, progress=False)
    clean_kl = CleanKL(tuple(map(tuple, tokenize(model, drawn))), tuple(map(tuple, answers)))
    return Evaluator(model, task, tuple(prompts), clean_kl)


def draw(items: Sequence[Any], n: int, seed: int, what: str) -> list[Any]:
    """Draw ``n`` of the items.

    Raises:
        ValueError: when there are fewer.
    """
    if not items:
        raise ValueError(f"there are no {what}: give some, or choose a split that has them")
    if not 0 < n <= len(items):
        raise ValueError(f"n={n}: there are {len(items)} {what}; choose n from 1 to {len(items)}")
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed))
    return [items[int(i)] for i in order[:n]]


def random_like(like: Intervention, seed: int, draws: int = RANDOM_DRAWS) -> list[Intervention]:
    """Return interventions that add random directions with the norm, site and positions of another."""
    transform = like.transform
    assert isinstance(transform, Add)
    total = transform.direction.float() * transform.strength
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(total.shape[-1], generator=generator) for _ in range(draws)]
    return [Intervention(like.site, Add(v / v.norm() * total.norm()), like.positions, model=like.model) for v in noise]


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
