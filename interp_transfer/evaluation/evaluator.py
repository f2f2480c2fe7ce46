"""Judging conditions on the same prompts.

An evaluator holds prompts, the model that answers them, the task that judges the answers, and what measures the cost on prompts
that need no intervention. All conditions of a comparison use the same evaluator.
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
from interp_transfer.interventions.merging import can_share, merged_each
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.interventions.transforms import Add, MeanAblate
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.stats import Estimate, clustered_rate, mean_interval, rate, share_to_dict

RANDOM_DRAWS = 5
CLEAN_PROMPTS = 100
REFERENCE_TEXTS = 200


@dataclass(frozen=True)
class Condition:
    """What happened under one condition.

    Attributes:
        success: share of prompts on which the intervention did what it is for.
        intact: share of prompts on which it did so and the completion is a valid answer.
        cost: clean KL: nats per token against the unsteered model, on its own answers to clean prompts.
        strength: of the intervention; 0 where that has no meaning.
        completions: of each prompt; of the first draw where there are several.
        verdicts: on those completions.
        note: what was done, in words.
        readings: what else the task reads off ``completions``, by name.
        differ: which of them its judges do not agree on.
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

    def to_dict(self) -> dict[str, Any]:
        """As result.json holds it."""
        return {
            "strength": self.strength,
            "success": share_to_dict(self.success),
            "intact": share_to_dict(self.intact),
            "clean_kl": self.cost.value,
            "clean_kl_interval": {"low": self.cost.low, "high": self.cost.high, "n": self.cost.n},
            "note": self.note,
            "readings": {name: share_to_dict(share) for name, share in self.readings.items()},
        }


def condition(
    task: Task, prompts: Sequence[str], draws: Sequence[Sequence[str]], cost: Estimate, strength: float, note: str
) -> Condition:
    """Judge completions; several draws of the same prompts are pooled, the interval clustered by prompt."""
    verdicts = [task.judge(prompts, texts) for texts in draws]
    success = [[v[i].success for v in verdicts] for i in range(len(prompts))]
    intact = [[v[i].intact for v in verdicts] for i in range(len(prompts))]
    if len(draws) == 1:
        rates = rate([s for [s] in success]), rate([s for [s] in intact])
    else:
        rates = clustered_rate(success), clustered_rate(intact)
    return Condition(*rates, cost, float(strength), tuple(draws[0]), tuple(verdicts[0]), note)


def add_readings(task: Task, prompts: Sequence[str], judged: Condition) -> Condition:
    """A condition with what else the task reads off its completions, if it is such a task."""
    if task.readings is None:
        return judged
    found = {
        name: rate([bool(applies) for applies in read if applies is not None])
        for name, read in task.readings(prompts, judged.completions).items()
        if any(applies is not None for applies in read)
    }
    return replace(
        judged, readings=found, differ=tuple(task.differ(prompts, judged.completions) if task.differ is not None else ())
    )


@dataclass(frozen=True)
class CleanKL:
    """The unsteered model's own answers to clean prompts, on which the cost of interventions is measured."""

    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]

    def __call__(
        self, model: HookedModel, settings: Sequence[Sequence[Intervention]], progress: bool = False
    ) -> list[Float[Tensor, " prompt"]]:
        """Divergence from the unsteered model under each of some settings, nats per token; 0 where nothing is done."""
        done = [given for given in settings if given]
        found = iter(teacher_forced_each(model, self.prompts, self.answers, done, progress=progress) if done else [])
        return [next(found).kl if given else torch.zeros(len(self.prompts)) for given in settings]


