"""An evaluator judges conditions on the same prompts.

It holds the prompts, the model that answers them, the task that judges the answers, and the clean prompts on which costs are
measured. All conditions of a comparison use one evaluator.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.evaluation.baselines import RANDOM_DIRECTIONS, first_tokens, mean_ablation, random_like
from interp_transfer.evaluation.clean_kl import CleanKL
from interp_transfer.evaluation.completions import completions_each
from interp_transfer.evaluation.judges.rules import Verdict
from interp_transfer.evaluation.kept import ROWS, Kept, about_model, setting_key
from interp_transfer.evaluation.reasoning import prompt_texts, reasoning_lengths
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.generation import generate, generate_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import Unsteered
from interp_transfer.io import hashed
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.tokens import tokenize
from interp_transfer.prompts.chats import Prompt, instructed
from interp_transfer.stats import Estimate, crossed_mean, crossed_rate, mean_interval, rate, share_to_dict

RANDOM_PROMPTS = 50
"""Prompts, and clean prompts, on which random directions are judged: most of the uncertainty is between directions."""
CLEAN_PROMPTS = 100


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
        kl: of each clean prompt; ``cost`` is their mean.
        note: describes the condition.
        draws: the outcome of each draw, if there are several, such as random directions or seeds of a mapper.
        readings: further readings of ``completions`` by the task, by name.
        differ: indices of the completions on which the task's judges disagree.
    """

    success: Estimate
    intact: Estimate
    cost: Estimate
    strength: float
    completions: tuple[str, ...] = field(repr=False)
    verdicts: tuple[Verdict, ...] = field(repr=False)
    kl: tuple[float, ...] = field(default=(), repr=False)
    note: str = ""
    draws: tuple["Condition", ...] = field(default=(), repr=False)
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

    def values(self) -> dict[str, float]:
        """Return the strength, success, intact and clean KL, without intervals."""
        shares = {"success": self.success.value, "intact": self.intact.value}
        return {"strength": self.strength, **shares, "clean_kl": self.clean_kl}

    def to_dict(self) -> dict[str, Any]:
        """Return the condition as result.json stores it."""
        return {
            "strength": self.strength,
            "success": share_to_dict(self.success),
            "intact": share_to_dict(self.intact),
            "clean_kl": self.cost.value,
            "clean_kl_interval": {"low": self.cost.low, "high": self.cost.high, "n": self.cost.n},
            "note": self.note,
            "draws": [draw.values() for draw in self.draws],
            "readings": {name: share_to_dict(share) for name, share in self.readings.items()},
        }

    def __str__(self) -> str:
        return f"success {self.success:.2f}  intact {self.intact:.2f}  clean KL {self.clean_kl:.3f}"


def condition(
    task: Task,
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    kl: Float[Tensor, " clean"],
    strength: float,
    note: str = "",
) -> Condition:
    """Judge completions."""
    verdicts = task.judge(prompts, completions)
    shares = rate([v.success for v in verdicts]), rate([v.intact for v in verdicts])
    by_prompt = tuple(kl.tolist())
    return Condition(
        *shares, _cost(mean_interval(by_prompt)), float(strength), tuple(completions), tuple(verdicts), by_prompt, note
    )


def pooled(draws: Sequence[Condition], note: str) -> Condition:
    """Return the mean over random draws, such as random directions, with intervals over both draws and prompts.

    It is over the prompts that all draws were judged on, the first ones of each. Completions and verdicts are those of the
    first draw, and the strength is the median over the draws.
    """
    n, clean = (min(len(part) for part in parts) for parts in ([c.verdicts for c in draws], [c.kl for c in draws]))
    success, intact = (
        crossed_rate([[getattr(v, what) for v in c.verdicts[:n]] for c in draws]) for what in ("success", "intact")
    )
    cost = _cost(crossed_mean([c.kl[:clean] for c in draws]))
    strength = float(np.median([c.strength for c in draws]))
    first = draws[0]
    return Condition(success, intact, cost, strength, first.completions, first.verdicts, first.kl, note, tuple(draws))


