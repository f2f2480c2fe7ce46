"""A result as a table for the terminal."""

from rich.table import Table
from rich.text import Text

from interp_transfer.evaluation.compare import Result
from interp_transfer.plots.style import percent, styles
from interp_transfer.search.sweep import Sweep
from interp_transfer.stats import Estimate
from interp_transfer.studies.features import MovedFeatures
from interp_transfer.studies.switch import Switch


def result_table(result: Result) -> Table:
    """Condition, strength, success, intact and clean KL; shares with their 95% intervals."""
    table = Table(title=Text(f"{result.task} on {result.target['name']}, {len(result.prompts)} held-out prompts"))
    table.add_column("condition", no_wrap=True)
    for name in ("strength", "success", "intact", "clean KL"):
        table.add_column(name, justify="right")
    look = styles(result.conditions)
    for name, condition in result.conditions.items():
        table.add_row(
            Text(name.replace("_", " "), style=look[name].colour),
            f"{condition.strength:g}" if condition.strength else "-",
            _interval(condition.success),
            _interval(condition.intact),
            f"{condition.clean_kl:.3f}",
        )
    table.caption = Text("success: the unwanted behaviour is gone; intact: and the answer is valid; clean KL: nats per token")
    return table


def features_table(found: MovedFeatures) -> Table:
    """Each direction and model, with what was tried on it."""
    table = Table(title=Text(f"Features of {found.source.name}, moved to {found.target.name}, {found.details['n']} prompts"))
    for name in ("direction", "model", "condition"):
        table.add_column(name, overflow="fold")
    for name in ("scale", "success", "intact", "clean KL"):
        table.add_column(name, justify="right")
    for name, way in found.directions.items():
        for side, model in (("source", found.source), ("target", found.target)):
            for what, c in getattr(way, side).items():
                scale = f"{c.strength:g}" if c.strength else "-"
                shares = (_interval(c.success), _interval(c.intact))
                table.add_row(name, Text(model.name), what, scale, *shares, f"{c.clean_kl:.3f}")
            table.add_section()
    return table


def sweep_table(sweep: Sweep) -> Table:
    """The best setting of each site."""
    n, split = sweep.details["n"], sweep.details["split"]
    table = Table(title=Text(f"{sweep.task} on {sweep.model.name}: the best of each site, {n} {split} prompts"))
    for name in ("site", "positions"):
        table.add_column(name, overflow="fold")
    for name in ("strength", "success", "intact", "clean KL"):
        table.add_column(name, justify="right")
    for site, t in sweep.best_at_sites(sweep.budget).items():
        rates = (
            [_interval(t.success), _interval(t.intact)]
            if t.whole
            else [f"{percent(t.success.value)}, given up", percent(t.intact.value)]
        )
        cost = "-" if t.clean_kl is None else f"{t.clean_kl:.4f}"
        table.add_row(Text(site), Text(t.positions), f"{t.strength:g}", *rates, cost)
    return table


def switch_table(switch: Switch) -> Table:
    """Every way to switch, with what it costs."""
    skills = list(next(iter(switch.ways.values())).skills)
    table = Table(title=Text(f"{switch.host.name} as {switch.donor.name}, {len(switch.prompts)} held-out prompts"))
    table.add_column("way", overflow="fold")
    for name in ("success", "intact", "clean KL", *skills, "parameters"):
        table.add_column(name, justify="right")
    for name, way in switch.ways.items():
        size = "second model" if way.parameters is None else f"{way.parameters / switch.host_parameters:.2%}"
        judged = way.judged
        able = (percent(way.skills[skill].value) for skill in skills)
        row = (_interval(judged.success), _interval(judged.intact), f"{judged.clean_kl:.3f}", *able, size)
        table.add_row(Text(name.replace("_", " ")), *row)
    table.caption = Text("parameters: numbers to be kept, as a share of the model's; clean KL: nats per token")
    return table


def _interval(rate: Estimate) -> str:
    return f"{percent(rate.value)} ({percent(rate.low)} to {percent(rate.high)})"
