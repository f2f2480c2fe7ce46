"""Progress bars, on stderr."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm

from interp_transfer.escape import one_line, visible

DELAY = 2.0
"""Seconds before a bar appears: short work shows none."""


def progress_bar(desc: str, show: bool, *, items: Iterable[Any] | None = None, **options: Any) -> Any:
    """Return a bar that appears after two seconds and is removed at the end.

    Args:
        desc: what it counts, in a word or two.
        show: False for no bar.
        items: what to iterate over; a bar without items is advanced by its ``update``.
        options: of tqdm, such as ``total`` and ``unit``.
    """
    return tqdm(items, desc=one_line(desc), disable=not show, **{"delay": DELAY, "leave": False} | options)


def write_line(text: str) -> None:
    """Print a text on stderr, above the bars."""
    tqdm.write(visible(text), sys.stderr)
