"""The strength of a vector, found by the same search for every condition of a comparison.

A vector's strength decides both what it does and what it costs, and vectors differ in length, so a grid of strengths would
compare them at different costs: a short vector would be capped by the grid's end. Here the cost decides. The largest strength
whose clean KL on validation prompts is within a budget is found by bracketing and interpolation; the vector is judged at fixed
fractions of it, and of these the strength is chosen that leaves most answers intact.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions, check_positions, describe
from interp_transfer.evaluation.baselines import RANDOM_DIRECTIONS
from interp_transfer.evaluation.evaluator import Condition, Evaluator
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.interventions.predictions import Unsteered
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.vectors.controls import random_vectors
from interp_transfer.vectors.vector import SteeringVector

FRACTIONS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Of the largest strength within the budget. Clean KL is about quadratic in strength: 4 to 100% of the budget."""
NEAR = 0.05
"""The largest strength costs at least 1 - NEAR of the budget."""
SAFE = 0.999
"""Share of the budget that the search aims at most at, so that the same strength in other batches is within the budget too."""
HIGHEST = 2.0**20
"""Strength at which the search ends: a vector that costs less than the budget at this strength is saturated."""
STEP = 16.0
"""Largest factor between two strengths of the search."""
ROUNDS = 40
UNKNOWN = torch.tensor([math.nan])
"""Clean KL that was not measured."""

EQUAL_COST = (1.0,)
"""The fractions with which all vectors cost alike, and no answer has a say."""
LARGEST = f"the largest strength within the clean-KL budget on validation prompts, found to {NEAR:.0%} of the budget"
RULE = (
    f"{LARGEST}; of {', '.join(f'{x:g}' for x in FRACTIONS)} times that, the one with most intact answers on validation "
    "prompts; then most success, then the smaller strength; the largest if none has any success"
)

Steer = Callable[[float], Sequence[Intervention]]
"""Strength -> interventions that are applied together."""


@dataclass(frozen=True)
class StrengthSearch:
    """Outcomes over strengths, and the strength that was chosen.

    Attributes:
        curve: one condition for each strength, on validation prompts, by ascending strength. The last is the largest within
            the budget.
        chosen: the condition that ``RULE`` selects.
        saturated: whether clean KL stays below the budget at any strength.
    """

    curve: tuple[Condition, ...]
    chosen: Condition
    saturated: bool = False

    @property
    def strength(self) -> float:
        """The chosen strength."""
        return self.chosen.strength


@dataclass(frozen=True)
class Limit:
    """The largest strength within a budget.

    Attributes:
        strength: the strength.
        clean_kl: its mean clean KL, in nats per token.
        saturated: whether clean KL stays below the budget at any strength; ``strength`` is then ``HIGHEST``.
        kl: of each clean prompt; None if the strength is 0 because no other is within the budget.
    """

    strength: float
    clean_kl: float
    saturated: bool
    kl: Float[Tensor, " prompt"] | None = field(default=None, repr=False)


def search_strength(
    validation: Evaluator, steer: SteeringVector | Steer, *, budget: float | None = None, progress: bool = True
) -> StrengthSearch:
    """Find the strength of one vector; see `search_strengths`."""
    return search_strengths(validation, {"": steer}, budget=budget, progress=progress)[""]


def search_strengths(
    validation: Evaluator,
    steers: Mapping[str, SteeringVector | Steer],
    *,
    budget: float | None = None,
    progress: bool = True,
    costs: bool = True,
    fractions: Sequence[float] = FRACTIONS,
) -> dict[str, StrengthSearch]:
    """Find the strength of each of several vectors, all by the same search; vectors at the same site share batches.

    Args:
        validation: prompts, judge and clean KL.
        steers: by name, a vector, which is added at the task's positions; or a function that makes the interventions of a
            strength.
        budget: clean KL that a strength may cost, in nats per token; the task's unless given.
        progress: show bars when it takes longer than two seconds.
        costs: measure clean KL at every strength of the curve. The choice does not need it; without, it is NaN at all strengths
            but the largest.
        fractions: of the largest strength, ascending up to 1: those that are judged.

    Raises:
        ValueError: for a budget that is not above zero.
    """
    makes = {name: _steer(validation, steer) for name, steer in steers.items()}
    limits = largest_within(validation, makes, budget=budget, progress=progress)
    tried = [(name, limits[name].strength * x) for name in makes for x in fractions]
    settings = [makes[name](x) for name, x in tried]
    ends = enumerate(limits[name].kl if x == limits[name].strength else None for name, x in tried)
    known = {k: UNKNOWN if kl is None else kl for k, kl in ends if not (kl is None and costs)}
    judged = iter(validation.judge_each(settings, [x for _, x in tried], progress=progress, known=known))
    searches = {}
    for name in makes:
        curve = tuple(next(judged) for _ in fractions)
        searches[name] = StrengthSearch(curve, choose(curve), limits[name].saturated)
    return searches