@dataclass(frozen=True)
class Evaluator:
    """Prompts of one model and task, and the measure of clean KL: the same for all conditions of a comparison.

    Attributes:
        model: the model that is steered.
        task: who judges.
        prompts: what the model is asked.
        clean_kl: measures costs on its own answers to clean prompts.
    """

    model: HookedModel
    task: Task
    prompts: tuple[str, ...]
    clean_kl: CleanKL

    def judge(
        self, draws: Sequence[Sequence[Intervention]], strength: float, note: str = "", progress: bool = True
    ) -> Condition:
        """Judge one condition: what is applied together, once, or several times for random draws that are pooled."""
        return self.judge_each([draws], [strength], note, progress)[0]

    def judge_each(
        self,
        conditions: Sequence[Sequence[Sequence[Intervention]]],
        strengths: Sequence[float],
        note: str = "",
        progress: bool = True,
    ) -> list[Condition]:
        """Judge several conditions, each given as to ``judge``; those that add vectors at the same sites share batches."""
        settings = [tuple(draw) for draws in conditions for draw in draws]
        said = iter(self.completions(settings, progress))
        costs = iter(self.clean_kl(self.model, settings, progress))
        judged = []
        for draws, strength in zip(conditions, strengths, strict=True):
            texts = [next(said) for _ in draws]
            kl = torch.stack([next(costs) for _ in draws]).mean(dim=0)
            told = note or "; ".join(map(str, draws[0]))
            judged.append(condition(self.task, self.prompts, texts, cost(kl), strength, told))
        return judged

    def completions(self, settings: Sequence[Sequence[Intervention]], progress: bool = True) -> list[list[str]]:
        """What the model says to the prompts under each of some settings."""
        return completions_each(self.model, self.prompts, settings, self.task.max_new_tokens, progress)

    def unsteered(self, progress: bool = True) -> Condition:
        """The model as it is."""
        return self.judge([()], 0.0, "nothing done", progress)

    def random(self, like: Intervention, seed: int, strength: float, progress: bool = True) -> Condition:
        """Random vectors with the norm, site and positions of ``like``, pooled."""
        note = f"{RANDOM_DRAWS} random vectors of the reference's norm, at its site and positions"
        return self.judge([(r,) for r in random_like(like, seed)], strength, note, progress)

    def mean_ablated(self, like: Intervention, progress: bool = True) -> Condition:
        """The mean activation at the site and positions of ``like``."""
        note = "the site's mean in place of its activation"
        return self.judge([(mean_ablation(self.model, self.task, like),)], 0.0, note, progress)

    def forced_first_token(self) -> Condition:
        """No steering, but the first token of the right answer is given: a task that this solves says little."""
        forced = forced_first_tokens(self.model, self.task, self.prompts)
        rest = generate(self.model, forced, max_new_tokens=self.task.max_new_tokens - 1, progress=False)
        said = [f[len(p) :] + r for f, p, r in zip(forced, self.prompts, rest, strict=True)]
        nothing = cost(torch.zeros(len(self.clean_kl.prompts)))
        return condition(
            self.task, self.prompts, [said], nothing, 0.0, "no steering; the first token of the right answer is given"
        )


def cost(kl: Float[Tensor, " prompt"]) -> Estimate:
    """Mean clean KL with its interval, which does not go below 0."""
    found = mean_interval(kl.tolist())
    return replace(found, low=max(0.0, found.low))


def completions_each(
    model: HookedModel,
    prompts: Sequence[str],
    settings: Sequence[Sequence[Intervention]],
    max_new_tokens: int,
    progress: bool = True,
) -> list[list[str]]:
    """What a model says to the same prompts under each of some settings.

    Settings that add vectors at the same sites share batches.

    Args:
        model: any hooked model.
        prompts: what it is asked.
        settings: interventions that are applied together, for each setting.
        max_new_tokens: tokens to generate at most.
        progress: show bars when it takes longer than two seconds.
    """
    said: list[list[str]] = [[] for _ in settings]
    n = len(prompts)
    for group in _batched(settings):
        given = settings[group[0]] if len(group) == 1 else merged_each([settings[k] for k in group], n)
        texts = generate(model, [*prompts] * len(group), *given, max_new_tokens=max_new_tokens, progress=progress)
        for place, k in enumerate(group):
            said[k] = texts[place * n : place * n + n]
    return said


