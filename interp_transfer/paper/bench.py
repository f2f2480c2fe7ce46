"""What most measurements share: two models with their sites, a task, vectors, pairs, mappers, and a fair strength."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from interp_transfer.activations.align import DEFAULT_STRATEGY
from interp_transfer.evaluation.evaluator import Condition, Evaluator, draw, evaluator, random_like
from interp_transfer.evaluation.replacement import Oracle
from interp_transfer.evaluation.task import Task
from interp_transfer.evaluation.tasks import load_task
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.mapping.collect import PairedActivations, collect
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.token_classes import fit_by_class
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.load import load_model
from interp_transfer.paper.rows import Row, share
from interp_transfer.search.strengths import search_strength
from interp_transfer.stats import Estimate
from interp_transfer.studies.inputs import site_of, tuned_name
from interp_transfer.vectors.extract import extract
from interp_transfer.vectors.vector import SteeringVector

VALIDATION = 60
"""Validation prompts by which strengths are chosen, at most."""


def task_of(name: str, edition: str, options: Mapping[str, Any] | None = None) -> Task:
    """A task in the edition of a reproduction: "organisms" or "paper"."""
    return load_task(name, edition, **(options or {}))


def oracle_of(task: Task) -> Oracle | None:
    """Who rules on answers, if anybody can."""
    return task.valid


def some(items: Sequence[str], n: int, seed: int, what: str) -> list[str]:
    """N of the items, drawn by the seed; all of them if there are fewer."""
    return draw(items, min(n, len(items)), seed, what)


def model_for(name: str, task: Task) -> HookedModel:
    """A model; of a base organism its fine-tune for the task, if there is one."""
    return load_model(tuned_name(name, task))


@dataclass(frozen=True)
class Side:
    """One model and its site, with the task.

    Attributes:
        task: what is steered.
        model: who.
        site: where.
        seed: of everything that is drawn.
    """

    task: Task
    model: HookedModel
    site: str
    seed: int = 0

    @cached_property
    def vector(self) -> SteeringVector:
        """Found on this model."""
        return extract(self.model, self.task.contrast("train"), self.site, seed=self.seed)

    @cached_property
    def validation(self) -> Evaluator:
        """What strengths are chosen on."""
        n = min(VALIDATION, len(self.task.prompts("validation")))
        return evaluator(self.model, self.task, "validation", n=n, seed=self.seed)

    def test(self, n: int) -> Evaluator:
        """Held-out prompts; all there are if there are fewer."""
        there = len(self.task.prompts("test"))
        return evaluator(self.model, self.task, "test", n=min(n, there), seed=self.seed, clean_prompts=n)

    @property
    def budget(self) -> float:
        """Clean KL that a strength may cost, nats per token."""
        return self.task.budget

    def steer(self, vector: SteeringVector, strength: float) -> Intervention:
        """A vector added at the task's positions."""
        return add(vector, strength, self.task.positions)

    def fair(self, vector: SteeringVector) -> float:
        """The strength that validation prompts choose within the budget."""
        return search_strength(self.validation, vector, progress=False).strength

    def fair_random(self, vector: SteeringVector) -> float:
        """Likewise for random vectors of the same length."""
        draws = lambda x: random_like(self.steer(vector, x), self.seed, draws=2)  # noqa: E731
        return search_strength(self.validation, draws, progress=False).strength


@dataclass(frozen=True)
class Bench:
    """A source and a target.

    Attributes:
        source: where vectors are found.
        target: where they go.
    """

    source: Side
    target: Side

    @property
    def task(self) -> Task:
        """What is steered."""
        return self.target.task

    def pairs(self, strategy: str = DEFAULT_STRATEGY, texts: Sequence[str] | None = None) -> PairedActivations:
        """Activations of both on the task's training texts."""
        read = self.task.texts("train") if texts is None else texts
        return collect(
            self.source.model, self.target.model, read, self.source.site, self.target.site, strategy=strategy, progress=False
        )

    def unexplained(self, n: int, strategy: str = DEFAULT_STRATEGY) -> Callable[[Mapper], Estimate | None]:
        """What mappers leave unexplained of the target's variance (FVU), over the tokens of held-out texts."""
        held = self.pairs(strategy, some(self.task.texts("test"), n, self.target.seed, "test texts"))
        _, x, y = held.rows()
        there = y[:].float()

        def of(mapper: Mapper) -> Estimate | None:
            return fit_by_class(there, mapper(x[:].float()), [""] * len(there), held.text_index)[""].fvu

        return of

    def fit(self, pairs: PairedActivations, kind: str, seed: int, settings: Mapping[str, Any] | None = None) -> Mapper:
        """A mapper from the one to the other."""
        return fit(pairs, kind, models=(self.source.model, self.target.model), seed=seed, progress=False, **(settings or {}))


def side(
    edition: str,
    task: str,
    model: str,
    seed: int,
    site: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Side:
    """One model, with its task and site by their names."""
    made = task_of(task, edition, options)
    loaded = model_for(model, made)
    return Side(made, loaded, site_of(loaded, made, site, "site"), seed)


def bench(
    edition: str,
    task: str,
    source: str,
    target: str,
    seed: int,
    sites: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Bench:
    """A source and a target, by their names.

    Args:
        edition: "organisms" or "paper".
        task: its name.
        source: model that vectors are found on.
        target: model that they go to.
        seed: of everything that is drawn.
        sites: of the source and of the target; those on the models' cards unless given.
        options: of the task, such as its direction.
    """
    here, there = sites if sites is not None else (None, None)
    return Bench(*(side(edition, task, name, seed, at, options) for name, at in ((source, here), (target, there))))


def judged_row(judged: Condition, **first: Any) -> Row:
    """A condition as a row, behind what it is."""
    return {
        **first,
        "strength": f"{judged.strength:g}" if judged.strength else "-",
        "success": share(judged.success),
        "intact": share(judged.intact),
        "clean KL": judged.cost,
    }