def judge_searched(
    validation: Evaluator,
    test: Evaluator,
    steers: Mapping[str, SteeringVector | Steer],
    *,
    budget: float | None = None,
    progress: bool = True,
) -> dict[str, Condition]:
    """Judge each vector on test prompts, at the strength that the search on validation prompts chooses.

    Raises:
        ValueError: as `search_strengths`.
    """
    searches = search_strengths(validation, steers, budget=budget, progress=progress, costs=False)
    settings = [_steer(test, steer)(searches[name].strength) for name, steer in steers.items()]
    judged = test.judge_each(settings, [search.strength for search in searches.values()], progress=progress)
    return dict(zip(steers, judged, strict=True))


def judge_random(
    validation: Evaluator,
    test: Evaluator,
    like: SteeringVector,
    *,
    n: int = RANDOM_DIRECTIONS,
    seed: int = 0,
    budget: float | None = None,
    progress: bool = True,
) -> Condition:
    """Judge random directions at the site of a vector, each at the strength that its own search chooses, and pool them.

    Args:
        validation: prompts that strengths are chosen on.
        test: prompts that the directions are judged on; all but the first direction on few of them.
        like: a vector at the site.
        n: number of directions.
        seed: draws the directions.
        budget: clean KL that a strength may cost, in nats per token; the task's unless given.
        progress: show bars when it takes longer than two seconds.
    """
    note = f"mean over {n} isotropic random directions, each at its own strength"
    return judge_pooled(validation, test, random_vectors(like, n, seed), note, budget=budget, progress=progress)


def judge_pooled(
    validation: Evaluator,
    test: Evaluator,
    draws: Sequence[SteeringVector | Steer],
    note: str = "",
    *,
    budget: float | None = None,
    progress: bool = True,
) -> Condition:
    """Judge random draws, each at the strength that its own search chooses, and pool them; arguments as for `judge_random`."""
    named = {str(k): draw for k, draw in enumerate(draws)}
    searches = search_strengths(validation, named, budget=budget, progress=progress, costs=False)
    strengths = [search.strength for search in searches.values()]
    settings = [_steer(test, draw)(x) for draw, x in zip(draws, strengths, strict=True)]
    return test.judge_draws(settings, strengths, note, progress)


def choose(curve: Sequence[Condition]) -> Condition:
    """Choose among conditions within the budget as ``RULE`` describes."""
    if not any(c.success.value for c in curve):
        return max(curve, key=lambda c: c.strength)
    return max(curve, key=lambda c: (c.intact.value, c.success.value, -c.strength))


def largest_within(
    validation: Evaluator,
    steers: Mapping[str, SteeringVector | Steer],
    *,
    budget: float | None = None,
    progress: bool = False,
) -> dict[str, Limit]:
    """Find the largest strength of each vector whose clean KL is within a budget, whatever it does to the answers.

    Clean KL is assumed to grow with the strength. It is about quadratic for small ones, so each guess is extrapolated or
    interpolated by powers; a bracket that shrinks slowly is halved. All vectors are measured together in every round.

    Args:
        validation: its clean prompts measure the cost.
        steers: as for `search_strengths`.
        budget: nats per token; the task's unless given.
        progress: show a bar for each round that takes longer than two seconds.

    Raises:
        ValueError: for a budget that is not above zero.
    """
    allowed = float(validation.task.budget if budget is None else budget)
    if not allowed > 0:
        raise ValueError(f"budget={allowed:g}: give a number of nats per token above zero")
    makes = {name: _steer(validation, steer) for name, steer in steers.items()}
    brackets = {name: _Bracket(SAFE * allowed) for name in makes}
    validation = replace(validation, passes=validation.passes or Unsteered())
    for _ in range(ROUNDS):
        todo = [name for name, bracket in brackets.items() if not bracket.closed]
        if not todo:
            break
        guesses = [brackets[name].guess() for name in todo]
        settings = [makes[name](x) for name, x in zip(todo, guesses, strict=True)]
        costs = validation.costs(settings, progress)
        for name, x, kl in zip(todo, guesses, costs, strict=True):
            brackets[name].add(x, kl)
    return {name: Limit(b.low, b.low_cost, b.saturated, b.low_kl) for name, b in brackets.items()}


