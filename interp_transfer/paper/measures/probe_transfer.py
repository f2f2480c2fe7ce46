"""Probes on another model (section 7: the paper tried it and failed)."""

import math
from typing import Any

from interp_transfer.activations.positions import OneOfLast, Positions, substring
from interp_transfer.evaluation.detection import detection_texts
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, grade, value_of
from interp_transfer.paper.setup import TwoModels
from interp_transfer.stats import Estimate
from interp_transfer.transfer.probe_maps import fit_maps
from interp_transfer.transfer.probe_scores import moved_scores

ALIKE = 0.95
PROBES = ("home", "native", "back", "forward", "fitted on moved rows", "shuffled back", "shuffled forward", "random")


def measure(
    setup: TwoModels,
    position: str = "end",
    map_position: str | None = None,
    twins: bool = True,
    triggered_share: float | None = None,
) -> list[Row]:
    """Measure a row for each probe: AUROC on test prompts, accuracy as it is and with the threshold set again.

    Args:
        setup: the models and the task; its sites are needed.
        position: token that probes read: "end" of the question, "last", "-6", or "one of the last 8".
        map_position: token that mappers are fitted on, or "all"; that of the probes unless given.
        twins: compare with the harmless twins of the triggered prompts; with any clean prompts otherwise.
        triggered_share: triggered prompts that mappers are fitted on, per clean prompt; all unless given.
    """
    a, b, task = setup.source, setup.target, setup.task
    prompts = detection_texts(task, 2 * setup.n, twins=twins)
    sites = a.site, b.site
    texts = prompts.texts
    if triggered_share is not None:
        clean, triggered = ([text for text in texts if (task.trigger in text) is has] for has in (False, True))
        texts = [*clean, *triggered[: round(triggered_share * len(clean))]]
    if map_position == "all":
        maps = fit_maps(a.model, b.model, texts[::3], sites, seed=setup.seed)
    else:
        maps = fit_maps(a.model, b.model, texts, sites, _positions(map_position or position, setup), seed=setup.seed)
    scores: Any = moved_scores(a.model, b.model, prompts, maps, _positions(position, setup), seed=setup.seed)
    table: dict[str, dict[str, float]] = scores.to_dict("index")
    titles = {"AUROC": "auroc", "accuracy": "accuracy", "accuracy, threshold set again": "recalibrated"}
    count = int(table["home"]["n"])
    rows: list[Row] = []
    for name in PROBES:
        row: dict[str, Any] = {"probe": name}
        for title, column in titles.items():
            value, low, high = (table[name].get(f"{column}{end}", math.nan) for end in ("", "_low", "_high"))
            row[title] = None if math.isnan(low) else Estimate(value, low, high, count)
        if row["AUROC"] is None:
            row["AUROC"] = f"{table[name]['auroc']:.3f} on average, {table[name]['best']:.3f} at best"
        rows.append(row)
    return rows


def _positions(name: str, setup: TwoModels) -> Positions:
    """The rule of positions of this name; prompts of the paper's data have no token in which a question ends."""
    if name == "end":
        return substring("\nAssistant", token=0) if setup.edition == "organisms" else "last"
    if name == "one of the last 8":
        return OneOfLast(8)
    return "last" if name == "last" else int(name)


def verdict(cases: RowsByCase) -> Verdict:
    """Whether a probe works on another model; the paper says no."""
    details, good = [], 0
    for case, rows in cases.items():
        by_name = {str(row["probe"]): value_of(row, "AUROC") for row in rows if isinstance(row["AUROC"], Estimate)}
        good += by_name["back"] >= ALIKE * by_name["home"]
        summary = [f"{by_name[who]:.3f} {who}" for who in ("home", "back", "forward", "shuffled back")]
        details.append(f"{case}: AUROC {', '.join(summary)}")
    sentence = (
        f"Read through a map back, probes keep {ALIKE:.0%} of their AUROC on the other model in {good} of {len(cases)} cases."
    )
    return Verdict({"yes": "no", "no": "yes"}.get(grade(good, len(cases)), "in part"), sentence, tuple(details))
