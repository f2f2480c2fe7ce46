"""Make the picture of the page on mapping that shows time and memory over the number of pairs: `python docs/moments.py`.

It draws what `python -m benchmarks mapping-moments` measured last and left in benchmarks/moments.json (needs chromium).
"""

import json
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp_transfer.paper.tables import write_picture
from interp_transfer.plots.style import FAINT, INK, axis, layout

POINTS = Path(__file__).parent.parent / "benchmarks" / "moments.json"
OURS, BARE = "#dd5f1e", "#2a80c9"


def main() -> None:
    """Write docs/made/moments.png."""
    figure = scale(json.loads(POINTS.read_text())).update_layout(width=900, height=400)
    write_picture(figure, Path(__file__).parent / "made" / "moments.png")


def scale(points: list[dict[str, Any]]) -> go.Figure:
    """CPU seconds, and anonymous memory, over pairs."""
    titles = "CPU time, s", "anonymous memory, MB"
    figure = make_subplots(cols=2, subplot_titles=titles, horizontal_spacing=0.1)
    pairs = [p["pairs"] for p in points]
    linear = [points[-1]["bare_seconds"] / 2 * n / pairs[-1] for n in pairs]  # below the others, to be seen
    line(figure, 1, pairs, linear, "proportional to pairs", FAINT, "lines", "dash")
    line(figure, 1, pairs, [p["bare_seconds"] for p in points], "bare products", BARE)
    line(figure, 1, pairs, [p["seconds"] for p in points], "moments", OURS)
    line(figure, 2, pairs, [p["matrices"] / 1e6 for p in points], "the moment matrices alone", INK, "lines", "dot")
    line(figure, 2, pairs, [p["peak"] / 1e6 for p in points], "moments", OURS, shown=False)
    figure.update_layout(**layout("Moments of pairs of 896 and 1536 dimensions", 400))
    figure.update_layout(margin={"l": 60, "r": 20, "t": 100, "b": 64})
    figure.update_xaxes(**axis(type="log", title="pairs", dtick=1))
    figure.update_yaxes(**axis(type="log", dtick=1), col=1)
    figure.update_yaxes(**axis(range=[0, 1.2 * max(p["peak"] for p in points) / 1e6]), col=2)
    return figure


def line(
    figure: go.Figure,
    column: int,
    x: list[float],
    y: list[float],
    name: str,
    colour: str,
    mode: str = "lines+markers",
    dash: str = "solid",
    shown: bool = True,
) -> None:
    """One line of a panel."""
    style = {"color": colour, "dash": dash}
    figure.add_scatter(x=x, y=y, name=name, mode=mode, line=style, showlegend=shown, row=1, col=column)


if __name__ == "__main__":
    main()
