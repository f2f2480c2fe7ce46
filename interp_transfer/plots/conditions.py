"""Success, intact and clean KL of conditions as horizontal bars, of one run or of two.

An intact answer is a success too, so the solid bar (intact) is never longer than the pale one (success). The gap between them
is behaviour that was removed by breaking the model.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from plotly.graph_objects import Bar, Figure, Scatter
from plotly.subplots import make_subplots

from interp_transfer.plots.style import INK, Style, axis, label, layout, percent, styles

WITHIN, BETWEEN = 0.42, 1.0
"""Distance between the two bars of a condition, and between conditions."""


def condition_bars(conditions: Mapping[str, Mapping[str, Any]], title: str = "") -> Figure:
    """Draw success and intact of each condition with their 95% intervals, and its clean KL.

    Args:
        conditions: by name, as `result.json` stores them; drawn from top to bottom.
        title: above the figure; none if empty.

    Raises:
        ValueError: when there are no conditions.
    """
    if not conditions:
        raise ValueError("no conditions to draw: give at least one")
    names, places = list(conditions), list(range(len(conditions)))
    figure = _bars(names, names, list(conditions.values()), places, overlay=False)
    figure.update_layout(barmode="group", bargap=0.28, bargroupgap=0.08, **layout(title, 110 + 48 * len(names)))
    figure.update_xaxes(tickvals=[0, 0.25, 0.5, 0.75, 1], row=1, col=1)
    figure.update_yaxes(tickvals=places, ticktext=[label(name) for name in names])
    return figure


def run_bars(judged: Sequence[tuple[str, str, Mapping[str, Any]]]) -> Figure:
    """Draw the conditions of two runs, a pair of bars each: intact with its 95% interval, drawn over success, and clean KL.

    Args:
        judged: condition, run, and the condition as `result.json` stores it; drawn from top to bottom. Rows of one condition
            follow each other.

    Raises:
        ValueError: when there are no rows.
    """
    if not judged:
        raise ValueError("no rows to draw: give at least one condition of one run")
    names, runs, rows = (list(column) for column in zip(*judged, strict=True))
    places, ticks = [0.0], [f"{label(names[0])}&nbsp; {label(runs[0])}"]
    for before, name, run in zip(names, names[1:], runs[1:], strict=False):
        same = name == before
        places.append(places[-1] + (WITHIN if same else BETWEEN))
        ticks.append(label(run) if same else f"{label(name)}&nbsp; {label(run)}")
    headings = [f"{name}, {run}" for name, run in zip(names, runs, strict=True)]
    figure = _bars(names, headings, rows, places, overlay=True)
    figure.update_layout(barmode="overlay", **layout("", 110 + round(46 * (places[-1] + 1))))
    figure.update_xaxes(tickvals=[0, 0.5, 1], row=1, col=1)
    figure.update_yaxes(tickvals=places, ticktext=ticks)
    return figure


def _bars(
    names: Sequence[str],
    headings: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    places: Sequence[float | int],
    *,
    overlay: bool,
) -> Figure:
    """Two panels: shares of prompts, with intact beside success or over it, and clean KL."""
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, column_widths=[0.68, 0.32], horizontal_spacing=0.09,
        subplot_titles=["share of prompts", "clean KL"],
    )  # fmt: skip
    looks = [styles(names)[name] for name in names]
    bold = [f"<b>{label(heading)}</b>" for heading in headings]

    def bars(x: list[float], alpha: float, width: float | None, hover: list[str], **options: Any) -> Bar:
        line = {"color": [look.colour for look in looks], "width": 1}
        return Bar(
            x=x,
            y=places,
            orientation="h",
            width=width,
            marker={"color": [look.pale(alpha) for look in looks], "line": line},
            customdata=[f"{heading}<br>{text}" for heading, text in zip(bold, hover, strict=True)],
            hovertemplate="%{customdata}<extra></extra>",
            **options,
        )

    for measure, alpha in (("success", 0.3), ("intact", 1.0)):
        shares = [row[measure] for row in rows]
        whiskers = {
            "type": "data",
            "array": [share["high"] - share["rate"] for share in shares],
            "arrayminus": [share["rate"] - share["low"] for share in shares],
            "color": INK,
            "thickness": 1.6,
            "width": 4,
        }
        hover = [
            f"{measure} {percent(share['rate'])}<br>95% interval {percent(share['low'])} to {percent(share['high'])}"
            f"<br>n = {share['n']}, strength {row['strength']:.3g}"
            for row, share in zip(rows, shares, strict=True)
        ]
        whiskers = None if overlay and measure == "success" else whiskers
        rates = [share["rate"] for share in shares]
        figure.add_trace(bars(rates, alpha, 0.34 if overlay else None, hover, name=measure, error_x=whiskers), 1, 1)
    for place, row, look in zip(places, rows, looks, strict=True):
        if row.get("draws"):
            figure.add_trace(_draws(place, row["draws"], look), 1, 1)
    costs = [row["clean_kl"] for row in rows]
    hover = [f"clean KL {cost:.4f} nats per token" for cost in costs]
    text = [f"{cost:.2g}" if cost else "0" for cost in costs]
    options = {"text": text, "textposition": "outside", "cliponaxis": False, "showlegend": False}
    figure.add_trace(bars(costs, 0.6, 0.34 if overlay else 0.36, hover, **options), 1, 2)
    figure.update_xaxes(axis(range=[0, 1.02], tickformat=".0%"), row=1, col=1)
    figure.update_xaxes(axis(range=[0, 1.3 * (max(costs) or 1.0)], nticks=4), row=1, col=2)
    figure.update_yaxes(axis(range=[places[-1] + 0.5, -0.5], showgrid=False, ticklabelstandoff=6))
    figure.update_annotations(font={"size": 13}, yshift=2)
    return figure


def _draws(place: float | int, draws: Sequence[Mapping[str, Any]], look: Style) -> Scatter:
    """The intact answers of single draws, as points along the bar of their condition."""
    hover = [
        f"one of {len(draws)}: intact {percent(d['intact'])}, success {percent(d['success'])}<br>strength {d['strength']:.3g}"
        for d in draws
    ]
    return Scatter(
        x=[d["intact"] for d in draws],
        y=[place] * len(draws),
        mode="markers",
        marker={"symbol": "circle", "size": 7, "color": look.pale(0.45), "line": {"color": INK, "width": 1}},
        customdata=hover,
        hovertemplate="%{customdata}<extra></extra>",
        showlegend=False,
        cliponaxis=False,
    )
