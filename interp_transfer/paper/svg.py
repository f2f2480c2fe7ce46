"""The figures of the page of results as SVG: text that is the same on every machine, drawn without a browser.

Each has a background of its own, so it is legible on light and dark pages. What differs in colour differs in its marker too.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from interp_transfer.escape import one_line
from interp_transfer.paper.charts import Chart, Curves, Dots, Headline
from interp_transfer.plots.style import FAINT, FONT, GRID, INK, Style, styles
from interp_transfer.stats import Estimate

WIDTH = 760
EDGE, LABELS = 14, 240
"""Free space around a figure, and the width of names on its left."""
LEGEND, ROW, GAP = 20, 9, 15
"""Height of a line of the legend and of a dot, and space between two cases."""
PANEL = 130
"""Height of a panel of curves."""
QUIET = "#5b626b"
"""Colour of what explains a figure."""
LETTER = 0.54
"""Width of a letter of average text, as a share of its size."""
VERDICTS = {
    "yes": ("agrees", Style("#1f6fb2", "circle", "solid")),
    "in part": ("agrees in part", Style("#b07400", "diamond", "solid")),
    "no": ("does not agree", Style("#b3362c", "x", "solid")),
    "cannot tell": ("cannot tell", Style("#6a6f76", "hexagon", "solid")),
    "not measured": ("not measured", Style("#6a6f76", "hexagon", "solid")),
}
"""Words, colour and marker of a verdict."""
_SHAPES = {
    "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "diamond": ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
    "triangle-up": ((0, -1.3), (1.2, 0.9), (-1.2, 0.9)),
    "triangle-down": ((0, 1.3), (1.2, -0.9), (-1.2, -0.9)),
    "triangle-left": ((-1.3, 0), (0.9, -1.2), (0.9, 1.2)),
    "hexagon": ((-0.6, -1.1), (0.6, -1.1), (1.2, 0), (0.6, 1.1), (-0.6, 1.1), (-1.2, 0)),
    "pentagon": ((0, -1.3), (1.2, -0.4), (0.8, 1.1), (-0.8, 1.1), (-1.2, -0.4)),
    "star": ((0, -1.5), (0.4, -0.4), (1.5, -0.4), (0.6, 0.3), (0.9, 1.4), (0, 0.7), (-0.9, 1.4), (-0.6, 0.3), (-1.5, -0.4),
             (-0.4, -0.4)),
    "bowtie": ((-1.3, -1), (1.3, 1), (1.3, -1), (-1.3, 1)),
}  # fmt: skip
_STROKES = {"x": "M{a} {b}L{c} {d}M{a} {d}L{c} {b}", "cross": "M{x} {b}L{x} {d}M{a} {y}L{c} {y}"}
_DASHES = {"dot": "2 3", "dash": "6 4", "dashdot": "6 3 2 3"}


class Claim(NamedTuple):
    """A claim of the paper in the figure of all claims.

    Attributes:
        title: of the experiment.
        agrees: word of the verdict.
        headline: our numbers.
        reported: the paper's number for each of them, or None.
    """

    title: str
    agrees: str
    headline: Headline
    reported: Sequence[float | None]


def forest(claims: Sequence[Claim], alt: str) -> str:
    """All claims below each other: our numbers with intervals, the paper's own, and the verdict."""
    names = LABELS + 60
    left, right, top = EDGE + names + 8, WIDTH - EDGE - 118, EDGE + 34.0
    y, parts = top, []
    for claim in claims:
        lines, count = _wrapped(claim.title, names, 13.5), len(claim.headline.lines)
        height = max(20 + 15 * len(lines), 10 * count + 8)
        words, look = VERDICTS[claim.agrees]
        parts.append(f'<path d="M{EDGE} {y:g}H{WIDTH - EDGE}" stroke="{GRID}"/>')
        parts += [_text(EDGE, y + 14 + 15 * k, line, weight=600) for k, line in enumerate(lines)]
        about = f"{claim.headline.measure}; tick: {claim.headline.beside}"
        parts.append(_text(EDGE, y + 12 + 15 * len(lines), about, size=10.5, colour=QUIET, width=names + 12))
        for k, (line, reported) in enumerate(zip(claim.headline.lines, claim.reported, strict=True)):
            at = y + height / 2 + 10 * (k - (count - 1) / 2)
            parts.append(_tick(float(_x(line.beside, left, right)), at))
            parts.append(_interval(line.value, at, left, right, look))
            if reported is not None:
                parts.append(_paper(float(_x(reported, left, right)), at))
        parts.append(_marker(look.symbol, right + 22, y + height / 2, 4.5, look.colour))
        parts.append(_text(right + 32, y + height / 2 + 4, words, size=11.5))
        y += height
    key = EDGE + 10
    legend = [_marker("circle", EDGE + 6, key, 4, INK), _text(EDGE + 16, key + 4, "ours, with its 95% interval", size=12)]
    legend += [_paper(220, key), _text(230, key + 4, "the paper", size=12)]
    legend += [_tick(312, key), _text(320, key + 4, "what ours is compared with", size=12)]
    legend += [_text(512, key + 4, "Colour and shape: our verdict", size=12)]
    return _figure([*legend, _grid(left, right, top, y), *parts], y + 24, alt, _scale(left, right, y))


