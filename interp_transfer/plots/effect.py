"""Success and intact of vectors against what they cost.

Vectors differ in length, so curves over strength cannot be compared. Against clean KL they can: at the same place on the axis
all vectors cost the same.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

from interp_transfer.plots.style import FAINT, RATES, Style, axis, curve, layout, shares, styles

MEASURES = ("success", "intact")
MANY = 5
"""Number of draws from which on all lines of a condition are pale; of fewer draws the first one is not."""
DECADES = 3
"""The axis of clean KL reaches from the largest cost down so many powers of ten."""


def effect_curves(
    rows: Sequence[Mapping[str, Any]],
    *,
    budget: float | None = None,
    chosen: Sequence[tuple[str, int, float]] = (),
) -> Figure:
    """Draw success and intact against clean KL, a line for each condition, and pale lines for its further draws.

    Args:
        rows: one for each condition, draw and strength: `condition`, `draw` (0 unless given), `strength`, `success` and
            `intact` (each with `rate`, `low`, `high`, `n`), `clean_kl`; as `result.json` holds them under "sweep". In any
            order.
        budget: allowed clean KL, nats per token; drawn as a line.
        chosen: condition, draw and strength of the points that were chosen; they are marked by rings.

    Raises:
        ValueError: when there are no rows.
    """
    if not rows:
        raise ValueError("no rows to draw: give at least one strength of one condition")
    lines: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["strength"]):
        lines.setdefault((str(row["condition"]), int(row.get("draw", 0))), []).append(row)
    floor = max(float(row["clean_kl"]) for row in rows) / 10**DECADES or 1e-6
    looks = styles(dict.fromkeys(str(row["condition"]) for row in rows))
    many = {name for name, draw in lines if draw >= MANY}
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.1, subplot_titles=list(MEASURES))
    # Pale lines below the others: they are drawn first.
    for (name, draw), points in sorted(lines.items(), key=lambda line: line[0][0] not in many and line[0][1] == 0):
        pale = name in many or draw > 0
        costs = [max(float(row["clean_kl"]), floor) for row in points]
        hover = [f"strength {row['strength']:.3g}, clean KL {row['clean_kl']:.2g}<br>{shares(row)}" for row in points]
        line = curve(name, looks[name], hover, 0.35 if pale else 1.0)
        for panel, measure in enumerate(MEASURES, start=1):
            legend = panel == 1 and draw == 0
            rates = [row[measure]["rate"] for row in points]
            figure.add_trace(Scatter(x=costs, y=rates, showlegend=legend, **line), panel, 1)
            ringed = [row for row in points if (name, draw, row["strength"]) in chosen]
            if ringed and not pale:
                figure.add_trace(
                    _ring(max(ringed[0]["clean_kl"], floor), ringed[0][measure]["rate"], looks[name], name), panel, 1
                )
    if budget is not None:
        figure.add_vline(x=budget, line={"color": FAINT, "width": 1.5, "dash": "dash"})
    figure.update_layout(**layout("", 560), hovermode="closest")
    figure.update_layout(margin_t=100)  # the legend may need three lines
    figure.update_xaxes(axis(type="log", tickformat="~g", dtick=1))
    costs = [max(float(row["clean_kl"]), floor) for row in rows] + ([] if budget is None else [budget])
    if min(costs) > max(costs) / 10:  # all cost alike: a decade says so
        figure.update_xaxes(range=[math.log10(max(costs)) - 1, math.log10(max(costs)) + 0.05])
    below = "clean KL, nats per token" + ("" if budget is None else f" (dashed: the budget, {budget:g})")
    figure.update_xaxes(title={"text": below, "standoff": 8, "font": {"size": 13}}, row=2, col=1)
    figure.update_yaxes(RATES)
    figure.update_annotations(font={"size": 13}, x=0, xanchor="left")
    figure.update_traces(cliponaxis=False)
    return figure


def _ring(x: float, y: float, style: Style, name: str) -> Scatter:
    marker = {"symbol": "circle-open", "size": 17, "color": style.colour, "line": {"width": 2.5}}
    return Scatter(x=[x], y=[y], legendgroup=name, showlegend=False, mode="markers", marker=marker, hoverinfo="skip")