def _batched(settings: Sequence[Sequence[Intervention]]) -> list[list[int]]:
    """Which settings can share batches, by their numbers."""
    groups: list[list[int]] = []
    for k, given in enumerate(settings):
        mates = (g for g in groups if can_share(given, settings[g[0]]))
        if (group := next(mates, None)) is None:
            groups.append([k])
        else:
            group.append(k)
    return groups


def evaluator(model: HookedModel, task: Task, split: str, *, n: int = 200, seed: int = 0, clean_prompts: int = 0) -> Evaluator:
    """Draw prompts of a split, and answer clean ones without steering.

    Args:
        model: any hooked model.
        task: whose prompts, and who judges.
        split: of the task.
        n: prompts.
        seed: of the draw.
        clean_prompts: on which costs are measured: CLEAN_PROMPTS or more, all there are if there are fewer.

    Raises:
        ValueError: for fewer prompts than n.
    """
    prompts = draw(task.prompts(split), n, seed, f"{split} prompts of {task.name}")
    clean = task.clean(split)
    quiet = draw(clean, min(max(clean_prompts, CLEAN_PROMPTS), len(clean)), seed, f"clean {split} prompts of {task.name}")
    answers = generate_tokens(model, quiet, max_new_tokens=task.max_new_tokens, progress=False)
    clean_kl = CleanKL(tuple(map(tuple, tokenize(model, quiet))), tuple(map(tuple, answers)))
    return Evaluator(model, task, tuple(prompts), clean_kl)


def draw(items: Sequence[str], n: int, seed: int, what: str) -> list[str]:
    """``n`` of the items, drawn by the seed.

    Raises:
        ValueError: when there are not as many.
    """
    if not items:
        raise ValueError(f"there are no {what}: give some, or choose a split that has them")
    if not 0 < n <= len(items):
        raise ValueError(f"n={n}: there are {len(items)} {what}; choose n from 1 to {len(items)}")
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed))
    return [items[int(i)] for i in order[:n]]


def random_like(like: Intervention, seed: int, draws: int = RANDOM_DRAWS) -> list[Intervention]:
    """Interventions that add random directions with the norm, site and positions of another."""
    transform = like.transform
    assert isinstance(transform, Add)
    total = transform.direction.float() * transform.strength
    generator = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(draws):
        noise = torch.randn(total.shape[-1], generator=generator)
        out.append(Intervention(like.site, Add(noise / noise.norm() * total.norm()), like.positions, model=like.model))
    return out


def mean_ablation(model: HookedModel, task: Task, like: Intervention) -> Intervention:
    """The site's mean activation over the task's prompts, in place of what the site would have held."""
    assert isinstance(like.site, str)
    texts = task.texts("train")[:REFERENCE_TEXTS]
    mean: Tensor = capture(model, texts, like.site, progress=False)[like.site].double().mean(dim=0).float()
    return Intervention(like.site, MeanAblate(mean), like.positions, model=like.model)


def forced_first_tokens(model: HookedModel, task: Task, prompts: Sequence[str]) -> list[str]:
    """The prompts, each with the first token of its right answer."""
    tok, answers = tokenizer_of(model), answer_tokens(model, task, prompts)
    return [
        prompt + tok.decode(ids[:1], clean_up_tokenization_spaces=False) for prompt, ids in zip(prompts, answers, strict=True)
    ]


def answer_tokens(model: HookedModel, task: Task, prompts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of a right answer to each prompt.

    Raises:
        ValueError: for a task without right answers.
    """
    if task.answers is None:
        raise ValueError(f"the task {task.name!r} has no right answers: give Task.from_pairs(..., answers=...)")
    return tokenizer_of(model)(task.answers(prompts), add_special_tokens=False)["input_ids"]