def draw(chart: Chart, alt: str) -> str:
    """The figure of one experiment."""
    return _dots(chart, alt) if isinstance(chart, Dots) else _curves(chart, alt)


def _looks(names: Sequence[str]) -> dict[str, Style]:
    return styles(dict.fromkeys(names))


def _dots(chart: Dots, alt: str) -> str:
    names = list(dict.fromkeys(name for case in chart.cases.values() for name in case))
    looks, left, right = _looks(names), EDGE + LABELS, WIDTH - EDGE - 14
    parts, top = _legend(names, looks)
    y = top + 6.0
    for case, numbers in chart.cases.items():
        height = max(GAP + 4, ROW * len(numbers)) + GAP
        parts.append(f'<path d="M{EDGE} {y:g}H{WIDTH - EDGE}" stroke="{GRID}"/>')
        lines = _wrapped(case, LABELS - 10)
        parts += [_text(EDGE, y + height / 2 + 4 + 14 * (k - (len(lines) - 1) / 2), line) for k, line in enumerate(lines)]
        for k, (name, one) in enumerate(numbers.items()):
            parts.append(_interval(one, y + height / 2 + ROW * (k - (len(numbers) - 1) / 2), left, right, looks[name]))
        y += height
    return _figure([_grid(left, right, top + 6, y), *parts], y + 44, alt, _scale(left, right, y, chart.axis))


def _curves(chart: Curves, alt: str) -> str:
    names = list(dict.fromkeys(name for case in chart.cases.values() for name in case))
    looks = _looks(names)
    parts, top = _legend(names, looks)
    columns = min(len(chart.cases), 2 if len(chart.cases) in (2, 4) else 3)
    width = (WIDTH - 2 * EDGE) / columns
    for i, (case, lines) in enumerate(chart.cases.items()):
        x0, y0 = EDGE + width * (i % columns), top + 24 + (PANEL + 64) * (i // columns)
        left, right, low = x0 + 40, x0 + width - 18, y0 + 20 + PANEL
        parts.append(_text(x0, y0 + 10, case, weight=600, width=width - 10))
        for share in (0, 0.5, 1):
            level = low - share * PANEL
            parts.append(f'<path d="M{left:g} {level:g}H{right:g}" stroke="{GRID}"/>')
            parts.append(_text(left - 6, level + 4, f"{share:.0%}", size=11, anchor="end"))
        places = list(dict.fromkeys(place for points in lines.values() for place, _ in points))
        xs = {place: left + 14 + (right - left - 28) * k / max(1, len(places) - 1) for k, place in enumerate(places)}
        parts += [_text(x, low + 15, place, size=11, anchor="middle") for place, x in xs.items()]
        parts.append(_text((left + right) / 2, low + 30, chart.x, size=11, anchor="middle", colour=QUIET))
        for name, points in lines.items():
            parts.append(_line(looks[name], [(xs[place], one) for place, one in points], low))
    rows = -(-len(chart.cases) // columns)
    return _figure([*parts, _text(EDGE, top + 8, chart.axis, size=11, colour=QUIET)], top + 24 + (PANEL + 64) * rows, alt)


def _line(look: Style, points: Sequence[tuple[float, Estimate]], low: float | int) -> str:
    at = [(x, low - PANEL * _inside(one.value), one) for x, one in points]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in at)
    dash = f' stroke-dasharray="{_DASHES[look.dash]}"' if look.dash in _DASHES else ""
    parts = [f'<path d="M{path}" fill="none" stroke="{look.colour}" stroke-width="1.8"{dash}/>']
    for x, y, one in at:
        ends = [low - PANEL * _inside(end) for end in (one.low, one.high)]
        parts.append(f'<path d="M{x:.1f} {ends[0]:.1f}V{ends[1]:.1f}" stroke="{look.colour}" stroke-width="1.2"/>')
        parts.append(_marker(look.symbol, x, y, 3.6, look.colour, title=_number(one)))
    return "".join(parts)


def _interval(one: Estimate, y: float | int, left: float | int, right: float | int, look: Style) -> str:
    low, high = (_x(end, left, right) for end in (one.low, one.high))
    line = f'<path d="M{low} {y:g}H{high}" stroke="{look.colour}" stroke-width="1.6"/>'
    return line + _marker(look.symbol, float(_x(one.value, left, right)), y, 3.6, look.colour, title=_number(one))


def _number(one: Estimate) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}], n = {one.n}"


