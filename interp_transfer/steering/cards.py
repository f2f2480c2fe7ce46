"""Making an organism from nothing to its finished card: train, choose its steering site, measure."""

from pathlib import Path
from typing import Any

from interp_transfer.data.tasks import load_task
from interp_transfer.evaluation.cards import measure, update_card
from interp_transfer.models.load import load_model
from interp_transfer.models.organisms import build
from interp_transfer.models.sites import HookedModel
from interp_transfer.steering.search import best_site, sweep_sites


def build_organism(name: str, out: Path, *, base: Path | None = None, device: str = "cpu") -> dict[str, Any]:
    """Train an organism, then choose its sites on validation prompts and measure it on test prompts.

    Returns:
        Its card, with the path of the folder.
    """
    return finish_card(build(name, out, base=base, device=device))


def finish_card(folder: Path) -> dict[str, Any]:
    """Choose sites and measure behaviour for a trained organism's folder; writes them into its card."""
    card = update_card(folder)
    model = load_model(folder)
    sites = {name: choose_site(model, name) for name in card["tasks"]}
    card = update_card(folder, sites={name: s["site"] for name, s in sites.items()}, site_sweep=sites)
    card = update_card(folder, measured=measure(model, card["tasks"]))
    return {**card, "path": str(folder)}


def choose_site(model: HookedModel, task_name: str) -> dict[str, Any]:
    """The best site for a task, with what every site was worth on validation prompts."""
    found = sweep_sites(model, load_task(task_name))
    return {"site": best_site(found), "intact": {site: c.intact.to_dict() for site, c in found.items()}}
