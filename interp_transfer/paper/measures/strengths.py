"""How success grows with the strength, native, moved and random (figures 4 and 8)."""

from collections.abc import Sequence

from interp_transfer.paper.charts import Chart, Headline, curves, headline_of
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, grade, value_of
from interp_transfer.paper.setup import MappedModels, by_strength


def measure(setup: MappedModels, strengths: Sequence[float]) -> list[Row]:
    """Measure a row for each strength; random vectors have the moved one's length."""
    return by_strength(setup.target, {"native": setup.target.vector, "moved": setup.moved}, strengths)


def verdict(cases: RowsByCase) -> Verdict:
    """Whether the moved vector collapses at strengths at which the native one still works."""
    details, collapses = [], 0
    for case, rows in cases.items():
        summary, kept = [], {}
        for name in ("native", "moved", "random"):
            curve = [value_of(row, f"{name}, intact") for row in rows]
            peak = max(curve)
            kept[name] = curve[-1] / peak if peak else 0.0
            summary.append(
                f"{name} {peak:.2f} at {rows[curve.index(peak)]['strength']}, {curve[-1]:.2f} at {rows[-1]['strength']}"
            )
        collapses += kept["moved"] < 0.5 <= kept["native"]
        details.append(f"{case}: most intact, and at the largest strength: {'; '.join(summary)}")
    sentence = f"The moved vector alone collapses at large strengths in {collapses} of {len(cases)} cases."
    return Verdict(grade(collapses, len(cases)), sentence, tuple(details))


def chart(cases: RowsByCase) -> Chart:
    """Intact answers by strength."""
    names = {f"{name}, intact": name for name in ("native", "moved", "random")}
    return curves(cases, "intact answers", ("strength", "strength"), names)


def headline(cases: RowsByCase) -> Headline:
    """Intact answers at the largest strength, moved and native."""
    return headline_of(
        cases,
        "intact at the largest strength",
        "native vector",
        lambda rows: (estimate_of(rows[-1], "moved, intact"), value_of(rows[-1], "native, intact")),
    )
