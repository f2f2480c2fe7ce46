"""Conditions side by side: what each intervention does, and what it costs.

An intact answer is a success too, so the solid bar (intact) can never be longer than the pale one above it (success); the
gap between them is behaviour that was removed by breaking the model.
"""

from typing import Any

import pandas as pd
from plotly.graph_objects import Bar, Figure
from plotly.subplots import make_subplots

from interp_transfer.plots.style import INK, axis, label, layout, percent, styles

NEEDED = (
    "success", "success_low", "success_high", "intact", "intact_low", "intact_high", "clean_kl", "strength", "n",
)  # fmt: skip


def condition_bars(frame: pd.DataFrame, title: str = "") -> Figure:
    """Success and intact of each condition with their 95% intervals, and its clean KL beside them.

    Args:
        frame: a row for each condition, as `Result.to_frame` gives it; drawn from top to bottom in the frame's order.
        title: above the figure; none if empty.

    Raises:
        ValueError: when the frame is empty or lacks a column.
    """
    missing = [name for name in NEEDED if name not in frame.columns]
    if missing or frame.empty:
        what = f"lacks {', '.join(missing)}" if missing else "has no rows"
        raise ValueError(f"the frame {what}: give what Result.to_frame() returns")
    names = [str(name) for name in frame.index]
    look = [styles(names)[name] for name in names]
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, column_widths=[0.68, 0.32], horizontal_spacing=0.09,
        subplot_titles=["share of prompts", "clean KL"],
    )  # fmt: skip
    labels = [label(name) for name in names]
    rows = list(range(len(names)))  # two names may have the same label
    for measure, alpha in (("success", 0.3), ("intact", 1.0)):
        figure.add_trace(_rates(frame, measure, labels, [s.pale(alpha) for s in look], [s.colour for s in look]), 1, 1)
    costs = _column(frame, "clean_kl")
    figure.add_trace(
        Bar(
            x=costs,
            y=rows,
            orientation="h",
            width=0.36,
            marker={"color": [s.pale(0.6) for s in look], "line": {"color": [s.colour for s in look], "width": 1}},
            text=[f"{cost:.2g}" if cost else "0" for cost in costs],
            textposition="outside",
            cliponaxis=False,
            customdata=labels,
            hovertemplate="<b>%{customdata}</b><br>clean KL %{x:.4f} nats per token<extra></extra>",
            showlegend=False,
        ),
        1,
        2,
    )
    figure.update_layout(barmode="group", bargap=0.28, bargroupgap=0.08, **layout(title, 110 + 48 * len(names)))
    figure.update_xaxes(axis(range=[0, 1.02], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1]), row=1, col=1)
    figure.update_xaxes(axis(range=[0, 1.3 * (max(costs) or 1.0)], nticks=4), row=1, col=2)
    figure.update_yaxes(
        axis(range=[len(names) - 0.5, -0.5], showgrid=False, tickvals=rows, ticktext=labels, ticklabelstandoff=6)
    )
    figure.update_annotations(font={"size": 13}, yshift=2)
    return figure


def _rates(frame: pd.DataFrame, measure: str, labels: list[str], fill: list[str], line: list[str]) -> Bar:
    rate, low, high = (_column(frame, measure + end) for end in ("", "_low", "_high"))
    hover = [
        f"<b>{name}</b><br>{measure} {percent(r)}<br>95% interval {percent(a)} to {percent(b)}<br>n = {n:.0f}, strength {s:.3g}"
        for name, r, a, b, n, s in zip(labels, rate, low, high, _column(frame, "n"), _column(frame, "strength"), strict=True)
    ]
    whiskers: dict[str, Any] = {
        "type": "data",
        "array": [b - r for r, b in zip(rate, high, strict=True)],
        "arrayminus": [r - a for r, a in zip(rate, low, strict=True)],
        "color": INK,
        "thickness": 1.6,
        "width": 4,
    }
    return Bar(
        name=measure,
        x=rate,
        y=list(range(len(labels))),
        orientation="h",
        marker={"color": fill, "line": {"color": line, "width": 1}},
        error_x=whiskers,
        customdata=hover,
        hovertemplate="%{customdata}<extra></extra>",
    )


def _column(frame: pd.DataFrame, name: str) -> list[float]:
    return [float(value) for value in frame[name]]
