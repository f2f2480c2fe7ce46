"""Rows as tables of Markdown."""

import re
from collections.abc import Mapping, Sequence

from interp_transfer.escape import markdown, markdown_code
from interp_transfer.paper.rows import Row, Value, three_decimals
from interp_transfer.stats import Estimate


def prose(text: str) -> str:
    """A sentence of this package as Markdown: its code, in single backticks, stays code."""
    parts = re.split("`([^`]*)`", text)
    return "".join(markdown_code(part) if i % 2 else markdown(part) for i, part in enumerate(parts))


def anchor(title: str) -> str:
    """The anchor that Markdown gives a heading."""
    return "".join(c for c in title.lower() if c.isalnum() or c in " -").replace(" ", "-")


def tables(rows: Sequence[tuple[Row, Mapping[str, str], Mapping[str, str]]]) -> list[str]:
    """Tables of rows, one for each run of rows with the same columns.

    Args:
        rows: each with columns to put before its own and, after the number of prompts, behind them.
    """
    blocks: list[tuple[list[str], list[str]]] = []
    for row, before, after in rows:
        header = [*before, *row, "n", *after]
        if not blocks or blocks[-1][0] != header:
            blocks.append((header, []))
        blocks[-1][1].append(_line([*before.values(), *map(_value, row.values()), _n(row), *after.values()]))
    return ["\n".join([_line(header), "|---" * len(header) + "|", *lines]) for header, lines in blocks]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(markdown, cells))} |"


def _value(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, Estimate):
        return f"{three_decimals(value.value)} [{three_decimals(value.low)}, {three_decimals(value.high)}]"
    return three_decimals(value) if isinstance(value, float) else str(value)


def _n(row: Row) -> str:
    """The number of prompts of a row's figures; the smallest and the largest where they differ."""
    counts = sorted({v.n for v in row.values() if isinstance(v, Estimate)})
    return "-" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
