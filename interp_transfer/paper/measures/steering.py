"""Steering transfer (figures 3 to 6): the whole pipeline, moved beside native and every baseline."""

from collections.abc import Mapping, Sequence
from typing import Any

from interp_transfer.activations.align import DEFAULT_STRATEGY
from interp_transfer.evaluation.evaluator import Condition
from interp_transfer.paper.bench import judged_row, task_of
from interp_transfer.paper.rows import Estimate, Found, Row, Verdict, estimate_of, graded, share_of, value_of
from interp_transfer.search.strengths import STRENGTHS
from interp_transfer.stats import MARGIN
from interp_transfer.studies.run import run

DIFFERENCE = "moved less native"
WORDS = {True: "equivalent", False: "apart", None: "not decided"}
ALIKE = 0.8
"""Share of native's success from which on a moved vector is comparable."""


def measure(
    edition: str,
    n: int,
    seed: int,
    task: str,
    source: str,
    target: str,
    mapper: str = "autoencoder",
    settings: Mapping[str, Any] | None = None,
    strategy: str = DEFAULT_STRATEGY,
    strengths: Sequence[float] = STRENGTHS,
    sites: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Row]:
    """A row for each condition, each at its fair strength; then moved and random at strength 1, and the paired difference."""
    made = task_of(task, edition, options)
    here, there = sites if sites is not None else (None, None)
    result = run(
        made,
        source,
        target,
        mapper=mapper,
        settings=settings or {},
        alignment=strategy,
        source_site=here,
        target_site=there,
        strengths=tuple(strengths),
        n=min(n, len(made.prompts("test"))),
        seed=seed,
        variants=False,
        side_effects=False,
        progress=False,
    )
    rows: list[Row] = [_row(name, judged) for name, judged in result.conditions.items()]
    for name in ("moved", "random"):
        plain = result.details["at_strength_one"][name]
        figures = {
            "success": share_of(plain["success"]),
            "intact": share_of(plain["intact"]),
            "clean KL": Estimate(plain["clean_kl"], **plain["clean_kl_interval"]),
        }
        rows.append({"condition": f"{name}, at strength 1", "strength": "1", **figures})
    against = result.details["moved_against_native"]
    apart = {what: Estimate(*(against[what][k] for k in ("difference", "low", "high", "n"))) for what in against}
    words = ", ".join(f"{what}: {WORDS[against[what]['equivalent']]}" for what in against)
    rows.append({"condition": f"{DIFFERENCE} ({words})", "strength": "-", **apart, "clean KL": None})
    return rows


def _row(name: str, judged: Condition) -> Row:
    return judged_row(judged, condition=name.replace("_", " "))


def _points(apart: Estimate) -> str:
    return f"{100 * apart.value:+.1f} [{100 * apart.low:+.1f}, {100 * apart.high:+.1f}]"


def verdict(found: Found) -> Verdict:
    """Whether moved does what native does, and random does not."""
    details, good, easy, shown = [], 0, [], 0
    for case, rows in found.items():
        by_name = {str(row["condition"]): row for row in rows}
        told = []
        for name in ("moved", "native", "random"):
            shares = [value_of(by_name[name], what) for what in ("success", "intact")]
            told.append(f"{name} {shares[0]:.3f} (intact {shares[1]:.3f})")
        moved, native, random = (value_of(by_name[name], "success") for name in ("moved", "native", "random"))
        good += moved >= ALIKE * native > 0
        if random >= ALIKE * native:
            easy.append(case)
        apart = next(row for name, row in by_name.items() if name.startswith(DIFFERENCE))
        words = dict(part.split(": ") for part in str(apart["condition"]).partition("(")[2].rstrip(")").split(", "))
        shown += all(word == WORDS[True] for word in words.values())
        between = ", ".join(f"{what} {_points(estimate_of(apart, what))}, {word}" for what, word in words.items())
        details.append(f"{case}: {', '.join(told)}; moved less native in points: {between}")
    sentence = f"The moved vector does at least {ALIKE:.0%} of what the native one does in {good} of {len(found)} cases"
    sentence += f"; so do random vectors in {', '.join(easy)}, which says little." if easy else ", and random vectors in none."
    sentence += f" Moved is shown to be as good as native within {MARGIN:g}, in success and intact, in {shown} of {len(found)}."
    return Verdict(graded(good, len(found)), sentence, tuple(details))
