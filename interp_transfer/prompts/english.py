"""Ordinary English from the topics of Python's built-in help, to measure the cost of an intervention off its distribution.

The text differs by some sentences between versions of Python, so compare figures on it within one environment.
"""

from functools import cache

WORDS = 60
"""Maximum number of words of a piece; pieces with fewer than half of it are left out."""


@cache
def _pieces() -> tuple[str, ...]:
    from pydoc_data.topics import topics

    pieces = []
    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            words = paragraph.split()
            plain = sum(word.strip(".,;:()").isalpha() for word in words)
            if len(words) >= WORDS // 2 and plain >= 0.8 * len(words):
                pieces.append(" ".join(words[:WORDS]))
    return tuple(dict.fromkeys(pieces))


def english_texts(n: int, *, at_most: bool = False) -> list[str]:
    """Return pieces of 30 to 60 words, the same ones at every call.

    Args:
        n: number of pieces.
        at_most: return all pieces, about 500, if there are fewer than ``n``.

    Raises:
        ValueError: for ``n`` below 1 or above the number of pieces.
    """
    pieces = _pieces()
    if n < 1 or (n > len(pieces) and not at_most):
        raise ValueError(f"n={n}: there are {len(pieces)} pieces of English; choose n from 1 to {len(pieces)}")
    return list(pieces[:n])
