"""How hard to steer, under one budget for all that is compared.

A vector's strength decides both what it does and what it costs, and a native vector, a moved one and a random one need not
want the same. So each gets its own: the strength that leaves most answers intact on validation prompts, among those whose
cost on clean prompts stays within one budget for all; what achieves nothing there gets the largest of those, so that it is not
its gentleness that fails.
"""

from collections.abc import Callable, Sequence

from interp_transfer.evaluation.exam import Condition, Exam
from interp_transfer.interventions.apply import Intervention

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
BUDGET = 0.01
"""Clean KL that a strength may cost, nats per token, unless the task has a `budget` of its own."""

RULE = (
    "most intact answers on validation prompts among the strengths within the clean-KL budget; then most success, then the "
    "smaller strength; the largest within the budget if none of them has any success; the smallest of all if none is within it"
)

Make = Callable[[float], Sequence[Intervention]]
"""Strength -> interventions to pool (one, or several random draws)."""


def sweep_strengths(
    validation: Exam, make: Make, strengths: Sequence[float] = STRENGTHS, *, progress: bool = True
) -> list[Condition]:
    """Success, intact and clean KL for each strength."""
    return validation.judge_each([[(i,) for i in make(x)] for x in strengths], strengths, progress=progress)


def choose(swept: Sequence[Condition], budget: float = BUDGET) -> Condition:
    """The fair strength; ``RULE`` in words."""
    within = [c for c in swept if c.clean_kl <= budget]
    if not within:
        return min(swept, key=lambda c: c.strength)
    if not any(c.success.rate for c in within):
        return max(within, key=lambda c: c.strength)
    return max(within, key=lambda c: (c.intact.rate, c.success.rate, -c.strength))
