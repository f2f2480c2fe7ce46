"""Ordinary English that every Python brings: the topics of its built-in help.

Text that is unlike most tasks, for what an intervention costs off its distribution. Versions of Python differ in it
by some sentences, so figures on it are to be compared within one environment.
"""

from functools import cache

WORDS = 60
"""Of a piece, at most; pieces of fewer than half are left out."""


@cache
def _pieces() -> tuple[str, ...]:
    from pydoc_data.topics import topics

    found = []
    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            words = paragraph.split()
            plain = sum(word.strip(".,;:()").isalpha() for word in words)
            if len(words) >= WORDS // 2 and plain >= 0.8 * len(words):
                found.append(" ".join(words[:WORDS]))
    return tuple(dict.fromkeys(found))


def english_texts(n: int, *, at_most: bool = False) -> list[str]:
    """Pieces of 30 to 60 words, always the same ones of one version of Python.

    Args:
        n: how many.
        at_most: take all there are where there are fewer; some 500.

    Raises:
        ValueError: for none, or more than there are.
    """
    pieces = _pieces()
    if n < 1 or (n > len(pieces) and not at_most):
        raise ValueError(f"n={n}: there are {len(pieces)} pieces of English; choose n from 1 to {len(pieces)}")
    return list(pieces[:n])
