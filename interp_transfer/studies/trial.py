"""A trial of vectors in one target: strengths are chosen on validation prompts, conditions are compared on test prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from interp_transfer.evaluation.baselines import mean_ablation
from interp_transfer.evaluation.evaluator import CLEAN_PROMPTS, Condition, Evaluator, add_readings, evaluator, pooled, strongest
from interp_transfer.evaluation.kept import Kept
from interp_transfer.evaluation.metrics import loss_recovered
from interp_transfer.evaluation.side_effects import SideEffects, side_effects
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.follow import follow
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.interventions.predictions import Unsteered
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.move import MODES
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.search.strengths import Limit, StrengthSearch, largest_within, search_strengths
from interp_transfer.studies.controls import Fitter, Vectors
from interp_transfer.studies.options import RunOptions
from interp_transfer.vectors.vector import SteeringVector

CLEAN_PER_PROMPT = 2
"""Largest number of clean prompts for each test prompt, where test prompts are few."""
VARIANTS = ("autoencoder", "affine")
"""Mappers that are compared with the chosen one."""

POOLED = ("random", "random_in_span")
"""Conditions whose outcome is the mean over their draws."""
CONTROLS = ("wrong_contrast", "shuffled", "shuffled_within_text", "untrained")
"""Conditions whose outcome is that of their strongest draw."""
NOTES = {
    "random": "mean over {n} isotropic random directions, each at its own strength",
    "random_in_span": "mean over {n} random directions in the span of the moved evidence, each at its own strength",
    "wrong_contrast": "two halves of the positive side as the contrast; the strongest of {n}",
    "shuffled": "moved by a mapper fitted on pairs that were shuffled across texts; the strongest of {n} seeds",
    "shuffled_within_text": "moved by a mapper fitted on pairs that were shuffled within each text; the strongest of {n} seeds",
    "untrained": "moved by a mapper that was not trained; the strongest of {n} seeds",
}

Strengths = Mapping[str, Sequence[float]]
"""By condition, the strength of each draw."""


def validation_prompts(task: Task, how: RunOptions) -> int:
    """Return the number of prompts that strengths are chosen on."""
    return min(how.n_validation, how.n, len(task.prompts("validation")))


def clean_prompts(n: int) -> int:
    """Return the number of clean prompts that n test prompts go with; all there are, if they are fewer."""
    return max(n, min(CLEAN_PROMPTS, CLEAN_PER_PROMPT * n))


@dataclass(frozen=True)
class Trial:
    """Judges vectors in one target.

    Attributes:
        target: the model that is steered.
        task: prompts, positions and judge.
        options: numbers of prompts, strengths, budget and seed.
        kept: where completions and costs are kept.
        progress: show bars for what takes longer than two seconds.
    """

    target: HookedModel
    task: Task
    options: RunOptions
    kept: Kept
    progress: bool = True

    @property
    def budget(self) -> float:
        """Clean KL that a strength may cost, in nats per token."""
        return self.task.budget if self.options.budget is None else self.options.budget

    @cached_property
    def validation(self) -> Evaluator:
        """The prompts on which strengths are chosen."""
        count = min(self.options.n_validation, self.options.n)
        n = validation_prompts(self.task, self.options)
        return self._evaluator("validation", n, count)

    @cached_property
    def test(self) -> Evaluator:
        """The held-out prompts on which conditions are compared."""
        return self._evaluator("test", self.options.n, clean_prompts(self.options.n))

    def search(self, vectors: Vectors) -> dict[str, list[StrengthSearch]]:
        """The strength of each draw of each condition, all by the same search on validation prompts; see `search_strengths`."""
        how = {"budget": self.budget, "progress": self.progress, "fractions": self.options.fractions}
        found = iter(search_strengths(self.validation, _by_draw(vectors), **how).values())
        return {name: [next(found) for _ in draws] for name, draws in vectors.items()}

    def strengths(self, vectors: Vectors) -> dict[str, list[float]]:
        """The strengths alone: without what the others cost that were tried, and at equal cost without answers."""
        draws = _by_draw(vectors)
        if self.options.equal_cost:
            found: Mapping[str, Limit | StrengthSearch] = largest_within(
                self.validation, draws, budget=self.budget, progress=self.progress
            )
        else:
            found = search_strengths(self.validation, draws, budget=self.budget, progress=self.progress, costs=False)
        each = iter(found.values())
        return {name: [next(each).strength for _ in draws] for name, draws in vectors.items()}

    def judge(self, vectors: Vectors, strengths: Strengths) -> dict[str, Condition]:
        """Each condition at its strengths on test prompts."""
        settings = {
            name: [(self._steer(v, x),) for v, x in zip(draws, strengths[name], strict=True)] for name, draws in vectors.items()
        }
        judged = self.test.judge_groups(settings, strengths, POOLED, self.progress)
        return {name: _together(name, draws) for name, draws in judged.items()}

    def compare(self, vectors: Vectors, strengths: Strengths) -> dict[str, Condition]:
        """Every condition on test prompts: the vectors at their strengths, and the baselines without a vector."""
        conditions = {
            "unsteered": self.test.unsteered(self.progress),
            **({"system_prompt": self.test.instructed(self.progress)} if self.task.instruction else {}),
            **self.judge(vectors, strengths),
            "mean_ablated": self.test.mean_ablated(self._steer(vectors["moved"][0], 1.0), self.progress),
        }
        if self.task.answers is not None:
            conditions["forced_first_token"] = self.test.forced_first_token()
        return {name: add_readings(self.task, self.test.prompts, condition) for name, condition in conditions.items()}

    def side_effects(self, vectors: Vectors, strengths: Strengths) -> dict[str, SideEffects]:
        """What the native, the moved and one random vector cost elsewhere."""
        names = ("native", "moved", "random")
        steered = {name: (self._steer(vectors[name][0], strengths[name][0]),) for name in names}
        n = clean_prompts(self.options.n)
        conditions = {"unsteered": (), **steered}
        return side_effects(self.target, self.task, conditions, n=n, seed=self.options.seed, progress=self.progress)

    def loss_recovered(self, source: HookedModel, mapper: Mapper) -> dict[str, Any]:
        """What the mapper's activations recover of the loss that mean ablation costs, on clean prompts."""
        mapped = follow(source, mapper.source.site, mapper.target.site, mapper)
        ablated = mean_ablation(self.target, self.task, mapped)
        clean = self.test.clean_kl
        return {"recovered": loss_recovered(self.target, clean.prompts, clean.answers, mapped, ablated).to_dict()}

    def variants(self, fitter: Fitter, mapper: Mapper, vector: SteeringVector, native: SteeringVector) -> list[dict[str, Any]]:
        """The vector moved by the other modes and mappers, each at its fair strength on test prompts."""
        how = self.options
        mappers = {kind: mapper if kind == how.mapper else fitter.fit(kind, how.seed) for kind in VARIANTS}
        mappers[how.mapper] = mapper
        todo = [(kind, mode) for kind in mappers for mode in MODES if (kind, mode) != (how.mapper, how.mode)]
        moved = {f"{kind} {mode}": [mappers[kind].transfer(vector, mode, how.norm)] for kind, mode in todo}
        judged = self.judge(moved, self.strengths(moved))
        rows = []
        for (kind, mode), (name, [each]) in zip(todo, moved.items(), strict=True):
            facts = {"fvu": mappers[kind].card.fvu, "norm": each.norm, "cosine_to_native": each.cosine(native)}
            rows.append({"mapper": kind, "mode": mode, **facts, **judged[name].to_dict()})
        return rows

    def _evaluator(self, split: str, n: int, clean: int) -> Evaluator:
        one = evaluator(self.target, self.task, split, n=n, seed=self.options.seed, clean_prompts=clean, kept=self.kept)
        return replace(one, passes=Unsteered())

    def _steer(self, vector: SteeringVector, strength: float) -> Intervention:
        return add(vector, strength, self.task.positions)


def _by_draw(vectors: Vectors) -> dict[str, SteeringVector]:
    return {f"{name} {k}": vector for name, draws in vectors.items() for k, vector in enumerate(draws)}


def _together(name: str, draws: list[Condition]) -> Condition:
    """The outcome of a condition from its draws: the mean of random ones, the strongest of a control, else the first."""
    note = NOTES.get(name, "").format(n=len(draws))
    if name in POOLED:
        return pooled(draws, note)
    if name in CONTROLS:
        return strongest(draws, note)
    return replace(draws[0], draws=tuple(draws) if len(draws) > 1 else ())
