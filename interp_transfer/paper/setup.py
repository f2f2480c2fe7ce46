"""What measurements start from: a task with one model, or with a source and a target.

The keyword parameters of a class and its bases are the settings of a case in its TOML file. Models, vectors, activations and
mappers are made when they are first used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from interp_transfer.activations.align import DEFAULT_STRATEGY
from interp_transfer.evaluation.baselines import RANDOM_DIRECTIONS
from interp_transfer.evaluation.evaluator import RANDOM_PROMPTS, Condition, Evaluator, draw, evaluator
from interp_transfer.evaluation.kept import Kept
from interp_transfer.evaluation.task import Task
from interp_transfer.evaluation.tasks import load_task
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.mapping.collect import PairedActivations, collect
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.token_classes import fit_by_class
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.load import load_model
from interp_transfer.paper.rows import Row
from interp_transfer.search.strengths import judge_random, judge_searched, search_strengths
from interp_transfer.stats import Estimate
from interp_transfer.studies.inputs import choose_site, tuned_name
from interp_transfer.studies.options import VALIDATION_PROMPTS
from interp_transfer.vectors.extract import extract
from interp_transfer.vectors.vector import SteeringVector

UNSEEN = "held-out entities"
"""The group of test prompts about what no text of a mapper and no pair of a vector mentions."""


def of_group(task: Task, belongs: Callable[[str], bool]) -> Task:
    """The task with the test prompts and test texts of some groups alone; the task itself if it has no groups."""
    group = task.group
    if group is None:
        return task

    def some(items: Callable[[str], Sequence[Any]]) -> Callable[[str], list[Any]]:
        return lambda split: [x for x in items(split) if split != "test" or belongs(group(x))]

    return replace(task, prompts=some(task.prompts), texts=some(task.texts))


class Setup:
    """What every measurement is passed.

    Args:
        edition: "organisms" or "paper": where tasks come from.
        n: number of prompts of every figure.
        seed: seed of all random draws.

    Fewer prompts than random directions are judged on are for seeing that a measurement runs: it then has few of them.

    Attributes:
        data: folder of data that is given by path.
        kept: where outcomes may be kept until all cases are measured, so that a case that was killed resumes, and cases share
            what they have in common.
    """

    data: Path | None = None
    kept: Kept = Kept()

    def __init__(self, edition: str, n: int, seed: int) -> None:
        self.edition, self.n, self.seed = edition, n, seed
        self.directions, self.seeds = (RANDOM_DIRECTIONS, 3) if n >= RANDOM_PROMPTS else (4, 1)

    def draw(self, items: Sequence[Any], what: str, n: int | None = None) -> list[Any]:
        """Draw n of the items by the seed; all of them where there are fewer."""
        return draw(items, min(n or self.n, len(items)), self.seed, what)


class OneModel(Setup):
    """A task and a model.

    Args:
        common: see `Setup`.
        task: name of the task.
        model: name of the model; its fine-tune for the task is taken where one is registered.
        site: where vectors are found and added; the registered one for the task unless given.
        options: of the task, such as its direction.
    """

    def __init__(
        self, *common: Any, task: str, model: str, site: str | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(*common)
        self.task = load_task(task, self.edition, **(options or {}))
        self.name = model
        self._site = site

    @cached_property
    def model(self) -> HookedModel:
        """The loaded model."""
        return load_model(tuned_name(self.name, self.task))

    @cached_property
    def site(self) -> str:
        """Where vectors are found and added."""
        return choose_site(self.model, self.task, self._site).name

    @cached_property
    def vector(self) -> SteeringVector:
        """The difference in means of the task's contrast on this model."""
        return extract(self.model, self.task.contrast("train"), self.site, self.task.read, seed=self.seed)

    @cached_property
    def validation(self) -> Evaluator:
        """Evaluator on the prompts that strengths are chosen by."""
        count = min(VALIDATION_PROMPTS, self.n)
        n = min(count, len(self.task.prompts("validation")))
        return evaluator(self.model, self.task, "validation", n=n, seed=self.seed, clean_prompts=count)

    @cached_property
    def test(self) -> Evaluator:
        """Evaluator on n held-out prompts, or all there are."""
        n = min(self.n, len(self.task.prompts("test")))
        return evaluator(self.model, self.task, "test", n=n, seed=self.seed)

    def steer(self, vector: SteeringVector, strength: float) -> Intervention:
        """The vector added at the task's positions."""
        return add(vector, strength, self.task.positions)

    def fair_strength(self, vector: SteeringVector) -> float:
        """The strength that the search on validation prompts chooses within the task's clean-KL budget."""
        return search_strengths(self.validation, {"": vector}, progress=False, costs=False)[""].strength

    def judge(self, vector: SteeringVector, strength: float) -> Condition:
        """Judge the test prompts with the vector added."""
        return self.test.judge((self.steer(vector, strength),), strength, progress=False)

    def judge_fair(self, vectors: Sequence[SteeringVector]) -> list[Condition]:
        """Judge the test prompts with each vector added at the strength that its own search chooses."""
        named = {str(k): vector for k, vector in enumerate(vectors)}
        return list(judge_searched(self.validation, self.test, named, progress=False).values())

    def judge_random(self) -> Condition:
        """Judge the test prompts with random directions at the site, each at the strength that its own search chooses."""
        return judge_random(self.validation, self.test, self.vector, n=self.directions, seed=self.seed, progress=False)


