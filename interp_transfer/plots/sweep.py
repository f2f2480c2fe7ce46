"""Results of a sweep: success by site and positions, and intact answers over their cost."""

import math
from typing import TYPE_CHECKING, Any

from plotly.graph_objects import Figure, Scatter

from interp_transfer.plots.heatmap import SHARES, heat_cells
from interp_transfer.plots.style import FAINT, INK, axis, figure_text, label, layout, percent, styles

if TYPE_CHECKING:
    import pandas as pd

_LEAST = 1e-5
"""Smaller clean KL is drawn at this value, since the axis is logarithmic."""
_COST = [[0.0, "#f3f6f9"], [0.5, "#e8ad84"], [1.0, "#a23b0b"]]


def sweep_map(frame: "pd.DataFrame", budget: float, title: str = "") -> Figure:
    """Sites by rules of positions, a setting each, with buttons for success, intact and clean KL.

    Args:
        frame: a row for each cell, with columns site, positions, strength, norm, success, intact, clean_kl, n, whole.
        budget: allowed clean KL, nats per token: the middle of its colours.
        title: above the figure; none if empty.

    Raises:
        ValueError: for no settings.
    """
    if not len(frame):
        raise ValueError("there are no settings to draw")
    sites, rules = list(dict.fromkeys(frame["site"])), list(dict.fromkeys(frame["positions"]))
    cells: dict[tuple[str, str], Any] = {(row["site"], row["positions"]): row for row in frame.to_dict("records")}
    figure = Figure()
    shown = {"intact": (SHARES, 1.0), "success": (SHARES, 1.0), "clean_kl": (_COST, max(2 * budget, 1e-9))}
    for name, (scale, top) in shown.items():
        figure.add_trace(
            heat_cells(
                [[None if (s, r) not in cells else _number(cells[s, r][name]) for r in rules] for s in sites],
                [[_written(cells.get((s, r)), name) for r in rules] for s in sites],
                scale,
                gap=2,
                x=[label(r) for r in rules],
                y=[figure_text(s) for s in sites],
                customdata=[[_described(cells.get((s, r))) for r in rules] for s in sites],
                hovertemplate="<b>%{y}</b>, positions %{x}<br>%{customdata}<extra></extra>",
                zmin=0,
                zmax=top,
                visible=name == "intact",
            )
        )
    figure.update_layout(**layout(title, 190 + 40 * len(sites)))
    figure.update_layout(
        margin={"t": 120},
        updatemenus=[
            {
                "type": "buttons",
                "direction": "right",
                "x": 0,
                "xanchor": "left",
                "y": 1,
                "yanchor": "bottom",
                "pad": {"b": 8},
                "showactive": True,
                "buttons": [
                    {
                        "label": label(name).replace("kl", "KL"),
                        "method": "restyle",
                        "args": [{"visible": [name == other for other in shown]}],
                    }
                    for name in shown
                ],
            }
        ],
    )
    figure.update_xaxes(**axis(title="positions", showgrid=False))
    figure.update_yaxes(**axis(showgrid=False))  # the deepest on top
    return figure


def cost_curve(frame: "pd.DataFrame", front: list[tuple[float, float]], budget: float, title: str = "") -> Figure:
    """Intact answers over clean KL, a mark for each setting, a colour for each rule of positions, and the front of the best.

    Args:
        frame: a row for each setting, as ``sweep_map`` takes it for each cell; settings whose cost is not known are left out.
        front: (clean KL, intact rate) of the settings from which no other is better in both.
        budget: allowed clean KL, nats per token; drawn as a line.
        title: above the figure; none if empty.
    """
    known = frame[frame["clean_kl"].notna()]
    rules = list(dict.fromkeys(known["positions"]))
    look, figure = styles(rules), Figure()
    for rule in rules:
        part = known[known["positions"] == rule]
        figure.add_trace(
            Scatter(
                x=part["clean_kl"].clip(lower=_LEAST),
                y=part["intact"],
                mode="markers",
                name=label(rule),
                marker={"color": look[rule].colour, "symbol": look[rule].symbol, "size": 8, "opacity": 0.75},
                customdata=[[figure_text(row["site"]), _described(row)] for _, row in part.iterrows()],
                hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}<extra></extra>",
            )
        )
    figure.add_trace(
        Scatter(
            x=[max(x, _LEAST) for x, _ in front],
            y=[y for _, y in front],
            mode="lines",
            line={"color": FAINT, "shape": "hv", "width": 1.5},
            name="no other is better in both",
            hoverinfo="skip",
        )
    )
    figure.add_vline(x=max(budget, _LEAST), line={"color": FAINT, "dash": "dot"})
    place = {"x": math.log10(max(budget, _LEAST)), "y": 1.03, "xanchor": "left", "yanchor": "top", "showarrow": False}
    figure.add_annotation(text="budget", font={"color": INK}, **place)
    figure.update_layout(**layout(title, 440))
    figure.update_layout(legend={"y": 0, "yanchor": "bottom"}, margin={"b": 130})
    title = "clean KL, nats per token (the leftmost stand for less)"
    figure.update_xaxes(**axis(type="log", dtick=1, exponentformat="power", title=title))
    figure.update_yaxes(**axis(title="intact answers", tickformat=".0%", range=[-0.03, 1.03]))
    return figure


def _number(value: float) -> float | None:
    return None if value != value else float(value)


def _written(cell: dict[str, Any] | None, name: str) -> str:
    if cell is None or cell[name] != cell[name]:
        return ""
    return f"{cell[name]:.4f}" if name == "clean_kl" else f"{cell[name]:.2f} at {cell['strength']:g}"


def _described(cell: Any) -> str:
    """A setting and its outcome in words."""
    if cell is None:
        return "not tried"
    cost = "not measured" if cell["clean_kl"] != cell["clean_kl"] else f"{cell['clean_kl']:.4f} nats per token"
    given_up = "" if cell["complete"] else ", stopped early"
    interval = f"{percent(cell['intact_low'])} to {percent(cell['intact_high'])}"
    return (
        f"strength {cell['strength']:g}, norm {cell['norm']:.2f}<br>success {percent(cell['success'])}, intact "
        f"{percent(cell['intact'])} ({interval}) of n = {cell['n']}{given_up}<br>clean KL {cost}"
    )