def _tick(x: float | int, y: float | int) -> str:
    return f'<path d="M{x:.1f} {y - 4.5:.1f}v9" stroke="{FAINT}" stroke-width="2"/>'


def _paper(x: float | int, y: float | int) -> str:
    return f'<path d="M{x:.1f} {y + 5:.1f}l-5.5 -9.5h11z" fill="none" stroke="#111" stroke-width="1.5"/>'


def _inside(share: float | int) -> float:
    return min(1.0, max(0.0, share))


def _x(share: float | int, left: float | int, right: float | int) -> str:
    return f"{left + _inside(share) * (right - left):.1f}"


def _grid(left: float | int, right: float | int, top: float | int, bottom: float | int) -> str:
    lines = "".join(f"M{_x(share, left, right)} {top:g}V{bottom:g}" for share in (0, 0.25, 0.5, 0.75, 1))
    return f'<path d="{lines}" stroke="{GRID}"/>'


def _scale(left: float | int, right: float | int, y: float | int, title: str = "") -> list[str]:
    marks = [_text(float(_x(v, left, right)), y + 16, f"{v:.0%}", size=11, anchor="middle") for v in (0, 0.25, 0.5, 0.75, 1)]
    return [*marks, _text((left + right) / 2, y + 32, title, size=11, anchor="middle", colour=QUIET)] if title else marks


def _legend(names: Sequence[str], looks: Mapping[str, Style]) -> tuple[list[str], float]:
    """The names with their markers, in as many lines as they need, and the height that they end at."""
    parts, x, y = [], float(EDGE), EDGE + 8.0
    for name in names:
        shown = name.replace("_", " ")
        wide = 30 + LETTER * 12 * len(shown)
        if x > EDGE and x + wide > WIDTH - EDGE:
            x, y = float(EDGE), y + LEGEND
        parts.append(_marker(looks[name].symbol, x + 6, y, 4, looks[name].colour))
        parts.append(_text(x + 15, y + 4, shown, size=12))
        x += wide
    return parts, y + 14


def _marker(symbol: str, x: float | int, y: float | int, r: float | int, colour: str, *, title: str = "") -> str:
    inside = f"<title>{escape(title)}</title>" if title else ""
    if symbol in _STROKES:
        ends = {"a": x - r, "b": y - r, "c": x + r, "d": y + r, "x": x, "y": y}
        path = _STROKES[symbol].format(**{name: f"{v:.1f}" for name, v in ends.items()})
        return f'<path d="{path}" stroke="{colour}" stroke-width="2.2">{inside}</path>'
    if symbol in _SHAPES:
        points = " ".join(f"{x + r * a:.1f},{y + r * b:.1f}" for a, b in _SHAPES[symbol])
        return f'<polygon points="{points}" fill="{colour}">{inside}</polygon>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:g}" fill="{colour}">{inside}</circle>'


def _text(
    x: float | int,
    y: float | int,
    text: str,
    *,
    size: float | int = 12.5,
    anchor: str = "start",
    colour: str = INK,
    weight: int = 400,
    width: float | int = WIDTH,
) -> str:
    most = int(width / (LETTER * size))
    line = one_line(text)
    line = line if len(line) <= most else f"{line[: most - 1]}\u2026"
    look = f'font-size="{size:g}" fill="{colour}"' + (f' font-weight="{weight}"' if weight != 400 else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {look}>{escape(line, quote=False)}</text>'


def _wrapped(text: str, width: float | int, size: float | int = 12.5) -> list[str]:
    """A name in at most three lines."""
    most, lines = int(width / (LETTER * size)), [""]
    for word in one_line(text).split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > most:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [line if len(line) <= most else f"{line[: most - 1]}\u2026" for line in lines[:3]]


def _figure(parts: Sequence[str], height: float | int, alt: str, more: Sequence[str] = ()) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        f'role="img" aria-label="{escape(one_line(alt))}" font-family="{escape(FONT)}">'
    )
    background = f'<rect width="{WIDTH}" height="{height:g}" rx="8" fill="#fff"/>'
    return "\n".join([head, background, *(part for part in (*parts, *more) if part), "</svg>", ""])