class TwoModels(Setup):
    """A task, a source and a target. Test prompts and test texts are about what no text of a mapper mentions.

    Args:
        common: see `Setup`.
        task: name of the task.
        source: name of the model that vectors are found on.
        target: name of the model that they are moved to.
        strategy: how tokens of different tokenizers are paired.
        sites: of the source and of the target; the registered ones for the task unless given.
        options: of the task, such as its direction.
    """

    def __init__(
        self,
        *common: Any,
        task: str,
        source: str,
        target: str,
        strategy: str = DEFAULT_STRATEGY,
        sites: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(*common)
        self.strategy = strategy
        self.given_sites = tuple(sites) if sites is not None else (None, None)
        self.source, self.target = (
            OneModel(*common, task=task, model=name, site=site, options=options)
            for name, site in zip((source, target), self.given_sites, strict=True)
        )
        self.whole_task = self.target.task
        self.task = of_group(self.whole_task, UNSEEN.__eq__)
        self.source.task = self.target.task = self.task

    def pairs(self, texts: Sequence[str] | None = None) -> PairedActivations:
        """Collect activations of both models on texts; on the task's training texts unless given."""
        a, b = self.source, self.target
        chosen = self.task.texts("train") if texts is None else texts
        return collect(a.model, b.model, chosen, a.site, b.site, strategy=self.strategy, progress=False)

    def fit(self, pairs: PairedActivations, kind: str, seed: int, settings: Mapping[str, Any] | None = None) -> Mapper:
        """Fit a mapper from the source to the target."""
        models = self.source.model, self.target.model
        return fit(pairs, kind, models=models, seed=seed, progress=False, **(settings or {}))

    def fvu(self, mapper: Mapper) -> Estimate:
        """Fraction of the target's variance that a mapper leaves unexplained, over the tokens of n test texts."""
        return unexplained(mapper, self._held_out)

    @cached_property
    def _held_out(self) -> PairedActivations:
        return self.pairs(self.draw(self.task.texts("test"), "test texts"))


def unexplained(mapper: Mapper, pairs: PairedActivations, sites: tuple[str, str] | None = None) -> Estimate:
    """Fraction of the target's variance that a mapper leaves unexplained, over the tokens of paired texts."""
    _, x, y = pairs.rows(sites)
    fvu = fit_by_class(y[:].float(), mapper(x[:].float()), [""] * len(y), pairs.text_index)[""].fvu
    assert fvu is not None
    return fvu


class MappedModels(TwoModels):
    """A task, a source and a target, and a mapper between them.

    Args:
        common: see `Setup`.
        mapper: kind of mapper.
        settings: of the mapper.
        candidates: settings of which those are taken that leave least of the variance of validation texts unexplained.
        models: see `TwoModels`.
    """

    def __init__(
        self,
        *common: Any,
        mapper: str = "autoencoder",
        settings: Mapping[str, Any] | None = None,
        candidates: Sequence[Mapping[str, Any]] = (),
        **models: Any,
    ) -> None:
        super().__init__(*common, **models)
        self.kind, self._settings, self._candidates = mapper, dict(settings or {}), candidates

    @cached_property
    def _best(self) -> tuple[Mapping[str, Any], Mapper]:
        """The candidate that leaves least of the variance of validation texts unexplained, and its mapper."""
        pairs, texts = self.pairs(), self.pairs(self.draw(self.task.texts("validation"), "validation texts"))
        fitted = [(settings, self.fit(pairs, self.kind, self.seed, settings)) for settings in self._candidates]
        return min(fitted, key=lambda one: unexplained(one[1], texts).value)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the mapper, chosen on validation texts if there are candidates."""
        return dict(self._best[0]) if self._candidates else self._settings

    @property
    def described(self) -> str:
        """The kind of the mapper and its settings, in one line."""
        return ", ".join([self.kind, *(f"{name} {value}" for name, value in self.settings.items())])

    def fit_texts(self, texts: Sequence[str] | None = None) -> Mapper:
        """Fit the mapper on texts; on the task's training texts unless given."""
        return self.fit(self.pairs(texts), self.kind, self.seed, self.settings)

    @cached_property
    def mapper(self) -> Mapper:
        """The mapper, fitted on the task's training texts."""
        return self._best[1] if self._candidates else self.fit_texts()

    @cached_property
    def moved(self) -> SteeringVector:
        """The source's vector, moved to the target."""
        return self.mapper.transfer(self.source.vector)


def condition_row(judged: Condition, **first: Any) -> Row:
    """The figures of a condition as a row, after the columns that say what it is."""
    return {
        **first,
        "strength": f"{judged.strength:.3g}" if judged.strength else "-",
        **shares(judged),
        "clean KL": judged.cost,
    }


def shares(judged: Condition, prefix: str = "") -> dict[str, Estimate]:
    """The shares of a condition by column."""
    return {f"{prefix}success": judged.success, f"{prefix}intact": judged.intact}


def by_strength(target: OneModel, vectors: Mapping[str, SteeringVector], strengths: Sequence[float]) -> list[Row]:
    """A row for each strength: vectors, and random ones of the last one's length."""
    rows: list[Row] = []
    for x in strengths:
        steered = [target.steer(vector, x) for vector in vectors.values()]
        judged = target.test.judge_each([(one,) for one in steered], [x] * len(steered), progress=False)
        judged.append(target.test.random(steered[-1], target.seed, x, progress=False))
        row: dict[str, Any] = {"strength": f"{x:g}"}
        for name, c in zip((*vectors, "random"), judged, strict=True):
            row |= {**shares(c, f"{name}, "), f"{name}, clean KL": c.cost}
        rows.append(row)
    return rows
