"""The conditions of two runs side by side: a pair of bars for each, the first run above the second.

As an intact answer is a success too, the bar of intact stands on that of success, and what is pale beyond it is behaviour that
was removed by breaking the model.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from plotly.graph_objects import Bar, Figure
from plotly.subplots import make_subplots

from interp_transfer.plots.style import INK, Style, axis, label, layout, percent, styles

Judged = Sequence[tuple[str, str, Mapping[str, Any]]]
WITHIN, BETWEEN = 0.42, 1.0
"""From a bar to the next of the same condition, and of the next one."""


def two_run_bars(judged: Judged, title: str = "") -> Figure:
    """Intact with its 95% interval on success, and clean KL beside them, for each condition and run.

    Args:
        judged: condition, run and what `result.json` says of it (`success` and `intact`, each with `rate`, `low`, `high`, `n`;
            `strength`; `clean_kl`), drawn from top to bottom; those of one condition follow each other.
        title: above the figure; none if empty.

    Raises:
        ValueError: when there are no rows.
    """
    if not judged:
        raise ValueError("no rows to draw: give at least one condition of one run")
    known = styles([name for name, *_ in judged])
    look = [known[name] for name, *_ in judged]
    again = [k > 0 and judged[k - 1][0] == name for k, (name, *_) in enumerate(judged)]
    places = [0.0]
    for same in again[1:]:
        places.append(places[-1] + (WITHIN if same else BETWEEN))
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, column_widths=[0.68, 0.32], horizontal_spacing=0.09,
        subplot_titles=["share of prompts", "clean KL"],
    )  # fmt: skip
    for measure, alpha in (("success", 0.3), ("intact", 1.0)):
        figure.add_trace(_rates(judged, measure, places, look, alpha), 1, 1)
    costs = [float(row["clean_kl"]) for *_, row in judged]
    figure.add_trace(
        Bar(
            x=costs,
            y=places,
            orientation="h",
            width=0.34,
            marker=_marker(look, 0.6),
            text=[f"{cost:.2g}" if cost else "0" for cost in costs],
            textposition="outside",
            cliponaxis=False,
            customdata=[_called(name, run) for name, run, _ in judged],
            hovertemplate="%{customdata}<br>clean KL %{x:.4f} nats per token<extra></extra>",
            showlegend=False,
        ),
        1,
        2,
    )
    figure.update_layout(barmode="overlay", **layout(title, 110 + round(46 * (places[-1] + 1))))
    figure.update_xaxes(axis(range=[0, 1.02], tickformat=".0%", tickvals=[0, 0.5, 1]), row=1, col=1)
    figure.update_xaxes(axis(range=[0, 1.3 * (max(costs) or 1.0)], nticks=4), row=1, col=2)
    ticks = [
        label(run) if same else f"{label(name)}&nbsp; {label(run)}" for (name, run, _), same in zip(judged, again, strict=True)
    ]
    ends = [places[-1] + 0.5, -0.5]
    figure.update_yaxes(axis(range=ends, showgrid=False, tickvals=places, ticktext=ticks, ticklabelstandoff=6))
    figure.update_annotations(font={"size": 13}, yshift=2)
    return figure


def _rates(judged: Judged, measure: str, places: list[float], look: list[Style], alpha: float) -> Bar:
    shares = [row[measure] for *_, row in judged]
    hover = [
        f"{_called(name, run)}<br>{measure} {percent(s['rate'])}<br>95% interval {percent(s['low'])} to {percent(s['high'])}"
        f"<br>n = {s['n']}, strength {row['strength']:.3g}"
        for (name, run, row), s in zip(judged, shares, strict=True)
    ]
    whiskers: dict[str, Any] = {
        "type": "data",
        "array": [s["high"] - s["rate"] for s in shares],
        "arrayminus": [s["rate"] - s["low"] for s in shares],
        "color": INK,
        "thickness": 1.6,
        "width": 4,
    }
    return Bar(
        name=measure,
        x=[s["rate"] for s in shares],
        y=places,
        orientation="h",
        width=0.34,
        marker=_marker(look, alpha),
        error_x=whiskers if measure == "intact" else None,
        customdata=hover,
        hovertemplate="%{customdata}<extra></extra>",
    )


def _marker(look: list[Style], alpha: float) -> dict[str, Any]:
    return {"color": [s.pale(alpha) for s in look], "line": {"color": [s.colour for s in look], "width": 1}}


def _called(name: str, run: str) -> str:
    return f"<b>{label(name)}, {label(run)}</b>"
