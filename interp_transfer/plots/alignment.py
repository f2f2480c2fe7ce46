"""Two tokenizers' tokens over the same text, and which are paired."""

from collections.abc import Sequence

from plotly.graph_objects import Figure, Scatter

from interp_transfer.plots.style import INK, label, layout

_SOURCE, _TARGET, _NONE = "#2a80c9", "#dd5f1e", "#8b929a"
_LINE = 100
"""Characters in a line; a longer text is broken."""


def aligned_tokens(
    text: str,
    source: Sequence[tuple[str, int]],
    target: Sequence[tuple[str, int]],
    links: Sequence[tuple[int, int]],
    names: tuple[str, str] = ("source", "target"),
) -> Figure:
    """The source's tokens above, the target's below, each drawn where it ends in the text, and a line for every pair.

    Args:
        text: the text that both tokenizers read.
        source: for each token of the source its text, and the character of the text at which it ends; or any column that
            tokens of both models share.
        target: the same for the target.
        links: pairs of a source token and a target token, by number.
        names: of the two models.

    Raises:
        ValueError: for a link to a token that does not exist.
    """
    for one, other in links:
        if not (0 <= one < len(source) and 0 <= other < len(target)):
            raise ValueError(f"a link joins token {one} with token {other}, of {len(source)} and {len(target)}")
    length = max([len(text), *(end for _, end in (*source, *target))])
    lines = max(1, -(-(length + 1) // _LINE))
    figure = Figure()
    x, y = [], []
    for one, other in links:
        for place in (_place(source[one][1], 0), _place(target[other][1], 1)):
            x.append(place[0])
            y.append(place[1])
        x.append(None)
        y.append(None)
    figure.add_trace(Scatter(x=x, y=y, mode="lines", line={"color": _NONE, "width": 1}, hoverinfo="skip", showlegend=False))
    paired = ({one for one, _ in links}, {other for _, other in links})
    for side, (tokens, colour, name) in enumerate(((source, _SOURCE, names[0]), (target, _TARGET, names[1]))):
        places = [_place(end, side) for _, end in tokens]
        figure.add_trace(
            Scatter(
                x=[place[0] for place in places],
                y=[place[1] for place in places],
                mode="markers+text",
                text=[label(_shown(piece)) for piece, _ in tokens],
                textposition="top left" if side == 0 else "bottom left",  # over its characters
                textfont={"color": INK, "size": 11},
                marker={
                    "color": colour,
                    "symbol": ["circle" if i in paired[side] else "circle-open" for i in range(len(tokens))],
                    "size": 7,
                },
                customdata=[[label(_shown(piece)), end] for piece, end in tokens],
                hovertemplate=f"{label(name)}: %{{customdata[0]}}<br>has read %{{customdata[1]}} characters<extra></extra>",
                name=label(name),
            )
        )
    figure.update_layout(**layout("", 80 + 130 * lines))
    first = -10 if any(end == 0 for _, end in (*source, *target)) else -3  # room for special tokens before the text
    figure.update_xaxes(visible=False, range=[first, min(length, _LINE) + 3])
    figure.update_yaxes(visible=False, range=[-2.6 * lines + 0.4, 0.9])
    return figure


def _place(end: int, side: int) -> tuple[float, float]:
    line, column = divmod(end - 1, _LINE) if end else (0, -1)
    return float(column), -2.6 * line - side


def _shown(piece: str) -> str:
    return piece.replace("Ġ", "␣").replace("▁", "␣").replace("Ċ", "⏎").replace("\n", "⏎")
