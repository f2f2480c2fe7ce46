"""One look for all figures: the same condition has the same colour, marker and line everywhere.

The hues are Okabe and Ito's, which people with any of the common colour deficiencies can tell apart, each at a lightness that
is legible on white and on near-black. Marker and dash differ as well, so no difference rests on colour alone. Backgrounds are
transparent, and a page may replace the colours of text and grid.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plotly.graph_objects import Figure

from interp_transfer.escape import one_line

INK = "#444b54"
FAINT = "#8b929a"
"""Legible on white and on near-black alike."""
GRID = "#d9dde2"
LONGEST, WIDEST = 30, 120
"""Characters of a name in a figure, and of a title."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


@dataclass(frozen=True)
class Style:
    """How a condition is drawn.

    Attributes:
        colour: as "#rrggbb".
        symbol: plotly's name of the marker.
        dash: plotly's name of the line.
    """

    colour: str
    symbol: str
    dash: str

    def pale(self, alpha: float) -> str:
        """The colour with an opacity: 0 is invisible, 1 is solid."""
        red, green, blue = (int(self.colour[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({red}, {green}, {blue}, {alpha:g})"


_KNOWN = {
    "unsteered": Style("#858b93", "circle", "dot"),
    "system_prompt": Style("#444c9c", "star", "dashdot"),
    "native": Style("#2a80c9", "square", "solid"),
    "moved": Style("#dd5f1e", "circle", "solid"),
    "random": Style("#b968a0", "x", "dot"),
    "random_in_span": Style("#8a5fb0", "x", "dashdot"),
    "wrong_contrast": Style("#a1673f", "hexagon", "dash"),
    "shuffled": Style("#12946c", "diamond", "dash"),
    "shuffled_within_text": Style("#5f9e3c", "diamond", "dot"),
    "untrained": Style("#7a7f3a", "triangle-down", "dot"),
    "mean_ablated": Style("#b58900", "cross", "dash"),
    "forced_first_token": Style("#6f6bd1", "triangle-up", "dashdot"),
}
_SPARE = (
    Style("#2c9aa8", "star", "solid"),
    Style("#a1673f", "hexagon", "dash"),
    Style("#7f9130", "triangle-down", "dashdot"),
    Style("#c2506b", "pentagon", "dot"),
    Style("#5b74c4", "triangle-left", "solid"),
    Style("#8a8a3a", "bowtie", "dash"),
)


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A style for each name: its own for the usual conditions, else a spare one, in turn."""
    out: dict[str, Style] = {}
    spare = 0
    for name in names:
        if (known := name.replace(" ", "_")) in _KNOWN:
            out[name] = _KNOWN[known]
        elif name not in out:
            out[name] = _SPARE[spare % len(_SPARE)]
            spare += 1
    return out


GLYPHS = {
    "circle": "\u25cf", "square": "\u25a0", "x": "\u2716", "diamond": "\u25c6", "cross": "\u271a", "star": "\u2605",
    "hexagon": "\u2b22", "pentagon": "\u2b1f", "triangle-up": "\u25b2", "triangle-down": "\u25bc",
    "triangle-left": "\u25c0", "bowtie": "\u29d3",
}  # fmt: skip
"""Plotly's markers as characters."""


def glyph(style: Style) -> str:
    """A condition's marker as a character, for pages."""
    return GLYPHS[style.symbol]


def label(name: str) -> str:
    """A condition's name for reading, not too long for a figure."""
    return figure_text(name.replace("_", " "), LONGEST)


def figure_text(foreign: str, longest: int = WIDEST) -> str:
    """A text as a figure shows it: nothing invisible, and no HTML, template or formula, of which plotly reads some."""
    line = one_line(foreign)
    cut = line if len(line) <= longest else f"{line[: longest - 1]}\u2026"
    return html.escape(cut, quote=False).replace("%{", "&#37;{").replace("$", "&#36;")


def percent(share: float) -> str:
    """``0.935`` as "93.5%"; never rounded up to a round hundred."""
    return f"{100 * share:.1f}".removesuffix(".0") + "%"


def layout(title: str, height: int) -> dict[str, Any]:
    """Layout that all figures share; side margins are small, for narrow screens."""
    return {
        "title": {"text": figure_text(title), "x": 0, "xref": "paper", "font": {"size": 16}},
        "height": height,
        "template": "none",
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "margin": {"l": 8, "r": 12, "t": 76 if title else 44, "b": 44},
        "legend": {"orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top"},
        "dragmode": False,
        "modebar": {"bgcolor": "rgba(0, 0, 0, 0)", "color": FAINT, "activecolor": INK},
        "hoverlabel": {"font": {"family": FONT}, "align": "left"},
    }


def untitled(figure: Figure, top: int) -> Figure:
    """Return a figure without its title, for pages whose heading says the same.

    Args:
        figure: it is changed.
        top: new margin above it, in pixels.
    """
    height, margin = figure.layout.height, figure.layout.margin.t  # pyright: ignore[reportAttributeAccessIssue]
    return figure.update_layout(title_text="", margin_t=top, height=height - margin + top)


def axis(**changes: Any) -> dict[str, Any]:
    """An axis with a faint grid, with margins that fit its labels."""
    return {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "automargin": True, "fixedrange": True, **changes}


RATES = axis(range=[-0.03, 1.03], tickformat=".0%", tickvals=[0, 0.5, 1])
"""An axis of shares."""


def curve(name: str, style: Style, hover: Sequence[str], opacity: float = 1.0) -> dict[str, Any]:
    """Options of the plotly line of a condition, with a marker and a text at each point; thinner if it is pale."""
    solid = opacity == 1
    return {
        "name": label(name),
        "legendgroup": name,
        "opacity": opacity,
        "mode": "lines+markers",
        "line": {"color": style.colour, "width": 2 if solid else 1.2, "dash": style.dash},
        "marker": {"color": style.colour, "size": 8 if solid else 5, "symbol": style.symbol},
        "customdata": hover,
        "hovertemplate": f"<b>{label(name)}</b><br>%{{customdata}}<extra></extra>",
    }


def shares(row: Mapping[str, Any]) -> str:
    """Success and intact of a row of result.json, with their intervals and n, a line each."""
    return "<br>".join(
        f"{m} {percent(row[m]['rate'])} ({percent(row[m]['low'])} to {percent(row[m]['high'])}), n = {row[m]['n']}"
        for m in ("success", "intact")
    )
