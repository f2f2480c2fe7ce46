"""What the figures of the page of results show: numbers with their intervals, by case, before `svg` draws them.

A module of ``measures`` has ``chart(rows_by_case)``, the figure of its experiment, and ``headline(rows_by_case)``, the one
number of each case that stands for the claim and is drawn with those of the other experiments. All are shares, or other numbers
up to 1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from interp_transfer.paper.rows import Row, RowsByCase, estimate_of, value_of
from interp_transfer.stats import Estimate

Pick = Callable[[Sequence[Row]], tuple[Estimate, float]]
"""Picks the number of a case from its rows, and the number that it is compared with."""


@dataclass(frozen=True)
class Dots:
    """A row of dots for each case.

    Attributes:
        axis: what the numbers are.
        cases: by case, the numbers by name of their condition.
    """

    axis: str
    cases: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True)
class Curves:
    """A panel of lines for each case.

    Attributes:
        axis: what the numbers are.
        x: what they are drawn over.
        cases: by case, the points by name of their condition; each a place on the x axis, as text, and a number.
    """

    axis: str
    x: str
    cases: Mapping[str, Mapping[str, Sequence[tuple[str, Estimate]]]]


Chart = Dots | Curves


@dataclass(frozen=True)
class Line:
    """The number of one case.

    Attributes:
        case: its name.
        value: the number.
        beside: the number that it is compared with.
    """

    case: str
    value: Estimate
    beside: float


@dataclass(frozen=True)
class Headline:
    """The numbers of an experiment that stand for its claim.

    Attributes:
        measure: what the numbers are.
        beside: what the numbers are that they are compared with.
        lines: a number for each case, or several.
    """

    measure: str
    beside: str
    lines: tuple[Line, ...]


def number(row: Row, column: str) -> Estimate:
    """The number in a column; one without an interval has none to be drawn."""
    value = row.get(column)
    return value if isinstance(value, Estimate) else Estimate(*(value_of(row, column),) * 3, n=0)


def dots(cases: RowsByCase, axis: str, column: str, by: str, names: Mapping[str, str]) -> Dots:
    """A dot for each row that is named.

    Args:
        cases: the rows.
        axis: what the numbers are.
        column: the estimates that are drawn.
        by: the column that names a row.
        names: what the rows are called in the figure, by what they are called in that column. Others are left out.
    """
    chosen: dict[str, dict[str, Estimate]] = {}
    for case, rows in cases.items():
        found = {str(row[by]): row for row in rows if isinstance(row.get(column), Estimate)}
        chosen[case] = {name: estimate_of(found[key], column) for key, name in names.items() if key in found}
    return Dots(axis, chosen)


def curves(cases: RowsByCase, axis: str, x: tuple[str, str], names: Mapping[str, str]) -> Curves:
    """A line for each column that is named.

    Args:
        cases: the rows.
        axis: what the numbers are.
        x: the column that the lines are drawn over, and what it is called in the figure.
        names: what the lines are called in the figure, by their column.
    """
    column, title = x
    lines = {
        case: {
            name: [(str(row[column]), number(row, key)) for row in rows if row.get(key) is not None]
            for key, name in names.items()
            if any(row.get(key) is not None for row in rows)
        }
        for case, rows in cases.items()
    }
    return Curves(axis, title, lines)


def headline_of(cases: RowsByCase, measure: str, beside: str, pick: Pick) -> Headline:
    """A number for each case, and what it is compared with, both picked from the case's rows."""
    return Headline(measure, beside, tuple(Line(case, *pick(rows)) for case, rows in cases.items()))


def two_rows(column: str, by: str, name: str, beside: str) -> Pick:
    """A function that picks one column of two rows, which another column names."""

    def pick(rows: Sequence[Row]) -> tuple[Estimate, float]:
        found = {str(row[by]): row for row in rows}
        return estimate_of(found[name], column), value_of(found[beside], column)

    return pick
