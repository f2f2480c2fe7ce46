"""How hard to steer, under one budget for all that is compared.

A vector's strength decides both what it does and what it costs, and a native vector, a moved one and a random one need not
want the same. So each gets its own: the strength that leaves most answers intact on validation prompts, among those whose
cost on clean prompts stays within one budget for all; what achieves nothing there gets the largest of those, so that it is not
its gentleness that fails.
"""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions, check_positions, describe
from interp_transfer.evaluation.evaluator import Condition, Evaluator
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.vectors.vector import SteeringVector

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
BUDGET = 0.01
"""Clean KL that a strength may cost, nats per token, unless the task has a `budget` of its own."""

RULE = (
    "most intact answers on validation prompts among the strengths within the clean-KL budget; then most success, then the "
    "smaller strength; the largest within the budget if none of them has any success; the smallest of all if none is within it"
)


def check_grid(positions: Sequence[Positions], strengths: Sequence[float | int]) -> tuple[list[str], list[float]]:
    """Rules of positions in words, and strengths, that a search is to try.

    Raises:
        ValueError: for none, one that is named twice, a rule that names tokens of certain prompts, or no number.
    """
    if isinstance(positions, str) or not len(positions) or not len(strengths):
        raise ValueError("give at least one rule of positions and one strength, as lists: positions=['last'], strengths=[1.0]")
    if bad := [x for x in strengths if not math.isfinite(x)]:
        raise ValueError(f"strength {bad[0]} is no number that a vector can be multiplied by")
    for rule in positions:
        if isinstance(check_positions(rule), Tensor):
            raise ValueError("a mask names tokens of certain prompts, and a search draws its own: give a rule of positions")
    words, numbers = [describe(rule) for rule in positions], list(map(float, strengths))
    if len(set(words)) < len(words) or len(set(numbers)) < len(numbers):
        raise ValueError(f"positions {words}, strengths {numbers}: name each once")
    return words, numbers


Make = Callable[[float], Sequence[Intervention]]
"""Strength -> interventions to pool (one, or several random draws)."""


def sweep_strengths(
    validation: Evaluator, make: Make, strengths: Sequence[float] = STRENGTHS, *, progress: bool = True
) -> list[Condition]:
    """Success, intact and clean KL for each strength."""
    return validation.judge_each([[(i,) for i in make(x)] for x in strengths], strengths, progress=progress)


def choose(swept: Sequence[Condition], budget: float = BUDGET) -> Condition:
    """The fair strength; ``RULE`` in words."""
    within = [c for c in swept if c.clean_kl <= budget]
    if not within:
        return min(swept, key=lambda c: c.strength)
    if not any(c.success.value for c in within):
        return max(within, key=lambda c: c.strength)
    return max(within, key=lambda c: (c.intact.value, c.success.value, -c.strength))


def typical_norm(model: HookedModel, texts: Sequence[str], site: str, positions: Positions = "all") -> float:
    """Mean length of the activations at a site: half of it is what ``vector.normalized(0.5 * norm)`` adds."""
    return float(capture(model, texts, site, positions)[site].double().norm(dim=1).mean())


def largest_within(
    validation: Evaluator,
    vector: SteeringVector,
    budget: float,
    positions: Positions = "all",
    *,
    highest: float = 16.0,
    near: float = 0.01,
) -> float:
    """The largest strength whose clean KL stays within a budget: calibration without a look at what the vector does.

    Found by halving the interval in which the budget is crossed; clean KL is taken to grow with the strength.

    Args:
        validation: its clean_kl measures the cost; see ``evaluation.evaluator.evaluator``.
        vector: what is added.
        budget: nats per token.
        positions: where.
        highest: the largest strength that is tried; returned if it is within the budget.
        near: how far below the true strength the answer may be, as a share of it.

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
