"""Success, intact and clean KL of conditions as horizontal bars, of one run or of two.

An intact answer is a success too, so the solid bar (intact) is never longer than the pale one (success). The gap between them
is behaviour that was removed by breaking the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from plotly.graph_objects import Bar, Figure
from plotly.subplots import make_subplots

from interp_transfer.plots.style import INK, Style, axis, label, layout, percent, styles

NEEDED = (
    "success", "success_low", "success_high", "intact", "intact_low", "intact_high", "clean_kl", "strength", "n",
)  # fmt: skip
WITHIN, BETWEEN = 0.42, 1.0
"""Distance between the two bars of a condition, and between conditions."""


@dataclass(frozen=True)
class _Row:
    """One condition of one run: heading in HTML, look, place on the axis, and shares as rate, low, high, n."""

    heading: str
    look: Style
    place: float | int
    success: tuple[float, float, float, int]
    intact: tuple[float, float, float, int]
    clean_kl: float
    strength: float


def condition_bars(frame: pd.DataFrame, title: str = "") -> Figure:
    """Success and intact of each condition with their 95% intervals, and its clean KL.

    Args:
        frame: a row for each condition, as `Result.to_frame` returns it; drawn from top to bottom.
        title: above the figure; none if empty.

    Raises:
        ValueError: when the frame is empty or lacks a column.
    """
    missing = [name for name in NEEDED if name not in frame.columns]
    if missing or frame.empty:
        what = f"lacks {', '.join(missing)}" if missing else "has no rows"
        raise ValueError(f"the frame {what}: give what Result.to_frame() returns")
    names = [str(name) for name in frame.index]
    look = styles(names)

    def share(row: Mapping[Any, Any], measure: str) -> tuple[float, float, float, int]:
        rate, low, high = (float(row[f"{measure}{end}"]) for end in ("", "_low", "_high"))
        return rate, low, high, int(row["n"])

    rows = [
        _Row(
            f"<b>{label(name)}</b>", look[name], place, share(row, "success"), share(row, "intact"),
            float(row["clean_kl"]), float(row["strength"]),
        )
        for place, (name, row) in enumerate(zip(names, frame.to_dict("records"), strict=True))
    ]  # fmt: skip
    figure = _bars(rows, overlay=False)
    figure.update_layout(barmode="group", bargap=0.28, bargroupgap=0.08, **layout(title, 110 + 48 * len(names)))
    figure.update_xaxes(tickvals=[0, 0.25, 0.5, 0.75, 1], row=1, col=1)
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=[label(name) for name in names])
    return figure


def run_bars(judged: Sequence[tuple[str, str, Mapping[str, Any]]], title: str = "") -> Figure:
    """The conditions of two runs, a pair of bars each: intact with its 95% interval, drawn over success, and clean KL.

    Args:
        judged: condition, run, and the condition as `result.json` stores it; drawn from top to bottom. Rows of one condition
            follow each other.
        title: above the figure; none if empty.

    Raises:
        ValueError: when there are no rows.
    """
    if not judged:
        raise ValueError("no rows to draw: give at least one condition of one run")
    look = styles([name for name, *_ in judged])
    rows, ticks = [], []
    place, before = 0.0, None
    for name, run, row in judged:
        if before is not None:
            place += WITHIN if name == before else BETWEEN
        success, intact = (
            tuple(row[measure][end] for end in ("rate", "low", "high", "n")) for measure in ("success", "intact")
        )
        heading = f"<b>{label(name)}, {label(run)}</b>"
        rows.append(_Row(heading, look[name], place, success, intact, float(row["clean_kl"]), float(row["strength"])))
        ticks.append(label(run) if name == before else f"{label(name)}&nbsp; {label(run)}")
        before = name
    figure = _bars(rows, overlay=True)
    figure.update_layout(barmode="overlay", **layout(title, 110 + round(46 * (place + 1))))
    figure.update_xaxes(tickvals=[0, 0.5, 1], row=1, col=1)
    figure.update_yaxes(tickvals=[row.place for row in rows], ticktext=ticks)
    return figure


def _bars(rows: Sequence[_Row], *, overlay: bool) -> Figure:
    """Two panels: shares of prompts, with intact beside success or over it, and clean KL."""
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, column_widths=[0.68, 0.32], horizontal_spacing=0.09,
        subplot_titles=["share of prompts", "clean KL"],
    )  # fmt: skip
    places = [row.place for row in rows]
    for measure, alpha in (("success", 0.3), ("intact", 1.0)):
        shares = [getattr(row, measure) for row in rows]
        whiskers = {
            "type": "data",
            "array": [high - rate for rate, _, high, _ in shares],
            "arrayminus": [rate - low for rate, low, _, _ in shares],
            "color": INK,
            "thickness": 1.6,
            "width": 4,
        }
        bar = Bar(
            name=measure,
            x=[rate for rate, *_ in shares],
            y=places,
            orientation="h",
            width=0.34 if overlay else None,
            marker=_marker(rows, alpha),
            error_x=None if overlay and measure == "success" else whiskers,
            customdata=[
                f"{row.heading}<br>{measure} {percent(rate)}<br>95% interval {percent(low)} to {percent(high)}"
                f"<br>n = {n}, strength {row.strength:.3g}"
                for row, (rate, low, high, n) in zip(rows, shares, strict=True)
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
        figure.add_trace(bar, 1, 1)
    costs = [row.clean_kl for row in rows]
    cost = Bar(
        x=costs,
        y=places,
        orientation="h",
        width=0.34 if overlay else 0.36,
        marker=_marker(rows, 0.6),
        text=[f"{cost:.2g}" if cost else "0" for cost in costs],
        textposition="outside",
        cliponaxis=False,
        customdata=[row.heading for row in rows],
        hovertemplate="%{customdata}<br>clean KL %{x:.4f} nats per token<extra></extra>",
        showlegend=False,
    )
    figure.add_trace(cost, 1, 2)
    figure.update_xaxes(axis(range=[0, 1.02], tickformat=".0%"), row=1, col=1)
    figure.update_xaxes(axis(range=[0, 1.3 * (max(costs) or 1.0)], nticks=4), row=1, col=2)
    figure.update_yaxes(axis(range=[places[-1] + 0.5, -0.5], showgrid=False, ticklabelstandoff=6))
    figure.update_annotations(font={"size": 13}, yshift=2)
    return figure


def _marker(rows: Sequence[_Row], alpha: float) -> dict[str, Any]:
    return {"color": [row.look.pale(alpha) for row in rows], "line": {"color": [row.look.colour for row in rows], "width": 1}}
