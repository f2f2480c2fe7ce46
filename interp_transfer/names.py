"""Things that are asked for by name: found, or refused with what was probably meant."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

CUTOFF = 0.6
"""How alike a name has to be to be offered, 0 to 1 (difflib's ratio)."""


def find(name: str, known: Mapping[str, T], what: str, more: str = "", cutoff: float = CUTOFF) -> T:
    """What has this name.

    Args:
        name: what is asked for.
        known: all there are.
        what: what kind of thing it is, for the error.
        more: what the error says behind the names.
        cutoff: how alike another name has to be to be offered.

    Raises:
        ValueError: for a name that there is not, with the closest and all others.
    """
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}: {meant(name, known, cutoff)}there are {', '.join(known)}{more}")
    return known[name]


def meant(name: str, known: Iterable[str], cutoff: float = CUTOFF) -> str:
    """A question with the closest name, for an error; empty if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {close[0]!r}? " if close else ""


def closest(name: str, known: Iterable[str], cutoff: float = CUTOFF) -> str:
    """The closest name in parentheses, for an error; empty if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" (did you mean {close[0]!r}?)" if close else ""
