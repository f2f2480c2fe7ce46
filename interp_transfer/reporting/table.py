"""A result as a table for the terminal."""

from rich.table import Table
from rich.text import Text

from interp_transfer.evaluation.compare import Result
from interp_transfer.evaluation.metrics import Rate
from interp_transfer.plots.style import percent, styles


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


def _interval(rate: Rate) -> str:
    return f"{percent(rate.rate)} ({percent(rate.low)} to {percent(rate.high)})"
