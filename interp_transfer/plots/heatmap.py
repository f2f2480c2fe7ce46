"""Heat maps with their numbers in the cells: layers by layers, and patched places by tokens."""

from collections.abc import Sequence
from typing import Any

from plotly.graph_objects import Figure, Heatmap

from interp_transfer.plots.style import INK, axis, figure_text, label, layout

SHARES = [[0.0, "#f3f6f9"], [0.5, "#7fb2dd"], [1.0, "#14507f"]]
"""Colours of values from 0 to 1."""
SIGNED = [[0.0, "#a23b0b"], [0.5, "#f3f6f9"], [1.0, "#14507f"]]
"""Colours of values around 0."""
MOST_WRITTEN = 16
"""Largest number of columns whose cells still have room for their numbers."""


def layer_heatmap(
    values: Sequence[Sequence[float]],
    rows: str,
    columns: str,
    title: str = "",
    meaning: str = "CKA",
    row_names: Sequence[str] | None = None,
    column_names: Sequence[str] | None = None,
) -> Figure:
    """A heat map over the blocks of two models, values in [0, 1], written into the cells.

    Args:
        values: one list for each block of the first model; NaN where there is none.
        rows: name of the first model.
        columns: name of the second model.
        title: above the figure; none if empty.
        meaning: what the values are, for the hover text.
        row_names: of the blocks of the first model; default: their numbers from 0.
        column_names: the same for the second model.

    Raises:
        ValueError: for an empty or ragged table.
    """
    if not values or not values[0] or len({len(row) for row in values}) > 1:
        raise ValueError("the table of values must be rectangular and not empty")
    cells = heat_cells(
        values,
        [["" if value != value else f"{value:.2f}" for value in row] for row in values],
        SHARES,
        x=None if column_names is None else list(map(figure_text, column_names)),
        y=None if row_names is None else list(map(figure_text, row_names)),
        zmin=0,
        zmax=1,
        hovertemplate=f"block %{{y}} and block %{{x}}<br>{meaning} %{{z:.3f}}<extra></extra>",
    )
    figure = Figure(cells)
    figure.update_layout(**layout(title, 120 + 44 * len(values)))
    kind = {"tickmode": "linear"} if row_names is None and column_names is None else {"type": "category"}
    figure.update_xaxes(**axis(title=f"block of {label(columns)}", **kind, showgrid=False))
    figure.update_yaxes(**axis(title=f"block of {label(rows)}", **kind, showgrid=False, autorange="reversed"))
    return figure


def patching_map(
    values: Sequence[Sequence[float]],
    places: Sequence[str],
    tokens: Sequence[str],
    title: str = "",
    *,
    columns: str = "token",
    reach: float = 1.0,
) -> Figure:
    """A heat map of the shares that patching recovers: 0 pale, ``reach`` blue, below 0 brown.

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
    cells = heat_cells(
        values,
        text if len(tokens) <= MOST_WRITTEN else None,
        SIGNED,
        x=list(range(len(tokens))),
        y=[figure_text(place) for place in places],
        customdata=[[label(token) for token in tokens] for _ in places],
        hovertemplate=f"<b>%{{y}}</b>, {columns} \u201c%{{customdata}}\u201d<br>recovered %{{z:.3f}}<extra></extra>",
        zmin=-reach,
        zmax=reach,
    )
    figure = Figure(cells)
    figure.update_layout(**layout(title, 160 + 26 * len(places)))
    ticks = [label(repr(token)[1:-1]) for token in tokens]
    figure.update_xaxes(**axis(tickvals=list(range(len(tokens))), ticktext=ticks, showgrid=False))
    figure.update_yaxes(**axis(showgrid=False))
    return figure


def heat_cells(
    values: Sequence[Sequence[float | None]],
    text: Sequence[Sequence[str]] | None,
    colours: list[list[Any]],
    *,
    gap: int = 1,
    **options: Any,
) -> Heatmap:
    """The trace of a heat map.

    Args:
        values: by row and column.
        text: written into the cells; nothing unless given.
        colours: of the values, SHARES or SIGNED.
        gap: between cells, in pixels.
        options: further options of ``plotly.graph_objects.Heatmap``.
    """
    return Heatmap(
        z=[list(row) for row in values],
        text=text,
        texttemplate="%{text}" if text else None,
        colorscale=colours,
        colorbar={"thickness": 10, "outlinewidth": 0, "tickfont": {"color": INK}},
        xgap=gap,
        ygap=gap,
        **options,
    )
