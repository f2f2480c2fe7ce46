"""Effect against cost of the conditions of one run, and the conditions of two runs as pairs of bars.

An intact answer is a success too. The gap between the two is behaviour that was removed by breaking the model.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from plotly.graph_objects import Bar, Figure, Scatter
from plotly.subplots import make_subplots

from interp_transfer.plots.style import FAINT, INK, Style, axis, label, layout, percent, shares, styles

WITHIN, BETWEEN = 0.42, 1.0
"""Distance between the two bars of a condition, and between conditions."""
EMPHASIZED = ("moved", "native")
"""Conditions with a large marker and their name beside it."""
DECADES = 5
"""The axis of clean KL reaches from the largest cost down so many powers of ten, at most."""


def condition_points(conditions: Mapping[str, Mapping[str, Any]], title: str = "", *, budget: float | None = None) -> Figure:
    """Draw intact answers of each condition against its clean KL, both with 95% intervals, and success above as an open marker.

    Args:
        conditions: by name, as `result.json` stores them.
        title: above the figure; none if empty.
        budget: allowed clean KL, nats per token; drawn as a line.

    Raises:
        ValueError: when there are no conditions.
    """
    if not conditions:
        raise ValueError("no conditions to draw: give at least one")
    costs = [c["clean_kl"] for c in conditions.values()] + ([budget] if budget else [])
    above = [cost for cost in costs if cost > 0] or [1.0]
    floor = max(min(above) / 4, max(above) / 10**DECADES)
    figure, looks = Figure(), styles(conditions)
    for name, c in sorted(conditions.items(), key=lambda item: item[0] in EMPHASIZED):
        for trace in _points(name, c, looks[name], floor):
            figure.add_trace(trace)
    if budget:
        figure.add_vline(x=budget, line={"color": FAINT, "width": 1.5, "dash": "dash"})
        at = {"x": math.log10(budget), "xref": "x", "y": 1, "yref": "paper", "xanchor": "right", "yanchor": "bottom"}
        figure.add_annotation(text=f"budget {budget:g}", showarrow=False, font={"color": INK, "size": 12}, **at)
    _name_emphasized(figure, conditions, floor)
    figure.update_layout(**layout(title, 490), hovermode="closest")
    figure.update_layout(margin_t=120 if title else 90)  # the legend may need three lines
    ticks = [10.0**k for k in range(-12, 7) if 1.6 * floor < 10.0**k < 2 * max(above)]
    zero = [floor] if any(c["clean_kl"] <= floor for c in conditions.values()) else []
    named = [f"{tick:g}" for tick in ticks]
    start = floor / 1.5 if zero else min(above) / 2
    figure.update_xaxes(
        axis(type="log", tickvals=[*zero, *ticks], ticktext=[*("0" for _ in zero), *named]),
        range=[math.log10(start), math.log10(2.2 * max(above))],
        title={"text": "clean KL, nats per token (cost)", "standoff": 8, "font": {"size": 13}},
    )
    figure.update_yaxes(axis(range=[-0.04, 1.06], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1], title="intact answers"))
    figure.update_traces(cliponaxis=False)
    return figure


def _points(name: str, c: Mapping[str, Any], look: Style, floor: float) -> Iterator[Scatter]:
    """Single draws as pale dots, success and the distance to it, and intact with both intervals."""
    large, intact, success = name in EMPHASIZED, c["intact"], c["success"]
    group = {"legendgroup": name, "hoverinfo": "skip", "showlegend": False}
    if len(c.get("draws") or ()) > 1:
        hover = [
            f"<b>{label(name)}</b>, one of {len(c['draws'])} draws<br>intact {percent(d['intact'])}, success "
            f"{percent(d['success'])}<br>strength {d['strength']:.3g}, clean KL {d['clean_kl']:.2g}"
            for d in c["draws"]
        ]
        dots = {"symbol": look.symbol, "size": 5, "color": look.pale(0.4)}
        x, y = [max(d["clean_kl"], floor) for d in c["draws"]], [d["intact"] for d in c["draws"]]
        told = {"customdata": hover, "hovertemplate": "%{customdata}<extra></extra>"}
        yield Scatter(x=x, y=y, mode="markers", marker=dots, **{**group, "hoverinfo": None}, **told)
    x = max(c["clean_kl"], floor)
    if success["rate"] > intact["rate"]:
        marker = {"symbol": ["line-ns", f"{look.symbol}-open"], "size": [0, 8], "color": look.colour, "line": {"width": 1.5}}
        line = {"color": look.pale(0.55), "width": 1.2, "dash": "dot"}
        yield Scatter(x=[x, x], y=[intact["rate"], success["rate"]], mode="lines+markers", marker=marker, line=line, **group)
    ends = c.get("clean_kl_interval")
    strong = (
        {"color": look.colour, "thickness": 2, "width": 4} if large else {"color": look.pale(0.6), "thickness": 1, "width": 0}
    )
    whiskers = {"type": "data", "symmetric": False, **strong}
    yield Scatter(
        x=[x],
        y=[intact["rate"]],
        mode="markers",
        marker={"symbol": look.symbol, "size": 14 if large else 9, "color": look.colour},
        error_y={**whiskers, "array": [intact["high"] - intact["rate"]], "arrayminus": [intact["rate"] - intact["low"]]},
        error_x={**whiskers, "array": [ends["high"] - x], "arrayminus": [x - max(ends["low"], floor)]}
        if ends and x > floor
        else None,
        name=label(name),
        legendgroup=name,
        hovertemplate=f"<b>{label(name)}</b><br>{shares(c)}<br>{_cost(c)}<br>strength {c['strength']:.3g}<extra></extra>",
    )


def _cost(c: Mapping[str, Any]) -> str:
    ends = c.get("clean_kl_interval")
    return f"clean KL {c['clean_kl']:.3g}" + (f" ({ends['low']:.3g} to {ends['high']:.3g})" if ends else "") + " nats per token"


def _name_emphasized(figure: Figure, conditions: Mapping[str, Mapping[str, Any]], floor: float) -> None:
    """Names beside the large markers: of two, the cheaper one's on the left."""
    there = sorted((name for name in EMPHASIZED if name in conditions), key=lambda name: conditions[name]["clean_kl"])
    for place, name in enumerate(there):
        left = place == 0 and len(there) > 1
        at = {"x": math.log10(max(conditions[name]["clean_kl"], floor)), "y": conditions[name]["intact"]["rate"]}
        side = {"xanchor": "right", "xshift": -9} if left else {"xanchor": "left", "xshift": 9}
        text = f'<b><span style="color: {styles([name])[name].colour}">{label(name)}</span></b>'
        figure.add_annotation(text=text, showarrow=False, font={"size": 14}, yanchor="top", yshift=-5, **at, **side)


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
    figure = _bars(names, headings, rows, places)
    figure.update_layout(barmode="overlay", **layout("", 110 + round(46 * (places[-1] + 1))))
    figure.update_xaxes(tickvals=[0, 0.5, 1], row=1, col=1)
    figure.update_yaxes(tickvals=places, ticktext=ticks)
    return figure


