"""Success, intact and clean KL of a vector against its strength.

For doses of noise and for blocks whose input is replaced, which have no cost in common. Vectors are compared at equal cost, see
``effect``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

from interp_transfer.plots.style import RATES, Style, axis, curve, figure_text, layout, shares, styles

KL_FLOOR = 1e-3
"""Clean KL below this, in nats per token, is drawn at this: the scale is logarithmic."""
LOG_FROM = 8
"""Ratio of the largest strength to the smallest from which their axis is logarithmic."""
PANELS = {"success": "success", "intact": "intact", "clean_kl": f"clean KL, nats per token (log scale from {KL_FLOOR:g})"}
"""Measures in the order of their panels, and the heading of each."""
BELOW = "strength (1 is the vector as it is)"


def strength_curves(
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str = "",
    panels: Mapping[str, str] = PANELS,
    below: str = BELOW,
) -> Figure:
    """Success, intact and clean KL against strength, a line for each condition, with 95% intervals as bands.

    Args:
        rows: one for each condition and strength: `condition`, `strength`, `success` and `intact` (each with `rate`,
            `low`, `high`, `n`), `clean_kl`; as `result.json` holds them under "sweep". In any order.
        title: above the figure; none if empty.
        panels: measures that are drawn, and the heading of each; clean KL last.
        below: title of the strengths' axis; its first word names the strength in hover texts.

    Raises:
        ValueError: when there are no rows.
    """
    if not rows:
        raise ValueError("no rows to draw: give at least one strength of one condition")
    called = figure_text(below.split()[0].rstrip(":,"))
    names = list(dict.fromkeys(str(row["condition"]) for row in rows))
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.21 / len(panels),
        subplot_titles=list(map(figure_text, panels.values())),
    )
    for name, style in styles(names).items():
        points = sorted((row for row in rows if row["condition"] == name), key=lambda row: row["strength"])
        for panel, measure in enumerate(panels, start=1):
            if measure != "clean_kl":
                figure.add_trace(_band(points, measure, style, name), panel, 1)
        strengths = [row["strength"] for row in points]
        hover = [
            f"{called} {row['strength']:g}<br>{shares(row)}<br>clean KL {row['clean_kl']:.4f} nats per token" for row in points
        ]
        line = curve(name, style, hover)
        for panel, measure in enumerate(panels, start=1):
            values = [_value(row, measure) for row in points]
            figure.add_trace(Scatter(x=strengths, y=values, showlegend=panel == 1, **line), panel, 1)
    last = len(panels)
    figure.update_layout(**layout(title, 140 + 200 * len(panels)), hovermode="closest")
    figure.update_layout(margin_t=112 if title else 80)  # the legend may need two lines
    strengths = sorted({float(row["strength"]) for row in rows})
    figure.update_xaxes(axis(tickvals=strengths, ticktext=[f"{s:g}" for s in strengths], tickangle=0))
    if strengths[0] > 0 and strengths[-1] / strengths[0] >= LOG_FROM:
        figure.update_xaxes(type="log")
    figure.update_xaxes(title={"text": figure_text(below), "standoff": 8, "font": {"size": 13}}, row=last, col=1)
    for panel, measure in enumerate(panels, start=1):
        figure.update_yaxes(axis(type="log", dtick=1, tickformat="~g") if measure == "clean_kl" else RATES, row=panel, col=1)
    figure.update_annotations(font={"size": 13})
    figure.update_annotations(selector={"xanchor": "center"}, x=0, xanchor="left")
    figure.update_traces(cliponaxis=False)
    return figure


def _value(row: Mapping[str, Any], measure: str) -> float:
    return max(float(row["clean_kl"]), KL_FLOOR) if measure == "clean_kl" else float(row[measure]["rate"])


def _band(points: Sequence[Mapping[str, Any]], measure: str, style: Style, name: str) -> Scatter:
    strengths = [row["strength"] for row in points]
    return Scatter(
        x=strengths + strengths[::-1],
        y=[row[measure]["high"] for row in points] + [row[measure]["low"] for row in points][::-1],
        fill="toself",
        fillcolor=style.pale(0.13),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        legendgroup=name,
        showlegend=False,
    )
