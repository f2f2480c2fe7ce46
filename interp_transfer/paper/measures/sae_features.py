"""One SAE feature, set in the source and moved to the target (section 7 and Appendix H)."""

from typing import Any

from interp_transfer.paper.rows import Row, RowsByCase, Verdict, grade, value_of
from interp_transfer.paper.setup import Setup, condition_row
from interp_transfer.studies.features import features_study

ALIKE = 0.8


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