def _bars(
    names: Sequence[str],
    headings: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    places: Sequence[float],
) -> Figure:
    """Two panels: shares of prompts, with intact drawn over success, and clean KL."""
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, column_widths=[0.66, 0.34], horizontal_spacing=0.13,
        subplot_titles=["share of prompts", "clean KL"],
    )  # fmt: skip
    looks = [styles(names)[name] for name in names]
    bold = [f"<b>{label(heading)}</b>" for heading in headings]

    def bars(x: list[float], alpha: float, hover: list[str], **options: Any) -> Bar:
        line = {"color": [look.colour for look in looks], "width": 1}
        return Bar(
            x=x,
            y=places,
            orientation="h",
            width=0.34,
            marker={"color": [look.pale(alpha) for look in looks], "line": line},
            customdata=[f"{heading}<br>{text}" for heading, text in zip(bold, hover, strict=True)],
            hovertemplate="%{customdata}<extra></extra>",
            **options,
        )

    for measure, alpha in (("success", 0.3), ("intact", 1.0)):
        measured = [row[measure] for row in rows]
        whiskers = {
            "type": "data",
            "array": [share["high"] - share["rate"] for share in measured],
            "arrayminus": [share["rate"] - share["low"] for share in measured],
            "color": INK,
            "thickness": 1.6,
            "width": 4,
        }
        hover = [
            f"{measure} {percent(share['rate'])}<br>95% interval {percent(share['low'])} to {percent(share['high'])}"
            f"<br>n = {share['n']}, strength {row['strength']:.3g}"
            for row, share in zip(rows, measured, strict=True)
        ]
        rates = [share["rate"] for share in measured]
        over = whiskers if measure == "intact" else None
        figure.add_trace(bars(rates, alpha, hover, name=measure, error_x=over), 1, 1)
    costs = [row["clean_kl"] for row in rows]
    hover = [f"clean KL {cost:.4f} nats per token" for cost in costs]
    text = [f"{cost:.2g}" if cost else "0" for cost in costs]
    options = {"text": text, "textposition": "outside", "cliponaxis": False, "showlegend": False}
    figure.add_trace(bars(costs, 0.6, hover, **options), 1, 2)
    figure.update_xaxes(axis(range=[0, 1.02], tickformat=".0%"), row=1, col=1)
    figure.update_xaxes(axis(range=[0, 1.3 * (max(costs) or 1.0)], nticks=4), row=1, col=2)
    figure.update_yaxes(axis(range=[places[-1] + 0.5, -0.5], showgrid=False, ticklabelstandoff=6))
    figure.update_annotations(font={"size": 13}, yshift=2)
    return figure
