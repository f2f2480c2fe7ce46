"""Texts with their tokens coloured by a number, for notebooks: plain HTML, without scripts."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from interp_transfer.escape import shown, visible

POSITIVE, NEGATIVE = "221, 95, 30", "42, 128, 201"
"""Colours of numbers above and below 0."""
OPACITY = 0.75
"""Of the largest number; the text has to remain legible."""


@dataclass(frozen=True, repr=False)
class ColouredTokens:
    """Tokens and a number for each.

    Attributes:
        texts: the tokens of each text.
        values: a number for each token of each text. Colours are relative to the largest but those of first tokens, whose
            activations are massive in many models.
        title: what the numbers are.
    """

    texts: Sequence[Sequence[str]]
    values: Sequence[Sequence[float]]
    title: str = ""

    def _repr_html_(self) -> str:
        most = max((abs(value) for row in self.values for value in row[1:]), default=0.0) or 1.0
        style = "margin: 0 0 .6em; white-space: pre-wrap; overflow-wrap: anywhere; font-family: ui-monospace, monospace"
        rows = (
            f'<p dir="auto" style="{style}">{"".join(_token(t, v, most) for t, v in zip(tokens, values, strict=True))}</p>'
            for tokens, values in zip(self.texts, self.values, strict=True)
        )
        heading = f"<p><b>{html.escape(visible(self.title))}</b>; the strongest colour is {most:.3g}</p>"
        return f'<div class="tex2jax_ignore mathjax_ignore">{heading}{"".join(rows)}</div>'

    def __repr__(self) -> str:
        """The token with the largest number of each text."""
        lines = []
        for tokens, values in zip(self.texts, self.values, strict=True):
            k = max(range(len(values)), key=lambda i: abs(values[i]), default=None)
            lines.append("  no token" if k is None else f"  {values[k]:+.3g} at {shown(tokens[k])!r}")
        return visible(f"{self.title}, the largest of each text:\n" + "\n".join(lines))


def _token(token: str, value: float, most: float) -> str:
    colour = f"rgba({POSITIVE if value > 0 else NEGATIVE}, {OPACITY * min(1.0, abs(value) / most):.3f})"
    return f'<span title="{value:+.3g}" style="background: {colour}">{html.escape(shown(token))}</span>'
