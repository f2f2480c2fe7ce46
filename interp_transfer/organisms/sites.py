"""Making an organism from nothing to its finished card: train, choose its steering site, measure."""

from pathlib import Path
from typing import Any

from interp_transfer.evaluation.task import Task
from interp_transfer.evaluation.tasks import load_task
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.load import load_model
from interp_transfer.organisms.build import build
from interp_transfer.organisms.measure import measure, update_card
from interp_transfer.organisms.tasks.refusal import DIRECTIONS
from interp_transfer.organisms.tasks.registry import TASKS, card_key
from interp_transfer.search.strengths import FRACTIONS
from interp_transfer.search.sweep import sweep
from interp_transfer.search.sweep_result import SweepPoint
from interp_transfer.stats import share_to_dict

CARD_PROMPTS = 60
CARD_POSITIONS = ("last", "response", "all")
GOAL = {"success": 0.8, "intact": 0.7}
"""What a native vector should reach; where it does not at the task's own positions, the card says what it does at others."""


def build_organism(
    name: str, out: Path, *, base: Path | None = None, device: str = "cpu", dtype: str = "float32"
) -> dict[str, Any]:
    """Train an organism, then choose its sites on validation prompts and measure it on test prompts.

    Returns:
        Its card, with the path of the folder.
    """
    return finish_card(build(name, out, base=base, device=device, dtype=dtype))


def finish_card(folder: Path) -> dict[str, Any]:
    """Choose sites and measure behaviour for a trained organism's folder; writes them into its card."""
    card = update_card(folder)
    model = load_model(folder)
    sites = {card_key(task): choose_site(model, task) for name in card["tasks"] for task in _variants(name)}
    card = update_card(folder, sites={name: s["site"] for name, s in sites.items()}, site_sweep=sites)
    card = update_card(folder, measured=measure(model, card["tasks"]))
    return {**card, "path": str(folder)}


def choose_site(model: HookedModel, task: Task) -> dict[str, Any]:
    """The best site for a task, with what every site was worth on validation prompts at the best strength within the budget.

    Short of ``GOAL``, other positions are tried too, and the best of each is told under "tried".
    """
    found = _sweep(model, task, task.positions)
    site = best_site(found)
    about: dict[str, Any] = {"site": site, "strength": found[site].strength, "positions": task.positions}
    about |= {"fractions": list(FRACTIONS)}
    about |= {what: {where: share_to_dict(getattr(c, what)) for where, c in found.items()} for what in GOAL}
    if any(getattr(found[site], what).value < goal for what, goal in GOAL.items()):
        others = [places for places in CARD_POSITIONS if places != task.positions]
        about["tried"] = {places: _told(_sweep(model, task, places)) for places in others}
    return about


def _told(found: dict[str, SweepPoint]) -> dict[str, Any]:
    """The best of some sites."""
    site = best_site(found)
    return {"site": site, "strength": found[site].strength} | {what: share_to_dict(getattr(found[site], what)) for what in GOAL}


def _sweep(model: HookedModel, task: Task, positions: str) -> dict[str, SweepPoint]:
    """What each site is worth at the best strength within the task's budget."""
    return sweep(model, task, positions=[positions], n=CARD_PROMPTS).best_at_sites(task.budget)


def best_site(found: dict[str, SweepPoint]) -> str:
    """The site with most intact answers; the deeper one of equals."""
    return max(found, key=lambda site: (found[site].intact.value, list(found).index(site)))


def _variants(name: str) -> list[Task]:
    """The task in each of its directions, for which the best sites need not be the same; none for what no vector steers."""
    if name not in TASKS:
        return []
    return [
        load_task(name, "organisms", **options)
        for options in ([{"direction": d} for d in DIRECTIONS] if name == "refusal" else [{}])
    ]
