"""Texts of errors: look up by name and suggest the closest name, and quote other errors and values of files."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

CUTOFF = 0.6
"""How similar a name must be to be suggested, 0 to 1 (difflib's ratio)."""
LONGEST = 200
"""Characters of a quotation."""
SHORTEST = 3
"""Characters of a beginning for which names that begin so are suggested."""


def find(name: str, known: Mapping[str, T], what: str, more: str = "", cutoff: float = CUTOFF) -> T:
    """Return the value with this name.

    Args:
        name: the name to look up.
        known: all values by name.
        what: the kind of thing that is looked up, for the error.
        more: text that the error adds after the list of names.
        cutoff: how similar a suggested name must be.

    Raises:
        ValueError: for no name or an unknown one, with the closest one and the list of all.
    """
    if not isinstance(name, str):
        raise misplaced(name, f"the name of a {what}", f"there are {', '.join(known)}{more}")
    if name not in known:
        raise ValueError(
            f"unknown {what} {quoted(name)}: {did_you_mean(name, known, cutoff=cutoff)}there are {', '.join(known)}{more}"
        )
    return known[name]


def did_you_mean(name: str, known: Iterable[str], n: int = 1, cutoff: float = CUTOFF) -> str:
    """The question "did you mean ...? " with up to ``n`` close names, for an error; empty if none is close."""
    names = list(known)
    longer = sorted((one for one in names if len(name) >= SHORTEST and one.startswith(name)), key=len)
    close = [*longer, *(one for one in difflib.get_close_matches(name, names, n=n, cutoff=cutoff) if one not in longer)][:n]
    return f"did you mean {', '.join(map(repr, close))}? " if close else ""


def first_line(error: BaseException, longest: int = LONGEST) -> str:
    """The first line of an error's text, or the name of its type if it has no text; cut, and without control characters."""
    return cut((str(error).strip().splitlines() or [type(error).__name__])[0], longest)


def quoted(value: object) -> str:
    """A value as Python writes it, for an error; cut if it is long."""
    return cut(repr(value))


def misplaced(value: object, wanted: str, remedy: str) -> ValueError:
    """The error for an argument of another kind than what is wanted."""
    plain = value is None or isinstance(value, str | int | float)
    return ValueError(f"expected {wanted}, got {quoted(value) if plain else f'a {type(value).__name__}'}: {remedy}")


def cut(text: str, longest: int = LONGEST) -> str:
    """A text for an error: cut if it is long, without control characters."""
    shown = text if len(text) <= longest else f"{text[:longest]}..."
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in shown)
