"""One SAE feature, set in the source and moved to the target (section 7 and Appendix H)."""

from typing import Any

from interp_transfer.paper.bench import judged_row
from interp_transfer.paper.rows import Found, Row, Verdict, graded, share, value_of
from interp_transfer.studies.features import features_study

ALIKE = 0.8


def measure(edition: str, n: int, seed: int, task: str, source: str, target: str, options: dict | None = None) -> list[Row]:
    """A row for each direction, model and condition; then the paper's protocol, the feature set in a reconstruction."""
    if edition != "organisms":
        raise ValueError("the feature study takes its directions from the micro-world: give the paper's SAE to features_study")
    found = features_study(task, source, target, n=n, seed=seed, progress=False, **(options or {}))
    rows: list[Row] = []
    for name, way in found.directions.items():
        for side, model in (("source", found.source), ("target", found.target)):
            for what, judged in getattr(way, side).items():
                told = f"{what} {way.feature}, number {way.rank} by difference" if what.endswith("feature") else what
                rows.append(judged_row(judged, direction=name, model=model.name, condition=told))
        for where, scales in way.flips.items():
            for scale, flip in scales.items():
                first: dict[str, Any] = {"direction": name, "model": found.source.name, "strength": f"{scale:g}"}
                for what, judged in (("reconstruction alone", flip.reconstruction), ("feature set in it", flip.feature)):
                    condition = f"{what}, positions {where}"
                    rows.append({**first, "condition": condition, "success": share(judged), "intact": None, "clean KL": None})
    order = ("direction", "model", "condition", "strength", "success", "intact", "clean KL")
    return [{name: row[name] for name in order} for row in rows]


def verdict(found: Found) -> Verdict:
    """Whether one feature does it, at home and moved."""
    details, good, total, last = [], 0, 0, []
    for case, rows in found.items():
        for name in dict.fromkeys(str(row["direction"]) for row in rows):
            mine = [(str(row["condition"]), value_of(row, "success")) for row in rows if row["direction"] == name]
            added = [(told, x) for told, x in mine if ", number " in told]  # not set in a reconstruction
            home, there = (max(x for told, x in added if told.startswith(start)) for start in ("feature ", "moved feature "))
            last += [x for told, x in mine if told == "feature set in it, positions last"]
            good += there >= ALIKE * home > 0
            total += 1
            details.append(f"{case}, to {name}: {home:.3f} in the source, {there:.3f} moved")
    sentence = f"One feature, moved, does at least {ALIKE:.0%} of what it does at home in {good} of {total} directions."
    if last:
        sentence += f" The paper's own protocol (last token, error dropped) reaches {max(last):.2f} at most."
    return Verdict("in part" if good == total and last and max(last) < 0.4 else graded(good, total), sentence, tuple(details))
