"""The picture of a transfer: a contrast and its vector in the source's space, and after the move beside the target's own."""

from collections.abc import Mapping, Sequence
from typing import Any

from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

from interp_transfer.plots.style import FAINT, axis, figure_text, layout, percent, styles

LONGEST = 90
"""Characters of a prompt that are shown."""


def transfer_picture(planes: Mapping[str, Any], title: str = "") -> Figure:
    """Draw both planes, the source's above. Orange comes from the source, blue from the target; filled points are positive.

    Points of one prompt have the same number, ``customdata[0]``, by which a page can show them together.

    Args:
        planes: what ``vectors.planes.transfer_planes`` returns.
        title: above the figure; none if empty.
    """
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.16)
    shown: set[str] = set()
    for row, place in enumerate(("source", "target"), start=1):
        plane = planes[place]
        for name, points in plane["points"].items():
            figure.add_trace(_points(name, points, planes["texts"], shown), row=row, col=1)
        for name, arrow in plane["arrows"].items():
            figure.add_trace(_arrow(name, arrow, shown), row=row, col=1)
        heading = f"<b>{place}</b> {figure_text(plane['model'], 40)}, {figure_text(plane['site'], 50)}"
        top: Any = figure.get_subplot(row, 1)
        at = {"x": 0, "y": top.yaxis.domain[1], "xanchor": "left", "yanchor": "bottom", "xref": "paper", "yref": "paper"}
        figure.add_annotation(text=heading, showarrow=False, **at)
    figure.update_layout(**layout(title, 720), hovermode="closest", meta="linked")
    figure.update_layout(margin={"t": 130 if title else 96})
    figure.update_xaxes(axis(title={"text": "along the vector", "font": {"size": 12}, "standoff": 4}))
    figure.update_yaxes(axis(title={"text": "leading other direction", "font": {"size": 12}}))
    return figure


def _points(name: str, points: Sequence[Sequence[float]], texts: Mapping[str, Sequence[str]], shown: set[str]) -> Scatter:
    whose, side = name.split(", ")
    colour = _colour(whose)
    prompts = texts[side]
    said = [f"<br>{figure_text(prompts[i], LONGEST)}" if prompts else "" for i in range(len(points))]
    group = f"{'target' if whose == 'native' else 'source'}, {side}"
    return Scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="markers",
        marker={
            "color": colour,
            "size": 7,
            "opacity": 0.75,
            "symbol": "circle" if side == "positive" else "circle-open",
            "line": {"width": 1, "color": colour},
        },
        name=group,
        legendgroup=group,
        showlegend=_first(group, shown),
        customdata=[[f"{side} {i}", text] for i, text in enumerate(said)],
        hovertemplate=f"{figure_text(name)}%{{customdata[1]}}<extra></extra>",
    )


def _arrow(name: str, arrow: Mapping[str, Any], shown: set[str]) -> Scatter:
    (x0, y0), (x1, y1) = arrow["from"], arrow["to"]
    about = {"source": "the vector", "moved": "moved vector", "native": "native vector"}[name]
    group = f"vector {'native' if name == 'native' else 'moved'}"
    return Scatter(
        x=[x0, x1],
        y=[y0, y1],
        mode="lines+markers",
        line={"color": FAINT, "width": 3, "dash": "dot" if name == "native" else "solid"},
        marker={
            "symbol": ["circle", "arrow"],
            "size": [1, 16],
            "angleref": "previous",
            "color": _colour(name),
            "line": {"width": 1, "color": FAINT},
        },
        name="native vector" if name == "native" else "vector, moved below",
        legendgroup=group,
        showlegend=_first(group, shown),
        hovertemplate=f"{about}<br>{percent(arrow['in_plane'])} of its length is in this plane<extra></extra>",
        cliponaxis=False,
    )


def _colour(whose: str) -> str:
    return styles([whose])[whose].colour if whose in ("moved", "native") else styles(["moved"])["moved"].colour


def _first(group: str, shown: set[str]) -> bool:
    """Whether a group is new, which then has an entry in the legend."""
    new = group not in shown
    shown.add(group)
    return new