class _Bracket:
    """The strengths between which one vector's clean KL crosses the budget."""

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self.low, self.low_cost = 0.0, 0.0
        self.low_kl: Tensor | None = None
        self._high, self._high_cost = math.inf, math.inf
        self._halve = False

    @property
    def saturated(self) -> bool:
        """Whether the highest strength is within the budget."""
        return self.low >= HIGHEST

    @property
    def closed(self) -> bool:
        """Whether the lower end is near enough to the budget, or to the upper end."""
        if self.low == 0:
            return self._high < 1 / HIGHEST  # not even the smallest strength is within the budget
        near = self.low_cost >= (1 - NEAR) * self._budget or self._high <= self.low * (1 + NEAR / 10)
        return near or self.saturated

    def guess(self) -> float:
        """The next strength to try."""
        aim = (1 - NEAR / 2) * self._budget
        if self._high == math.inf:
            if self.low == 0:
                return 1.0
            factor = math.sqrt(aim / self.low_cost) if self.low_cost > 0 else STEP
            return min(self.low * min(max(factor, 1 + NEAR), STEP), HIGHEST)
        if self.low_cost <= 0:
            factor = math.sqrt(aim / self._high_cost)
            return self._high * min(max(factor, 1 / STEP), 1 - NEAR) if self.low == 0 else math.sqrt(self.low * self._high)
        middle = 0.5
        if not self._halve and math.isfinite(self._high_cost):
            middle = math.log(aim / self.low_cost) / math.log(self._high_cost / self.low_cost)
        middle = min(max(middle, 0.1), 0.9)
        return self.low * (self._high / self.low) ** middle

    def add(self, strength: float, kl: Float[Tensor, " prompt"]) -> None:
        """Add a measurement; a mean that is no number counts as beyond the budget."""
        cost = float(kl.double().mean())
        before = math.log(self._high / self.low) if self.low and self._high < math.inf else math.inf
        if cost <= self._budget:
            self.low, self.low_cost, self.low_kl = strength, cost, kl
        else:
            self._high, self._high_cost = strength, cost if math.isfinite(cost) else math.inf
        after = math.log(self._high / self.low) if self.low and self._high < math.inf else math.inf
        self._halve = math.isfinite(after) and after > before / 2


def _steer(evaluator: Evaluator, steer: SteeringVector | Steer) -> Steer:
    if not isinstance(steer, SteeringVector):
        return steer
    return lambda strength: (add(steer, strength, evaluator.task.positions),)


def typical_norm(model: HookedModel, texts: Sequence[str], site: str, positions: Positions = "all") -> float:
    """Return the mean norm of the activations at a site, the unit of ``vector.normalized(0.5 * norm)``."""
    return float(capture(model, texts, site, positions)[site].double().norm(dim=1).mean())


def check_grid(positions: Sequence[Positions], strengths: Sequence[float | int]) -> tuple[list[str], list[float]]:
    """Return the position rules as text and the strengths as floats, checked.

    Raises:
        ValueError: for an empty list, a duplicate, a mask of certain prompts, or a strength that is not finite.
    """
    if isinstance(positions, str) or not len(positions) or not len(strengths):
        raise ValueError("give at least one rule of positions and one strength, as lists: positions=['last'], strengths=[1.0]")
    if bad := [x for x in strengths if not math.isfinite(x)]:
        raise ValueError(f"strength {bad[0]} is no number that a vector can be multiplied by")
    for rule in positions:
        if isinstance(check_positions(rule), Tensor):
            raise ValueError("a mask names tokens of certain prompts, and a search draws its own: give a rule of positions")
    names, numbers = [describe(rule) for rule in positions], list(map(float, strengths))
    if len(set(names)) < len(names) or len(set(numbers)) < len(numbers):
        raise ValueError(f"positions {names}, strengths {numbers}: name each once")
    return names, numbers
