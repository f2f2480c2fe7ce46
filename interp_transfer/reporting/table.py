"""Results as tables for the terminal, to be printed on ``cli.output.console``, which makes their strings visible."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from interp_transfer.escape import visible
from interp_transfer.evaluation.compare import Result
from interp_transfer.plots.style import percent, styles
from interp_transfer.reporting.formats import with_interval
from interp_transfer.search.sweep_result import Sweep
from interp_transfer.stats import share_to_dict

MEASURED = ("success", "intact", "clean KL")


def result_table(result: Result) -> Table:
    """Condition, strength, success, intact and clean KL; shares with their 95% intervals."""
    title = f"{result.task} on {result.target['name']}, {len(result.prompts)} held-out prompts"
    table = _table(title, ["condition"], ["strength", *MEASURED])
    table.columns[0].no_wrap = True
    look = styles(result.conditions)
    for name, condition in result.conditions.items():
        judged = condition.to_dict()
        strength = f"{condition.strength:.3g}" if condition.strength else "-"
        table.add_row(Text(visible(name.replace("_", " ")), style=look[name].colour), strength, *_measured(judged))
    table.caption = "success: the unwanted behaviour is gone; intact: and the answer is valid; clean KL: nats per token"
    return table


def features_table(features: Mapping[str, Any]) -> Table:
    """Each direction and model with the conditions that were tried on it.

    Args:
        features: as ``MovedFeatures.to_dict`` returns them.
    """
    names = {side: features[side]["name"] for side in ("source", "target")}
    title = f"Features of {names['source']}, moved to {names['target']}, {features['n']} prompts"
    table = _table(title, ["direction", "model", "condition"], ["scale", *MEASURED])
    for direction, conditions in features["directions"].items():
        for side, model in names.items():
            for name, judged in conditions[side].items():
                scale = f"{judged['strength']:.3g}" if judged["strength"] else "-"
                table.add_row(direction, model, name, scale, *_measured(judged))
            table.add_section()
    return table


def sweep_table(sweep: Sweep) -> Table:
    """The best setting of each site."""
    n, split = sweep.details["n"], sweep.details["split"]
    title = f"{sweep.task} on {sweep.model.name}: the best of each site, {n} {split} prompts"
    table = _table(title, ["site", "positions"], ["strength", *MEASURED])
    for site, t in sweep.best_at_sites(sweep.budget).items():
        success, intact = (with_interval(share_to_dict(share)) for share in (t.success, t.intact))
        if not t.complete:
            success, intact = f"{percent(t.success.value)}, stopped early", percent(t.intact.value)
        cost = "-" if t.clean_kl is None else f"{t.clean_kl:.4f}"
        table.add_row(site, t.positions, f"{t.strength:.3g}", success, intact, cost)
    return table


def switch_table(switch: Mapping[str, Any]) -> Table:
    """Every way to switch, with its costs.

    Args:
        switch: as ``Switch.to_dict`` returns it.
    """
    ways: Mapping[str, Mapping[str, Any]] = switch["ways"]
    first = next(iter(ways.values()))
    title = f"{switch['host']['name']} as {switch['donor']['name']}, {first['success']['n']} held-out prompts"
    table = _table(title, ["way"], [*MEASURED, *first["skills"], "parameters"])
    for name, way in ways.items():
        kept = way["parameters"]
        size = "second model" if kept is None else f"{kept / switch['host']['parameters']:.2%}"
        able = [percent(way["skills"][skill]["rate"]) for skill in first["skills"]]
        table.add_row(name.replace("_", " "), *_measured(way), *able, size)
    table.caption = "parameters: numbers to be kept, as a share of the model's; clean KL: nats per token"
    return table


def _table(title: str, text: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title)
    for name in text:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _measured(judged: Mapping[str, Any]) -> list[str]:
    return [with_interval(judged["success"]), with_interval(judged["intact"]), f"{judged['clean_kl']:.3f}"]
