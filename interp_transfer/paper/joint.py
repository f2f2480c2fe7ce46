"""Several vectors at once, each at its own site: what one does not reach alone.

A behaviour may be carried by several layers together, and then one vector has to be so strong that it costs more than the
budget before it has done its work. Greedy forward selection looks for a set that shares the work: the best setting alone, then
the one that adds most to it, and so on, every set within one clean-KL budget. It does not try all sets, so there may be better
ones; and it is chosen on the evaluator's prompts, so judge it on others.

The paper steers at one layer. For its corrupted capabilities, where that reaches little (11% native, 8% moved), its authors
answer their reviewers that steering, not moving, is the bottleneck, and suggest several layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from interp_transfer.activations.positions import Positions
from interp_transfer.evaluation.evaluator import Condition, Evaluator, condition
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.kinds import RIDGES, find_kind
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.models.identity import identity
from interp_transfer.models.sites import check_site
from interp_transfer.progress import progress_bar
from interp_transfer.search.strengths import FRACTIONS, Steer, check_grid, largest_within
from interp_transfer.vectors.vector import SteeringVector, check_same

POSITIONS: tuple[Positions, ...] = ("last", "all")


@dataclass(frozen=True)
class Setting:
    """A vector at a strength and positions.

    Attributes:
        vector: its name among the vectors that were passed.
        positions: at which tokens it is added, in words.
        strength: of the vector.
        intervention: adds it.
        judged: the outcome of all chosen settings up to this one together; None for a setting that was not chosen.
    """

    vector: str
    positions: str
    strength: float
    intervention: Intervention
    judged: Condition | None = None


@dataclass(frozen=True)
class Joint:
    """What was chosen, step by step.

    Attributes:
        steps: the chosen settings, each with the outcome of all up to it; none where no setting is within the budget.
        budget: clean KL that all of them together may cost, nats per token.
        tried: number of sets that were measured.
    """

    steps: tuple[Setting, ...]
    budget: float
    tried: int

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """One for each step, to be applied together."""
        return tuple(step.intervention for step in self.steps)


def fit_each(pairs: PairedActivations, kind: str = "affine", **options: Any) -> dict[tuple[str, str], Mapper]:
    """Fit a mapper for each of several site pairs, all with the same ridge penalty.

    Maps that are used together should shrink equally; with a penalty of its own, the map with the smallest error would shrink
    least and dominate. Unless ``ridge`` is given, it is the one of ``kinds.RIDGES`` with the smallest sum of held-out FVUs of
    affine maps. Kinds without a ridge are fitted independently.

    Args:
        pairs: from ``collect`` with several sites.
        kind: as for ``fit``.
        options: as for ``fit``.

    Raises:
        ValueError: as ``fit``.
    """
    known, chosen = find_kind(kind), pairs.site_pairs
    if "ridge" not in options and "ridge" in [f.name for f in fields(known.settings)] and not known.needs_models:
        shared = {name: options[name] for name in ("seed", "held_out", "massive") if name in options}
        errors = {r: sum(fit(pairs, "affine", sites=pair, ridge=r, **shared).card.fvu for pair in chosen) for r in RIDGES}
        options["ridge"] = min(errors, key=lambda r: errors[r])
    return {pair: fit(pairs, kind, sites=pair, **options) for pair in chosen}


def best_joint(
    test: Evaluator,
    vectors: Mapping[str, SteeringVector],
    *,
    budget: float | int,
    strengths: Sequence[float | int] | None = None,
    positions: Sequence[Positions] = POSITIONS,
    most: int = 3,
    progress: bool = True,
) -> Joint:
    """Choose vectors, positions and strengths that work together, one after the other.

    The first is the setting within the budget with most intact answers; then most success, then least clean KL. Each further
    one is the setting of a vector that is not yet in the set with which the set has most intact answers, within the budget
    still. It ends with ``most`` vectors, or when no setting adds at least one prompt.

    Args:
        test: prompts, judge and measure of clean KL; of validation prompts, because it is chosen by what they show.
        vectors: by any names, such as their sites; several may be of one site. Moved vectors do, too.
        budget: clean KL that all of them together may cost, nats per token.
        strengths: of each vector; 1.0 is the contrast's own difference. Unless given, `strengths.FRACTIONS` of the largest one
            with which the vector alone is within the budget.
        positions: rules that are tried for each.
        most: how many vectors at most.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: before any work, for no vectors, one of another model, an unknown site or rule of positions, a budget or
            ``most`` that is not above zero, strengths that are no numbers.
    """
    todo = _settings(test, vectors, budget, strengths, positions, most)
    steps: list[Setting] = []
    chosen: list[Intervention] = []
    tried, before = 0, 0.0
    with progress_bar("vectors", progress, total=most) as bar:
        while todo and len(steps) < most:
            judged = _judged(test, [(*chosen, s.intervention) for s in todo], budget, progress)
            tried += len(todo)
            within = [(s, c) for s, c in zip(todo, judged, strict=True) if c is not None]
            if not within:
                break
            setting, best = max(within, key=lambda one: _merit(one[1]))
            if steps and round((best.intact.value - before) * len(test.prompts)) < 1:
                break
            steps.append(replace(setting, judged=best))
            chosen.append(setting.intervention)
            before = best.intact.value
            todo = [s for s in todo if s.vector != setting.vector]
            bar.update()
    return Joint(tuple(steps), float(budget), tried)


def _judged(test: Evaluator, sets: Sequence[tuple[Intervention, ...]], budget: float, progress: bool) -> list[Condition | None]:
    """The outcome of each set; None for one beyond the budget, without generating."""
    costs = test.costs(sets, progress)
    within = [k for k, kl in enumerate(costs) if float(kl.mean()) <= budget]
    judged: list[Condition | None] = [None] * len(sets)
    for k, texts in zip(within, test.completions([sets[k] for k in within], progress), strict=True):
        judged[k] = condition(test.task, test.prompts, texts, costs[k], 0.0)
    return judged


def _merit(judged: Condition) -> tuple[float, float, float]:
    return judged.intact.value, judged.success.value, -judged.clean_kl


def _settings(
    test: Evaluator,
    vectors: Mapping[str, SteeringVector],
    budget: float | int,
    strengths: Sequence[float | int] | None,
    positions: Sequence[Positions],
    most: int,
) -> list[Setting]:
    """All settings, checked; those that can share batches are next to each other."""
    if not vectors:
        raise ValueError("there are no vectors to choose from: give at least one, {site: vector}")
    if not budget > 0 or most < 1:
        raise ValueError(f"budget={budget}, most={most}: give numbers above zero")
    words, numbers = check_grid(positions, FRACTIONS if strengths is None else strengths)
    for name, vector in vectors.items():
        check_same(vector.model, identity(test.model), f"the vector {name!r} and the evaluator are")
        check_site(test.model, vector.site)
    places = [
        (name, vector, word, rule) for name, vector in vectors.items() for word, rule in zip(words, positions, strict=True)
    ]
    units = [1.0] * len(places) if strengths is not None else _largest(test, [(p[1], p[3]) for p in places], budget)
    return [
        Setting(name, word, x * unit, add(vector, x * unit, rule))
        for (name, vector, word, rule), unit in zip(places, units, strict=True)
        for x in numbers
    ]


def _largest(test: Evaluator, places: Sequence[tuple[SteeringVector, Positions]], budget: float | int) -> list[float]:
    """The largest strength within the budget of each vector alone."""

    def steer(vector: SteeringVector, rule: Positions) -> Steer:
        return lambda strength: (add(vector, strength, rule),)

    steers = {str(k): steer(*place) for k, place in enumerate(places)}
    return [limit.strength for limit in largest_within(test, steers, budget=float(budget)).values()]
