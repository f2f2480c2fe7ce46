"""The measured rates of organisms: one row for each rate, one mark for each organism."""

from collections.abc import Mapping, Sequence
from typing import Any

from plotly.graph_objects import Figure, Scatter

from interp_transfer.plots.style import axis, label, layout, styles


def card_dots(cards: Sequence[Mapping[str, Any]], figures: Sequence[str], title: str = "") -> Figure:
    """The measured rates of several organisms with their 95% intervals.

    Args:
        cards: with "name" and "measured", as organisms carry them.
        figures: names of the measured figures, from top to bottom; an organism without one has no mark there.
        title: above the figure; none if empty.

    Raises:
        ValueError: if no card has any of the figures.
    """
    if not any(figure in card["measured"] for card in cards for figure in figures):
        raise ValueError(f"no card has any of these figures: {', '.join(figures)}")
    names = [str(card["name"]) for card in cards]
    look, step = styles(names), 0.7 / max(len(cards), 1)
    plot = Figure()
    for index, card in enumerate(cards):
        rows = [i for i, figure in enumerate(figures) if figure in card["measured"]]
        rates = [card["measured"][figures[i]] for i in rows]
        plot.add_trace(
            Scatter(
                x=[r["rate"] for r in rates],
                y=[i + (index - (len(cards) - 1) / 2) * step for i in rows],
                error_x={
                    "array": [r["high"] - r["rate"] for r in rates],
                    "arrayminus": [r["rate"] - r["low"] for r in rates],
                    "thickness": 1,
                    "width": 0,
                },
                mode="markers",
                name=label(names[index]),
                marker={"color": look[names[index]].colour, "symbol": look[names[index]].symbol, "size": 8},
                customdata=[f"n {r['n']}, {r['low']:.3f} to {r['high']:.3f}" for r in rates],
                hovertemplate=f"<b>{label(names[index])}</b><br>%{{x:.3f}} (%{{customdata}})<extra></extra>",
            )
        )
    plot.update_layout(**layout(title, 120 + 22 * max(len(cards), 2) * len(figures) // 2 + 20 * len(figures)))
    lines = -(-len(cards) // 2)  # of the legend on a narrow screen; it is below the figure, since the title is above
    plot.update_layout(legend={"y": 0, "yanchor": "bottom"}, margin={"b": 60 + 22 * lines})
    plot.update_xaxes(**axis(range=[-0.02, 1.02], title="share of test prompts", tickformat=".0%"))
    ticks = [label(figure) if len(figure) <= 30 else figure.replace(": ", ":<br>") for figure in figures]
    plot.update_yaxes(**axis(tickvals=list(range(len(figures))), ticktext=ticks, autorange="reversed"))
    return plot
