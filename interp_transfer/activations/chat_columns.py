"""Columns at which a picture of two renderings of one chat draws each token's end.

Contents have the columns of their characters. A piece of the template has a column for each of its tokens from the right, wide
enough for both models' tokens, so that tokens of one index are one above the other.
"""

import numpy as np
from jaxtyping import Int

from interp_transfer.activations.spans import Part, TokenSpans


def chat_columns(source: TokenSpans, target: TokenSpans) -> tuple[Int[np.ndarray, " source"], Int[np.ndarray, " target"]]:
    """Return the column of each token's end, of the source and of the target."""
    sides = (source, target)
    columns = tuple(np.zeros(len(side), dtype=np.int64) for side in sides)
    base = 0
    for parts in _in_order(source, target):
        if any(part.is_template for part in parts if part):
            pieces = [
                side.pieces[part.first : part.stop][::-1] if part else () for side, part in zip(sides, parts, strict=True)
            ]
            most = max(map(len, pieces))
            widths = [1 + max(len(side[k]) if k < len(side) else 0 for side in pieces) for k in range(most)]
            ends = np.array([sum(widths[k:]) for k in range(most)], dtype=np.int64)  # counted from the right
            for column, part in zip(columns, parts, strict=True):
                if part:
                    column[part.first : part.stop] = base + ends[: part.stop - part.first][::-1]
            base += sum(widths)
        else:
            origin = min(int(side.start[part.first]) for side, part in zip(sides, parts, strict=True) if part)
            for side, column, part in zip(sides, columns, parts, strict=True):
                if part:
                    column[part.first : part.stop] = base + side.most[part.first : part.stop] - origin
            base = max(int(column[part.stop - 1]) for column, part in zip(columns, parts, strict=True) if part)
    return columns[0], columns[1]


def _in_order(source: TokenSpans, target: TokenSpans) -> list[tuple[Part | None, Part | None]]:
    """The parts of both, those of one key together, in the order of the chat."""
    theirs, found = list(source.parts), []
    for part in target.parts:
        if any(other.key == part.key for other in theirs):
            while theirs[0].key != part.key:
                found.append((theirs.pop(0), None))
            found.append((theirs.pop(0), part))
        else:
            found.append((None, part))
    return [*found, *((other, None) for other in theirs)]
