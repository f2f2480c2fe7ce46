"""A small histogram as inline SVG, for pages and notebooks that should not carry a plotting library."""

from collections.abc import Sequence

WIDTH, HEIGHT, BASE = 320, 96, 18
"""Of the drawing; ``BASE`` is what the labels below the bars take."""


def histogram_svg(counts: Sequence[int], edges: Sequence[float], colour: str = "currentColor") -> str:
    """Bars from the first edge to the last, with the outer edges and the largest count written beside them.

    Args:
        counts: one for each bar; the bars are of one width.
        edges: one more than counts.
        colour: of the bars, as CSS has it.

    Raises:
        ValueError: when there is not one edge more than counts, unless both are empty.
    """
    if len(edges) != len(counts) + 1 and (counts or edges):
        raise ValueError(f"{len(counts)} counts between {len(edges)} edges: give one edge more than counts")
    if not counts:
        return ""
    most, step = max(max(counts), 1), WIDTH / len(counts)
    bars = "".join(_bar(k * step, step, count / most) for k, count in enumerate(counts))
    about = f"{sum(counts)} activations from {edges[0]:.3g} to {edges[-1]:.3g}, at most {most} in one of {len(counts)} bars"
    text = f'font-size="11" fill="currentColor" opacity=".75" y="{HEIGHT - 4}"'
    return (
        f'<svg role="img" aria-label="{about}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
        f'<g fill="{colour}">{bars}</g>'
        f'<text x="0" {text}>{edges[0]:.3g}</text><text x="{WIDTH}" text-anchor="end" {text}>{edges[-1]:.3g}</text>'
        f'<text x="{WIDTH / 2:g}" text-anchor="middle" {text}>highest bar: {most}</text></svg>'
    )


def _bar(x: float, step: float, share: float) -> str:
    tall = (HEIGHT - BASE) * share
    return f'<rect x="{x + 0.5:.1f}" y="{HEIGHT - BASE - tall:.1f}" width="{max(step - 1, 1):.1f}" height="{tall:.1f}"/>'
