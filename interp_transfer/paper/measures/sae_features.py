"""One SAE feature, set in the source and moved to the target (section 7 and Appendix H)."""

from typing import Any

from interp_transfer.paper.charts import Chart, Dots, Headline, Line
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, grade, value_of
from interp_transfer.paper.setup import Setup, condition_row
from interp_transfer.stats import Estimate
from interp_transfer.studies.features import features_study

ALIKE = 0.8
HOME, MOVED = "feature at home", "moved feature"
NOTHING = Estimate(-1.0, -1.0, -1.0, 0)


def measure(setup: Setup, task: str, source: str, target: str, options: dict[str, Any] | None = None) -> list[Row]:
    """Measure a row for each direction, model and condition; then the paper's protocol, the feature set in a reconstruction.

    Args:
        setup: edition, n and seed.
        task: name of the task.
        source: name of the model that features are found on.
        target: name of the model that they are moved to.
        options: further options of `features_study`.
    """
    if setup.edition != "organisms":
        raise ValueError("the feature study takes its directions from the micro-world: give the paper's SAE to features_study")
    result = features_study(task, source, target, n=setup.n, seed=setup.seed, progress=False, **(options or {}))
    rows: list[Row] = []
    for name, way in result.directions.items():
        for side, model in (("source", result.source), ("target", result.target)):
            for condition, judged in getattr(way, side).items():
                more = f" {way.feature}, number {way.rank} by difference" if condition.endswith("feature") else ""
                rows.append(condition_row(judged, direction=name, model=model.name, condition=condition + more))
        for where, scales in way.flips.items():
            for scale, flip in scales.items():
                first: dict[str, Any] = {"direction": name, "model": result.source.name, "strength": f"{scale:g}"}
                for condition, share in (("reconstruction alone", flip.reconstruction), ("feature set in it", flip.feature)):
                    first |= {"condition": f"{condition}, positions {where}"}
                    rows.append({**first, "success": share, "intact": None, "clean KL": None})
    order = ("direction", "model", "condition", "strength", "success", "intact", "clean KL")
    return [{name: row[name] for name in order} for row in rows]


def verdict(cases: RowsByCase) -> Verdict:
    """Whether one feature does it, at home and moved."""
    details, good, total, last = [], 0, 0, []
    for case, rows in cases.items():
        for name in dict.fromkeys(str(row["direction"]) for row in rows):
            mine = [(str(row["condition"]), value_of(row, "success")) for row in rows if row["direction"] == name]
            added = [(summary, x) for summary, x in mine if ", number " in summary]  # not set in a reconstruction
            home, there = (
                max(x for summary, x in added if summary.startswith(start)) for start in ("feature ", "moved feature ")
            )
            last += [x for summary, x in mine if summary == "feature set in it, positions last"]
            good += there >= ALIKE * home > 0
            total += 1
            details.append(f"{case}, to {name}: {home:.3f} in the source, {there:.3f} moved")
    sentence = f"One feature, moved, does at least {ALIKE:.0%} of what it does at home in {good} of {total} directions."
    if last:
        sentence += f" The paper's own protocol (last token, error dropped) reaches {max(last):.2f} at most."
    return Verdict("in part" if good == total and last and max(last) < 0.4 else grade(good, total), sentence, tuple(details))


def chart(cases: RowsByCase) -> Chart:
    """Success of the feature at home and moved, and of the controls in the target."""
    return Dots("success", _groups(cases))


def _groups(cases: RowsByCase) -> dict[str, dict[str, Estimate]]:
    controls = {"random direction": "random", "moved feature, shuffled pairs": "shuffled", "native vector": "native"}
    groups: dict[str, dict[str, Estimate]] = {}
    for case, rows in cases.items():
        for row in rows:
            condition, group = str(row["condition"]), groups.setdefault(f"{case}, {row['direction']}", {})
            if ", number " in condition:
                name = MOVED if condition.startswith("moved feature ") else HOME
                group[name] = max(estimate_of(row, "success"), group.get(name, NOTHING), key=lambda one: one.value)
            elif condition in controls:  # the target's rows come after the source's
                group[controls[condition]] = estimate_of(row, "success")
    return groups


def headline(cases: RowsByCase) -> Headline:
    """Success of the best feature that was moved, and at home."""
    lines = [
        Line(case, group[MOVED], group[HOME].value) for case, rows in cases.items() for group in _groups({case: rows}).values()
    ]
    return Headline("success of one feature, moved", "at home", tuple(lines))
