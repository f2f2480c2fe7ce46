"""What experiments give: rows of columns, whose numbers carry their interval and n."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from interp_transfer.stats import Estimate

Value = str | int | float | Estimate | None
Row = Mapping[str, Value]
"""By column. The first columns say what the row is, the others hold what was measured."""


@dataclass(frozen=True)
class Verdict:
    """Whether the organisms agree with what the paper says.

    Attributes:
        agrees: "yes", "in part", "no", or "not measured".
        sentence: on what grounds.
        details: case by case.
    """

    agrees: str
    sentence: str
    details: tuple[str, ...] = ()


def graded(good: int, total: int) -> str:
    """Agreement in so many of all cases, in a word."""
    return "yes" if good == total else "in part" if good else "no"


Found = Mapping[str, Sequence[Row]]
"""Rows of each case that was measured, by the case's name."""


def share(found: Estimate) -> Estimate:
    """A rate as an estimate."""
    return Estimate(found.value, found.low, found.high, found.n)


def share_of(plain: Mapping[str, Any]) -> Estimate:
    """Likewise, of a rate as JSON holds it."""
    return Estimate(plain["rate"], plain["low"], plain["high"], plain["n"])


def spread(values: Sequence[float]) -> str:
    """The mean of several seeds, and their range."""
    return f"{short(sum(values) / len(values))} ({short(min(values))} to {short(max(values))})"


def between(values: Sequence[float]) -> str:
    """From the smallest to the largest; one number where they are the same in three digits."""
    ends = [short(end) for end in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def short(number: float) -> str:
    """Three digits behind the point, more where the number is small."""
    if number != number:
        return "-"
    if number and abs(number) < 0.001:
        return f"{number:.1e}"
    return f"{number:.3f}" if abs(number) < 100 else f"{number:.0f}"


def value_of(row: Row, column: str) -> float:
    """The number in a column.

    Raises:
        ValueError: where there is none.
    """
    found = row.get(column)
    if isinstance(found, Estimate):
        return found.value
    if isinstance(found, int | float):
        return float(found)
    raise ValueError(f"column {column!r} holds {found!r}, no number: there are {', '.join(row)}")


def estimate_of(row: Row, column: str) -> Estimate:
    """The estimate in a column.

    Raises:
        ValueError: where there is none.
    """
    found = row.get(column)
    if not isinstance(found, Estimate):
        raise ValueError(f"column {column!r} holds {found!r}, no estimate: there are {', '.join(row)}")
    return found


def rows_of(found: Found) -> list[Row]:
    """All rows of all cases."""
    return [row for rows in found.values() for row in rows]


def to_json(row: Row) -> dict[str, Any]:
    """As JSON holds a row; a number that is none becomes null."""
    plain = {name: asdict(v) if isinstance(v, Estimate) else v for name, v in row.items()}
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in plain.items()}


def from_json(plain: Mapping[str, Any]) -> Row:
    """A row that JSON held."""
    return {name: Estimate(**v) if isinstance(v, dict) else v for name, v in plain.items()}
