"""The strength of a vector, chosen under one budget for all conditions of a comparison.

A vector's strength decides both what it does and what it costs, and the best strength of a native vector is not that of a
moved or a random one. So each gets its own: the strength that leaves most answers intact on validation prompts, among those
whose cost on clean prompts is within the budget. A vector without any success gets the largest strength within the budget, so
that it does not fail for being weak.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions, check_positions, describe
from interp_transfer.evaluation.evaluator import Condition, Evaluator
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.vectors.vector import SteeringVector

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)

RULE = (
    "most intact answers on validation prompts among the strengths within the clean-KL budget; then most success, then the "
    "smaller strength; the largest within the budget if none of them has any success; the smallest of all if none is within it"
)

Make = Callable[[float], Sequence[Intervention]]
"""Strength -> interventions whose outcomes are pooled: one, or several random draws."""


@dataclass(frozen=True)
class StrengthSearch:
    """Outcomes over strengths, and the strength that was chosen.

    Attributes:
        curve: one condition for each strength, on validation prompts.
        chosen: the condition that ``RULE`` selects.
    """

    curve: tuple[Condition, ...]
    chosen: Condition

    @property
    def strength(self) -> float:
        """The chosen strength."""
        return self.chosen.strength


def search_strength(
    validation: Evaluator,
    steer: SteeringVector | Make,
    *,
    budget: float | None = None,
    strengths: Sequence[float | int] = STRENGTHS,
    progress: bool = True,
) -> StrengthSearch:
    """Try strengths on validation prompts and choose one.

    Args:
        validation: prompts, judge and clean KL.
        steer: a vector, which is added at the task's positions; or a function that makes the interventions of a strength.
        budget: clean KL that the strength may cost, in nats per token; the task's unless given.
        strengths: the strengths to try.
        progress: show bars when it takes longer than two seconds.
    """
    allowed = validation.task.budget if budget is None else budget
    curve = strength_curve(validation, steer, strengths, progress=progress)
    return StrengthSearch(curve, choose(curve, allowed))


def strength_curve(
    evaluator: Evaluator,
    steer: SteeringVector | Make,
    strengths: Sequence[float | int] = STRENGTHS,
    *,
    progress: bool = True,
) -> tuple[Condition, ...]:
    """Measure success, intact and clean KL at each strength; arguments as for `search_strength`."""
    if isinstance(steer, SteeringVector):
        vector = steer
        draws = [[(add(vector, x, evaluator.task.positions),)] for x in strengths]
    else:
        draws = [[(intervention,) for intervention in steer(float(x))] for x in strengths]
    return tuple(evaluator.judge_each(draws, strengths, progress=progress))


def choose(curve: Sequence[Condition], budget: float) -> Condition:
    """Choose the condition that ``RULE`` describes."""
    within = [c for c in curve if c.clean_kl <= budget]
    if not within:
        return min(curve, key=lambda c: c.strength)
    if not any(c.success.value for c in within):
        return max(within, key=lambda c: c.strength)
    return max(within, key=lambda c: (c.intact.value, c.success.value, -c.strength))


def largest_within(
    validation: Evaluator,
    vector: SteeringVector,
    budget: float,
    positions: Positions = "all",
    *,
    highest: float = 16.0,
    near: float = 0.01,
) -> float:
    """Find the largest strength whose clean KL stays within a budget, whatever the vector does to the answers.

    Bisects the interval in which clean KL crosses the budget; clean KL is assumed to grow with the strength.

    Args:
        validation: its clean prompts measure the cost.
        vector: the vector that is added.
        budget: nats per token.
        positions: where it is added.
        highest: the largest strength that is tried; returned if it is within the budget.
        near: relative error that the result may have, downwards.

    Raises:
        ValueError: for a budget or a highest strength that is not above zero.
    """
    if not budget > 0 or not highest > 0:
        raise ValueError(f"budget={budget}, highest={highest}: give numbers above zero")

    def within(strength: float) -> bool:
        return float(validation.clean_kl(validation.model, [(add(vector, strength, positions),)])[0].mean()) <= budget

    if within(highest):
        return highest
    low, high = 0.0, highest
    while high - low > near * high and high > 1e-6 * highest:
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return low


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
