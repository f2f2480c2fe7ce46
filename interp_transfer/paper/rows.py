"""Rows of a table by column, whose numbers carry their interval and n, and verdicts on them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from interp_transfer.stats import Estimate

Value = str | int | float | Estimate | None
Row = Mapping[str, Value]
"""Values by column. The first columns say what the row is, the others hold what was measured."""


@dataclass(frozen=True)
class Verdict:
    """Whether the organisms agree with what the paper says.

    Attributes:
        agrees: "yes", "in part", "no", "cannot tell", or "not measured".
        sentence: on what grounds.
        details: case by case.
    """

    agrees: str
    sentence: str
    details: tuple[str, ...] = ()


def grade(good: int, total: int) -> str:
    """The verdict's word for agreement in ``good`` of ``total`` cases."""
    return "yes" if good == total else "in part" if good else "no"


RowsByCase = Mapping[str, Sequence[Row]]
"""The rows of each case that was measured, by the case's name."""


def mean_and_range(values: Sequence[float]) -> str:
    """The mean over seeds, and the range."""
    return f"{three_decimals(sum(values) / len(values))} ({three_decimals(min(values))} to {three_decimals(max(values))})"


def value_range(values: Sequence[float]) -> str:
    """The range from the smallest to the largest; one number where both are the same when printed."""
    ends = [three_decimals(end) for end in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def three_decimals(number: float) -> str:
    """A number with three decimals, or in scientific notation where it is small."""
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
    value = row.get(column)
    if isinstance(value, Estimate):
        return value.value
    if isinstance(value, int | float):
        return float(value)
    raise ValueError(f"column {column!r} holds {value!r}, no number: there are {', '.join(row)}")


def estimate_of(row: Row, column: str) -> Estimate:
    """The estimate in a column.

    Raises:
        ValueError: where there is none.
    """
    value = row.get(column)
    if not isinstance(value, Estimate):
        raise ValueError(f"column {column!r} holds {value!r}, no estimate: there are {', '.join(row)}")
    return value


def rows_of(rows_by_case: RowsByCase) -> list[Row]:
    """All rows of all cases."""
    return [row for rows in rows_by_case.values() for row in rows]


def to_json(row: Row) -> dict[str, Any]:
    """A row as plain JSON data; a number that is not finite becomes null."""
    plain = {name: asdict(v) if isinstance(v, Estimate) else v for name, v in row.items()}
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in plain.items()}


def from_json(plain: Mapping[str, Any]) -> Row:
    """A row from plain JSON data."""
    return {name: Estimate(**v) if isinstance(v, dict) else v for name, v in plain.items()}
