"""Probes on another model (section 7: the paper tried it and failed)."""

import math
from collections.abc import Sequence
from typing import Any

from interp_transfer.activations.positions import substring
from interp_transfer.evaluation.detection import detection_texts
from interp_transfer.paper.bench import model_for, task_of
from interp_transfer.paper.rows import Estimate, Found, Row, Verdict, graded, value_of
from interp_transfer.transfer.probe_maps import fit_maps
from interp_transfer.transfer.probe_scores import moved_scores

ENDS = substring("\nAssistant", token=0)
"""The token in which a question of the micro-world ends."""
ALIKE = 0.95
WHO = ("home", "native", "back", "forward", "fitted on moved rows", "shuffled back", "shuffled forward", "random")


def measure(
    edition: str, n: int, seed: int, task: str, source: str, target: str, sites: Sequence[str], options: dict | None = None
) -> list[Row]:
    """A row for each probe: AUROC on test prompts, accuracy as it is and with the threshold set again."""
    made = task_of(task, edition, options)
    a, b = (model_for(name, made) for name in (source, target))
    where = ENDS if edition == "organisms" else "last"
    what = detection_texts(made, 2 * n)
    maps = fit_maps(a, b, what.texts, (sites[0], sites[1]), where, seed=seed)
    table: dict[str, dict[str, float]] = moved_scores(a, b, what, maps, where, seed=seed).to_dict("index")  # type: ignore[assignment]
    titles = {"AUROC": "auroc", "accuracy": "accuracy", "accuracy, threshold set again": "recalibrated"}
    count = int(table["home"]["n"])
    rows: list[Row] = []
    for name in WHO:
        row: dict[str, Any] = {"probe": name}
        for title, column in titles.items():
            value, low, high = (table[name].get(f"{column}{end}", math.nan) for end in ("", "_low", "_high"))
            row[title] = None if math.isnan(low) else Estimate(value, low, high, count)
        if row["AUROC"] is None:
            row["AUROC"] = f"{table[name]['auroc']:.3f} on average, {table[name]['best']:.3f} at best"
        rows.append(row)
    return rows


def verdict(found: Found) -> Verdict:
    """Whether a probe works on another model; the paper says no."""
    details, good = [], 0
    for case, rows in found.items():
        by_name = {str(row["probe"]): value_of(row, "AUROC") for row in rows if isinstance(row["AUROC"], Estimate)}
        good += by_name["back"] >= ALIKE * by_name["home"]
        told = [f"{by_name[who]:.3f} {who}" for who in ("home", "back", "forward", "shuffled back")]
        details.append(f"{case}: AUROC {', '.join(told)}")
    sentence = (
        f"Read through a map back, probes keep {ALIKE:.0%} of their AUROC on the other model in {good} of {len(found)} cases."
    )
    return Verdict({"yes": "no", "no": "yes"}.get(graded(good, len(found)), "in part"), sentence, tuple(details))
