"""How hard to steer, and where.

A vector's strength decides both what it does and what it costs, and a native vector, a moved one and a random one need not
want the same. So each gets its own: the strength that leaves most answers intact on validation prompts, among those whose
cost on clean prompts stays within one budget for all; what achieves nothing there gets the largest of those, so that it is not
its gentleness that fails. The sites on the organisms' cards are chosen by the same prompts.
"""

from collections.abc import Callable, Sequence

from tqdm.auto import tqdm

from interp_transfer.activations.capture import SECONDS_BEFORE_PROGRESS
from interp_transfer.activations.positions import Positions
from interp_transfer.data.tasks import Task
from interp_transfer.evaluation.exam import Condition, Exam, exam
from interp_transfer.interventions.apply import Intervention, add
from interp_transfer.models.sites import HookedModel, residual_sites
from interp_transfer.steering.extract import extract

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
    validation: Exam, make: Make, strengths: Sequence[float] = STRENGTHS, *, label: str = "", progress: bool = True
) -> list[Condition]:
    """Success, intact and clean KL for each strength."""
    bar = tqdm(strengths, f"strengths {label}".strip(), delay=SECONDS_BEFORE_PROGRESS, disable=not progress, leave=False)
    return [validation.judge([(i,) for i in make(strength)], strength, progress=False) for strength in bar]


def choose(swept: Sequence[Condition], budget: float = BUDGET) -> Condition:
    """The fair strength; ``RULE`` in words."""
    within = [c for c in swept if c.clean_kl <= budget]
    if not within:
        return min(swept, key=lambda c: c.strength)
    if not any(c.success.rate for c in within):
        return max(within, key=lambda c: c.strength)
    return max(within, key=lambda c: (c.intact.rate, c.success.rate, -c.strength))


def sweep_sites(
    model: HookedModel,
    task: Task,
    *,
    strengths: Sequence[float] = (1.0,),
    sites: Sequence[str] | None = None,
    positions: Positions | None = None,
    n: int = 60,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Condition]:
    """What the task's own vector does at each of some sites, on validation prompts.

    Args:
        model: the model.
        task: the task.
        strengths: of the vector; of several, the one that does best at the site is told.
        sites: where; the input of every block unless given.
        positions: where it is added; the task's unless given.
        n: prompts, at most.
        seed: of the draw of prompts.
        progress: show a bar when it takes longer than two seconds.
    """
    validation = exam(model, task, "validation", n=n, seed=seed)
    where = task.positions if positions is None else positions
    found = {}
    chosen = residual_sites(model) if sites is None else sites
    for site in tqdm(chosen, "sites", delay=SECONDS_BEFORE_PROGRESS, disable=not progress):
        vector = extract(model, task.contrast("train"), site)
        judged = [validation.judge([(add(vector, x, where),)], x, progress=False) for x in strengths]
        found[site] = max(judged, key=lambda c: (c.intact.rate, c.success.rate, -c.strength))
    return found


def best_site(found: dict[str, Condition]) -> str:
    """The site with most intact answers; the deeper one of equals."""
    return max(found, key=lambda site: (found[site].intact.rate, list(found).index(site)))