def strongest(draws: Sequence[Condition], note: str) -> Condition:
    """Return the draw with most intact answers, such as the best seed of a control, with all of them as its draws."""
    return replace(max(draws, key=lambda c: (c.intact.value, c.success.value)), note=note, draws=tuple(draws))


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
class Evaluator:
    """Prompts of one model and task, and the measure of costs.

    Attributes:
        model: the model that is steered.
        task: its judge decides.
        prompts: answered under every condition.
        clean_kl: measures costs on clean prompts.
        kept: where completions and costs are kept, if they are.
        passes: passes of the unsteered model over the clean prompts, kept from call to call; each call runs its own unless
            given. The model must not change in between.
    """

    model: HookedModel
    task: Task
    prompts: tuple[Prompt, ...]
    clean_kl: CleanKL
    kept: Kept | None = field(default=None, repr=False)
    passes: Unsteered | None = field(default=None, repr=False)

    def judge(
        self, setting: Sequence[Intervention], strength: float | int = 0.0, note: str = "", progress: bool = True
    ) -> Condition:
        """Judge interventions that are applied together."""
        return self.judge_each([setting], [strength], note, progress)[0]

    def judge_each(
        self,
        settings: Sequence[Sequence[Intervention]],
        strengths: Sequence[float | int],
        note: str = "",
        progress: bool = True,
        known: Mapping[int, Float[Tensor, " prompt"]] | None = None,
    ) -> list[Condition]:
        """Judge several settings, each as for ``judge``; those that add vectors at the same sites share batches.

        ``known`` are costs that were measured before, by the index of their setting.
        """
        known = known or {}
        completions = self.completions(settings, progress)
        others = iter(self.costs([setting for k, setting in enumerate(settings) if k not in known], progress))
        costs = [known[k] if k in known else next(others) for k in range(len(settings))]
        return [
            condition(self.task, self.prompts, texts, kl, strength, note or "; ".join(map(str, setting)))
            for setting, strength, texts, kl in zip(settings, strengths, completions, costs, strict=True)
        ]

    def judge_draws(
        self,
        settings: Sequence[Sequence[Intervention]],
        strengths: Sequence[float | int],
        note: str = "",
        progress: bool = True,
    ) -> Condition:
        """Judge random draws and pool them: the first on all prompts, the others on the first ``RANDOM_PROMPTS``."""
        return pooled(self.judge_groups({"": settings}, {"": strengths}, ("",), progress)[""], note)

    def judge_groups(
        self,
        settings: Mapping[str, Sequence[Sequence[Intervention]]],
        strengths: Mapping[str, Sequence[float | int]],
        random: Collection[str],
        progress: bool = True,
    ) -> dict[str, list[Condition]]:
        """Judge the draws of several conditions together, so that all share batches.

        Of conditions in ``random``, draws after the first are judged on the first ``RANDOM_PROMPTS`` prompts.
        """
        short = max(len(self.prompts), len(self.clean_kl.prompts)) <= RANDOM_PROMPTS
        every = [(name, k) for name, draws in settings.items() for k in range(len(draws))]
        later = [(name, k) for name, k in every if name in random and k and not short]
        judged: dict[tuple[str, int], Condition] = {}
        for part, here in (([key for key in every if key not in later], self), (later, self.few(RANDOM_PROMPTS))):
            if not part:
                continue
            each = [settings[name][k] for name, k in part], [strengths[name][k] for name, k in part]
            judged |= zip(part, here.judge_each(*each, progress=progress), strict=True)
        return {name: [judged[name, k] for k in range(len(draws))] for name, draws in settings.items()}

    def completions(self, settings: Sequence[Sequence[Intervention]], progress: bool = True) -> list[list[str]]:
        """Return the completions of the prompts under each setting."""
        length = self.task.max_new_tokens
        return self._each(
            "completions",
            settings,
            lambda part: completions_each(self.model, self.prompts, settings[part], length, progress),
            list[str],
            len(self.prompts),
            [tokenize(self.model, self.prompts), length],
        )

    def costs(self, settings: Sequence[Sequence[Intervention]], progress: bool = False) -> list[Float[Tensor, " prompt"]]:
        """Return the clean KL of each clean prompt under each setting, in nats per token."""
        each = self._each(
            "costs",
            settings,
            lambda part: [kl.tolist() for kl in self.clean_kl(self.model, settings[part], progress, self.passes)],
            list[float],
            len(self.clean_kl.prompts),
            vars(self.clean_kl),
        )
        return list(map(torch.tensor, each))

    def _each(
        self,
        what: str,
        settings: Sequence[Sequence[Intervention]],
        make: Callable[[slice], list[Any]],
        kind: Any,
        rows: int,
        about: Any,
    ) -> list[Any]:
        """What ``make`` returns for the settings, each of so many rows, kept on the way under what it is ``about``."""
        if self.kept is None:
            return make(slice(None))
        key = hashed([about_model(self.model), about])
        keys = [None if plain is None else hashed([key, plain]) for plain in map(setting_key, settings)]
        return self.kept.each(what, keys, make, kind, max(1, ROWS // max(rows, 1)))

    def few(self, n: int) -> "Evaluator":
        """Return the evaluator of the first prompts, and of as many clean ones."""
        clean = CleanKL(self.clean_kl.prompts[:n], self.clean_kl.answers[:n], self.clean_kl.skip[:n])
        return replace(self, prompts=self.prompts[:n], clean_kl=clean, passes=None)

    def unsteered(self, progress: bool = True) -> Condition:
        """Judge the model without interventions."""
        return self.judge((), note="nothing done", progress=progress)

    def random(self, like: Intervention, seed: int, strength: float | int, progress: bool = True) -> Condition:
        """Judge random vectors with the norm, site and positions of ``like``."""
        note = f"{RANDOM_DIRECTIONS} random vectors of the reference's norm, at its site and positions"
        settings = [(r,) for r in random_like(like, seed)]
        return self.judge_draws(settings, [strength] * len(settings), note, progress)

    def mean_ablated(self, like: Intervention, progress: bool = True) -> Condition:
        """Judge the mean activation at the site and positions of ``like``."""
        note = "the site's mean in place of its activation"
        return self.judge((mean_ablation(self.model, self.task, like),), note=note, progress=progress)

    def instructed(self, progress: bool = True) -> Condition:
        """Judge the unsteered model under a system prompt that asks for the behaviour, the task's ``instruction``."""
        asked = tuple(instructed(prompt, self.task.instruction) for prompt in self.prompts)
        [completions] = replace(self, prompts=asked).completions([()], progress)
        free = torch.zeros(len(self.clean_kl.prompts))
        return condition(self.task, self.prompts, completions, free, 0.0, f"no steering; {self.task.instruction}")

    def forced_first_token(self) -> Condition:
        """Judge the unsteered model when the first token of the right answer is given: a task that this solves says little."""
        starts = first_tokens(self.model, self.task, self.prompts)
        texts = prompt_texts(self.model, self.prompts)
        forced = [text + start for text, start in zip(texts, starts, strict=True)]
        rest = generate(self.model, forced, max_new_tokens=self.task.max_new_tokens - 1, progress=False)
        completions = [start + end for start, end in zip(starts, rest, strict=True)]
        free = torch.zeros(len(self.clean_kl.prompts))
        note = "no steering; the first token of the right answer is given"
        return condition(self.task, self.prompts, completions, free, 0.0, note)


def _cost(kl: Estimate) -> Estimate:
    """Mean clean KL, whose interval is cut off at 0."""
    return replace(kl, low=max(0.0, kl.low))


def evaluator(
    model: HookedModel,
    task: Task,
    split: str,
    *,
    n: int = 200,
    seed: int = 0,
    clean_prompts: int | None = None,
    kept: Kept | None = None,
) -> Evaluator:
    """Draw prompts of a split, and answer clean ones without steering.

    Args:
        model: any hooked model.
        task: its prompts and judge are used.
        split: of the task.
        n: number of prompts.
        seed: draws the prompts.
        clean_prompts: number of prompts that costs are measured on, or all if there are fewer; n unless given, but at least
            ``CLEAN_PROMPTS``.
        kept: where completions and costs are kept; nowhere unless given.

    Raises:
        ValueError: for fewer prompts than n, or a thinking model that answers no clean prompt within the task's length.
    """
    prompts = draw(task.prompts(split), n, seed, f"{split} prompts of {task.name}")
    clean = task.clean(split)
    count = max(n, CLEAN_PROMPTS) if clean_prompts is None else clean_prompts
    drawn = draw(clean, min(count, len(clean)), seed, f"clean {split} prompts of {task.name}")
    ids = tokenize(model, drawn)
    key = hashed([about_model(model), ids, task.max_new_tokens])
    [answers] = (kept or Kept()).each(
        "answers",
        [key],
        lambda _: [generate_tokens(model, drawn, max_new_tokens=task.max_new_tokens, progress=False)],
        list[list[int]],
        at_once=1,
    )
    skip = reasoning_lengths(model, drawn, answers)
    ended = [i for i, (answer, block) in enumerate(zip(answers, skip, strict=True)) if block < len(answer)]
    if not ended:
        raise ValueError(
            f"none of {len(drawn)} clean answers ends its reasoning within {task.max_new_tokens} tokens: give the task a "
            "larger max_new_tokens, or choose a model whose chat template switches reasoning off"
        )
    read, made = (tuple(tuple(rows[i]) for i in ended) for rows in (ids, answers))
    clean_kl = CleanKL(read, made, tuple(skip[i] for i in ended))
    return Evaluator(model, task, tuple(prompts), clean_kl, kept)


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
