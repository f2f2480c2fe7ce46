"""What patching found: places by tokens, or senders by receivers."""

import html
from collections.abc import Sequence

from plotly.graph_objects import Figure, Heatmap

from interp_transfer.plots.style import INK, axis, label, layout

_SCALE = [[0.0, "#a23b0b"], [0.5, "#f3f6f9"], [1.0, "#14507f"]]


def patching_map(
    values: Sequence[Sequence[float]],
    places: Sequence[str],
    tokens: Sequence[str],
    title: str = "",
    *,
    columns: str = "token",
    reach: float = 1.0,
) -> Figure:
    """A heat map of shares recovered: 0 pale, ``reach`` blue, below 0 brown.

    Args:
        values: one list for each place, a number for each token; NaN where there is none.
        places: names of the rows, from the input to the output.
        tokens: texts of the columns.
        title: above the figure; none if empty.
        columns: what a column is, for the hover text.
        reach: the share at which colours end.

    Raises:
        ValueError: for an empty or ragged table.
    """
    if not values or any(len(row) != len(tokens) for row in values) or len(values) != len(places):
        raise ValueError("the table of values must have a row for each place and a column for each token")
    text = [["" if value != value else f"{value:z.2f}" for value in row] for row in values]
    figure = Figure(
        Heatmap(
            z=[list(row) for row in values],
            x=list(range(len(tokens))),
            y=[html.escape(place, quote=False) for place in places],
            text=text if len(tokens) <= 16 else None,
            texttemplate="%{text}" if len(tokens) <= 16 else None,
            customdata=[[label(token) for token in tokens] for _ in places],
            hovertemplate=f"<b>%{{y}}</b>, {columns} \u201c%{{customdata}}\u201d<br>recovered %{{z:.3f}}<extra></extra>",
            zmin=-reach,
            zmax=reach,
            colorscale=_SCALE,
            colorbar={"thickness": 10, "outlinewidth": 0, "tickfont": {"color": INK}},
            xgap=1,
            ygap=1,
        )
    )
    figure.update_layout(**layout(title, 160 + 26 * len(places)))
    figure.update_xaxes(
        **axis(tickvals=list(range(len(tokens))), ticktext=[label(repr(token)[1:-1]) for token in tokens], showgrid=False)
    )
    figure.update_yaxes(**axis(showgrid=False))
    return figure
