"""Probes on another model (section 7: the paper tried it and failed)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from interp_transfer.activations.positions import Layout, Positions, substring
from interp_transfer.evaluation.detection import detection_texts
from interp_transfer.paper.charts import Chart, Headline, dots, headline_of, two_rows
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, grade, value_of
from interp_transfer.paper.setup import TwoModels
from interp_transfer.stats import Estimate
from interp_transfer.transfer.probe_maps import fit_maps
from interp_transfer.transfer.probe_scores import moved_scores

ALIKE = 0.95
PROBES = ("home", "native", "back", "forward", "fitted on moved rows", "shuffled back", "shuffled forward", "random")


def measure(setup: TwoModels, variants: Mapping[str, Mapping[str, Any]] | None = None) -> list[Row]:
    """Measure a row for each probe: AUROC on test prompts, accuracy as it is and with the threshold set again.

    Args:
        setup: the models, the task and the sites.
        variants: settings of `scores` by a name; the rows of each. Without any, the rows of the default settings.
    """
    if variants is None:
        return scores(setup)
    return [{"variant": name, **row} for name, settings in variants.items() for row in scores(setup, **settings)]


def scores(
    setup: TwoModels,
    position: str = "end",
    map_position: str | None = None,
    twins: bool = True,
    triggered_share: float | None = None,
    target_site: str | None = None,
) -> list[Row]:
    """Return a row for each probe.

    Args:
        setup: the models, the task and the sites.
        position: token that probes read: "end" of the question, "last", "-6", or "one of the last 8".
        map_position: token that mappers are fitted on, or "all"; that of the probes unless given.
        twins: compare with the harmless twins of the triggered prompts; with any clean prompts otherwise.
        triggered_share: number of triggered prompts that mappers are fitted on, per clean prompt; all of them unless given.
        target_site: site of the target in place of the setup's.
    """
    a, b, task = setup.source, setup.target, setup.task
    prompts = detection_texts(task, 2 * setup.n, twins=twins)
    sites = a.site, target_site or b.site
    texts = prompts.texts
    if triggered_share is not None:
        clean, triggered = ([text for text in texts if (task.trigger in text) is has] for has in (False, True))
        texts = [*clean, *triggered[: round(triggered_share * len(clean))]]
    if map_position == "all":
        maps = fit_maps(a.model, b.model, texts[::3], sites, seed=setup.seed)
    else:
        maps = fit_maps(a.model, b.model, texts, sites, _positions(map_position or position, setup), seed=setup.seed)
    return probe_rows(moved_scores(a.model, b.model, prompts, maps, _positions(position, setup), seed=setup.seed))


def probe_rows(frame: Any) -> list[Row]:
    """A row for each probe of the frame of ``moved_scores``."""
    table: dict[str, dict[str, float]] = frame.to_dict("index")
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


@dataclass(frozen=True)
class OneOfLast:
    """A rule that names one random token among each prompt's last few.

    Attributes:
        count: number of tokens to draw from; all of a shorter prompt.
        seed: of the draw. With the same seed, the n-th text gets the same place, counted from its end, in every model.
    """

    count: int = 8
    seed: int = 0

    def __call__(self, layout: Layout) -> Bool[Tensor, "row column"]:
        """Return one column for each row."""
        selected = torch.zeros_like(layout.real)
        for row, (text, length) in enumerate(zip(layout.rows.tolist(), layout.prompt_lengths.tolist(), strict=True)):
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + text)
            from_end = int(torch.randint(self.count, (1,), generator=generator)) % length
            selected[row] = layout.in_prompt[row] & (layout.position[row] == length - 1 - from_end)
        return selected

    def __str__(self) -> str:
        return f"one of the last {self.count}"


def _positions(name: str, setup: TwoModels) -> Positions:
    """The rule of positions of this name; prompts of the paper's data have no token in which a question ends."""
    if name == "end":
        return substring("\nAssistant", token=0) if setup.edition == "organisms" else "last"
    if name == "one of the last 8":
        return OneOfLast(8)
    return "last" if name == "last" else int(name)


def tables(name: str, rows_by_case: RowsByCase) -> dict[str, list[Row]]:
    """A row for each case and variant, a column for each probe: AUROC; accuracy, and with the threshold set again."""
    lines: dict[str, dict[str, Any]] = {}
    for case, rows in rows_by_case.items():
        for row in rows:
            line = lines.setdefault(f"{case}; {row['variant']}", {"task, source to target": f"{case}; {row['variant']}"})
            auroc = row["AUROC"]
            if isinstance(auroc, Estimate):
                accuracy, again = value_of(row, "accuracy"), estimate_of(row, "accuracy, threshold set again")
                auroc = f"{auroc:.3f}; {accuracy:.2f}, {again:.2f}"
            line[str(row["probe"])] = auroc
    return {name: list(lines.values())}


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


def chart(cases: RowsByCase) -> Chart:
    """AUROC by how the probe is read."""
    names = {"home": "at home", "back": "mapped back", "forward": "probe moved forward", "shuffled back": "shuffled"}
    return dots(cases, "AUROC", "AUROC", "probe", {**names, "native": "native"})


def headline(cases: RowsByCase) -> Headline:
    """AUROC of the probe on the other model, read through a map back, and at home."""
    return headline_of(cases, "AUROC, mapped back", "at home", two_rows("AUROC", "probe", "back", "home"))
