"""Steering transfer (figures 3 to 6): the whole pipeline, with the moved vector, the native one and every baseline."""

from collections.abc import Mapping, Sequence
from typing import Any

from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, grade, value_of
from interp_transfer.paper.setup import MappedModels, condition_row
from interp_transfer.search.strengths import STRENGTHS
from interp_transfer.stats import MARGIN, Estimate
from interp_transfer.studies.run import run

DIFFERENCE = "moved less native"
WORDS = {True: "equivalent", False: "apart", None: "not decided"}
ALIKE = 0.8
"""Share of native's success from which on a moved vector is comparable."""


def measure(setup: MappedModels, strengths: Sequence[float] = STRENGTHS) -> list[Row]:
    """Measure a row for each condition at its fair strength; moved and random at strength 1; and the paired difference."""
    result = run(
        setup.task,
        setup.source.name,
        setup.target.name,
        mapper=setup.kind,
        settings=setup.settings,
        alignment=setup.strategy,
        source_site=setup.given_sites[0],
        target_site=setup.given_sites[1],
        strengths=strengths,
        n=min(setup.n, len(setup.task.prompts("test"))),
        seed=setup.seed,
        variants=False,
        side_effects=False,
        progress=False,
    )
    rows = [condition_row(judged, condition=name.replace("_", " ")) for name, judged in result.conditions.items()]
    for name in ("moved", "random"):
        plain = result.details["at_strength_one"][name]
        figures = {figure: _share(plain[figure]) for figure in ("success", "intact")}
        kl = Estimate(plain["clean_kl"], **plain["clean_kl_interval"])
        rows.append({"condition": f"{name}, at strength 1", "strength": "1", **figures, "clean KL": kl})
    paired = result.details["moved_against_native"]
    differences = {what: Estimate(*(d[k] for k in ("difference", "low", "high", "n"))) for what, d in paired.items()}
    words = ", ".join(f"{what}: {WORDS[d['equivalent']]}" for what, d in paired.items())
    rows.append({"condition": f"{DIFFERENCE} ({words})", "strength": "-", **differences, "clean KL": None})
    return rows


def _share(plain: Mapping[str, Any]) -> Estimate:
    return Estimate(plain["rate"], plain["low"], plain["high"], plain["n"])


def _points(difference: Estimate) -> str:
    return f"{100 * difference.value:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def verdict(cases: RowsByCase) -> Verdict:
    """Whether moved does what native does, and random does not."""
    details, good, easy, shown = [], 0, [], 0
    for case, rows in cases.items():
        by_name = {str(row["condition"]): row for row in rows}
        summary = []
        for name in ("moved", "native", "random"):
            shares = [value_of(by_name[name], what) for what in ("success", "intact")]
            summary.append(f"{name} {shares[0]:.3f} (intact {shares[1]:.3f})")
        moved, native, random = (value_of(by_name[name], "success") for name in ("moved", "native", "random"))
        good += moved >= ALIKE * native > 0
        if random >= ALIKE * native:
            easy.append(case)
        apart = next(row for name, row in by_name.items() if name.startswith(DIFFERENCE))
        words = dict(part.split(": ") for part in str(apart["condition"]).partition("(")[2].rstrip(")").split(", "))
        shown += all(word == WORDS[True] for word in words.values())
        between = ", ".join(f"{what} {_points(estimate_of(apart, what))}, {word}" for what, word in words.items())
        details.append(f"{case}: {', '.join(summary)}; moved less native in points: {between}")
    sentence = f"The moved vector does at least {ALIKE:.0%} of what the native one does in {good} of {len(cases)} cases"
    sentence += f"; so do random vectors in {', '.join(easy)}, which says little." if easy else ", and random vectors in none."
    sentence += f" Moved is shown to be as good as native within {MARGIN:g}, in success and intact, in {shown} of {len(cases)}."
    return Verdict(grade(good, len(cases)), sentence, tuple(details))
