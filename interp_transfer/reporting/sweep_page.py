"""A sweep as one HTML page that opens offline: where to steer, how hard, at what cost, and every setting that was tried."""

from pathlib import Path

from interp_transfer.plots.style import untitled
from interp_transfer.reporting.render import render, write_page
from interp_transfer.search.sweep_result import RULES, Sweep

FILE = "sweep.html"


def write_sweep(sweep: Sweep, folder: Path) -> Path:
    """Write ``sweep.html`` into a folder, made if it is missing.

    Returns:
        The page's path. An older page is replaced at once.
    """
    rules = RULES if all(p.complete for p in sweep.points) else {"pareto": RULES["pareto"]}
    text = render(
        "sweep.html.j2",
        figures={"figure-map": untitled(sweep.plot(), 60), "figure-cost": untitled(sweep.plot_cost(), 20)},
        title=f"Where and how hard to steer: {sweep.task} on {sweep.model.name}",
        sweep=sweep,
        recommendations=[(name, sweep.recommendation(name), words) for name, words in rules.items()],
        chosen=sweep.recommended(),
    )
    return write_page(text, folder / FILE)
