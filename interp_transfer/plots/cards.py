"""How models, vectors, maps and tasks draw themselves in a notebook: their text and a small SVG, without scripts."""

import html
import math
from collections.abc import Mapping, Sequence

from interp_transfer.escape import one_line, visible
from interp_transfer.plots.tokens import NEGATIVE, POSITIVE

Number = float | int
WIDTH, BINS = 360, 40
COLOURS = (f"rgb({POSITIVE})", f"rgb({NEGATIVE})")
_FAINT = "rgba(128, 128, 128, 0.35)"
_CELL = "text-align: left; vertical-align: top; overflow-wrap: anywhere; padding: 0 1em .3em 0"


def card(text: str, drawing: str = "") -> str:
    """An object's text, as it prints itself, above its drawing.

    Args:
        text: of any origin.
        drawing: HTML, from a function of this module.
    """
    body = f'<div style="white-space: pre-wrap; overflow-wrap: anywhere">{html.escape(visible(text))}</div>'
    return f'<div class="tex2jax_ignore mathjax_ignore" style="max-width: 60em">{body}{drawing}</div>'


def histogram(sides: Mapping[str, Sequence[Number]]) -> str:
    """The distribution of one or two sets of numbers, over one axis; nothing for numbers that are not finite."""
    sides = {name: [value for value in values if math.isfinite(value)] for name, values in sides.items()}
    if not all(sides.values()):
        return ""
    low, high = min(map(min, sides.values())), max(map(max, sides.values()))
    step = (high - low) / BINS or 1.0
    counts = {name: [0] * BINS for name in sides}
    for name, values in sides.items():
        for value in values:
            counts[name][min(BINS - 1, int((value - low) / step))] += 1
    tallest = max(max(count) / len(sides[name]) for name, count in counts.items())
    bars, width = [], WIDTH / BINS
    for (name, count), colour in zip(counts.items(), COLOURS, strict=False):
        for k, number in enumerate(count):
            if number:
                tall = 60 * number / len(sides[name]) / tallest
                place = f'x="{k * width:.1f}" y="{60 - tall:.1f}" width="{width:.1f}" height="{tall:.1f}"'
                bars.append(f'<rect {place} fill="{colour}" fill-opacity="0.6"/>')
    ends = _label(0, 76, f"{low:.3g}") + _label(WIDTH, 76, f"{high:.3g}", "end")
    return _svg(80, "".join(bars) + ends, f"distribution of {' and '.join(sides)}") + _legend(sides)


def shares(parts: Mapping[str, tuple[Number, Number]]) -> str:
    """A bar for each part of how much of the whole it holds, as (part, whole)."""
    rows = []
    for k, (name, (part, whole)) in enumerate(parts.items()):
        share, y = (part / whole if whole else 0.0), 22 * k
        rows.append(f'<rect x="170" y="{y}" width="130" height="14" fill="{_FAINT}"/>')
        rows.append(f'<rect x="170" y="{y}" width="{130 * min(max(share, 0.0), 1.0):.1f}" height="14" fill="{COLOURS[1]}"/>')
        rows.append(_label(0, y + 12, name) + _label(306, y + 12, f"{share:.1%}"))
    return _svg(22 * len(parts), "".join(rows), "; ".join(f"{name} {p} of {w}" for name, (p, w) in parts.items()))


def blocks(number: int, marked: Sequence[int] = (), *, more: bool = False) -> str:
    """The blocks of a model as boxes in a row.

    Args:
        number: of blocks.
        marked: those that are coloured.
        more: whether the model goes on after them.
    """
    width = min(24.0, (WIDTH - 24) / number)
    boxes = "".join(
        f'<rect x="{k * width + 1:.1f}" y="1" width="{width - 2:.1f}" height="20" '
        f'fill="{COLOURS[0] if k in marked else _FAINT}"><title>block {k}</title></rect>'
        for k in range(number)
    )
    labels = {0, number - 1, *marked} if number > 1 else {0}
    names = "".join(_label((k + 0.5) * width, 34, str(k), "middle") for k in sorted(labels))
    rest = _label(number * width + 4, 15, "\u2026") if more else ""
    at = f", {', '.join(map(str, marked))} marked" if marked else ""
    return _svg(38, boxes + names + rest, f"{number} blocks{at}")


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Texts side by side."""
    head = "".join(f'<th scope="col" style="{_CELL}">{html.escape(one_line(each))}</th>' for each in heads)
    body = "".join(
        f'<tr>{"".join(f"""<td dir="auto" style="{_CELL}">{html.escape(one_line(cell))}</td>""" for cell in row)}</tr>'
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _svg(height: int, body: str, says: str) -> str:
    box = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    font = 'font-family="system-ui, sans-serif" font-size="11" fill="currentColor"'
    return f'<svg {box} role="img" aria-label="{html.escape(one_line(says))}" {font} style="max-width: 100%">{body}</svg>'


def _label(x: Number, y: Number, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(one_line(text))}</text>'


def _legend(names: Mapping[str, Sequence[Number]]) -> str:
    marks = (
        f'<span style="color: {colour}">\u25a0</span> {html.escape(one_line(name))} (n = {len(values)})'
        for (name, values), colour in zip(names.items(), COLOURS, strict=False)
    )
    return f"<div>{' &nbsp; '.join(marks)}</div>"
