"""A number for every pair of layers."""

from collections.abc import Sequence

from plotly.graph_objects import Figure, Heatmap

from interp_transfer.plots.style import INK, axis, label, layout

_SCALE = ((0.0, "#f3f6f9"), (0.5, "#7fb2dd"), (1.0, "#14507f"))


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
        columns: name of the second.
        title: above the figure; none if empty.
        meaning: what the values are, for the hover text.
        row_names: of the blocks of the first model; counted from 0 unless given.
        column_names: of the second's.

    Raises:
        ValueError: for an empty or ragged table.
    """
    if not values or not values[0] or len({len(row) for row in values}) > 1:
        raise ValueError("the table of values must be rectangular and not empty")
    text = [["" if value != value else f"{value:.2f}" for value in row] for row in values]
    figure = Figure(
        Heatmap(
            z=[list(row) for row in values],
            x=None if column_names is None else list(column_names),
            y=None if row_names is None else list(row_names),
            text=text,
            texttemplate="%{text}",
            zmin=0,
            zmax=1,
            colorscale=[list(pair) for pair in _SCALE],
            colorbar={"thickness": 10, "outlinewidth": 0, "tickfont": {"color": INK}},
            hovertemplate=f"block %{{y}} and block %{{x}}<br>{meaning} %{{z:.3f}}<extra></extra>",
            xgap=1,
            ygap=1,
        )
    )
    figure.update_layout(**layout(title, 120 + 44 * len(values)))
    kind = {"tickmode": "linear"} if row_names is None and column_names is None else {"type": "category"}
    figure.update_xaxes(**axis(title=f"block of {label(columns)}", **kind, showgrid=False))
    figure.update_yaxes(**axis(title=f"block of {label(rows)}", **kind, showgrid=False, autorange="reversed"))
    return figure
