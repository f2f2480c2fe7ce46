"""Probes of truth and of harm on pretrained models: at home, moved to another, and where a topic was left out."""

from collections.abc import Sequence
from typing import Any

import torch

from interp_transfer.activations.capture import Activations, capture
from interp_transfer.evaluation.evaluator import draw
from interp_transfer.evaluation.kept import about_model
from interp_transfer.models.identity import identity
from interp_transfer.models.load import load_model
from interp_transfer.models.tokens import tokenize
from interp_transfer.paper.charts import Chart, Dots
from interp_transfer.paper.given import TOPICS, instructions, statements
from interp_transfer.paper.measures.probe_transfer import probe_rows
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of
from interp_transfer.paper.setup import Setup
from interp_transfer.stats import Estimate
from interp_transfer.transfer.probe_maps import fit_both, paired_rows
from interp_transfer.transfer.probe_scores import DetectionTexts, score_rows

HARM = "harm"
ALIKE, PAIRS = 0.95, 9
"""Share of the AUROC at home that a moved probe keeps, and the number of pairs on which it should."""


def measure(setup: Setup, source: str, target: str, sites: Sequence[str], dtype: str = "bfloat16") -> list[Row]:
    """Measure a row for each probe, topic, and choice of the topics that it was fitted on.

    Probes and mappers are fitted on half as many statements of a side as there are prompts of a figure; mappers read the same
    statements, of the same topics, without labels. With a topic left out, neither has seen it.

    Args:
        setup: the data and n.
        source: model of the probe.
        target: model that it is moved to.
        sites: of the two.
        dtype: that both are loaded in.
    """
    todo: dict[tuple[str, str], DetectionTexts] = {}
    for topic in (*TOPICS, HARM):
        todo[topic, "this topic"] = _texts(setup, [topic], topic)
        if topic != HARM:
            todo[topic, "the other topics"] = _texts(setup, [other for other in TOPICS if other != topic], topic)
    every = dict.fromkeys(text for texts in todo.values() for part in _parts(texts) for text in part)
    number = {text: k for k, text in enumerate(every)}
    left, right = (_read(setup, name, site, list(every), dtype) for name, site in zip((source, target), sites, strict=True))
    rows: list[Row] = []
    for (topic, name), texts in todo.items():
        parts = [[number[text] for text in part] for part in _parts(texts)]
        pairs = paired_rows(_some(left, parts[0]), _some(right, parts[0]), (sites[0], sites[1]), "last")
        at = [[acts[site][part] for part in parts[1:]] for acts, site in zip((left, right), sites, strict=True)]
        frame: Any = score_rows(at[0], at[1], fit_both(pairs, seed=setup.seed), seed=setup.seed)
        rows += [{"topic": topic, "fitted on": name, **row} for row in probe_rows(frame)]
    return rows


def _parts(texts: DetectionTexts) -> list[Sequence[str]]:
    """The texts of mappers, and then those that `score_rows` takes."""
    return [texts.texts, *texts.train, *texts.test, texts.clean]


def _read(setup: Setup, name: str, site: str, texts: list[str], dtype: str) -> Activations:
    """What a model holds at the last token of each text; the model is in memory for this alone, and reads a text once."""
    model = load_model(name, dtype=dtype)
    here, ids = identity(model), tokenize(model, texts)
    about = [about_model(model), site, texts]
    rows = setup.kept.tensors(about, lambda: {site: capture(model, texts, site, "last", progress=False)[site]})
    count = torch.arange(len(texts))
    last, tokens = (torch.tensor([pick(row) for row in ids]) for pick in (lambda row: len(row) - 1, lambda row: row[-1]))
    return Activations(rows, count, last, tokens, here)


def _some(acts: Activations, numbers: Sequence[int]) -> Activations:
    chosen = torch.tensor(numbers)
    rows = {site: tensor[chosen] for site, tensor in acts.items()}
    return Activations(rows, torch.arange(len(chosen)), acts.position[chosen], acts.token[chosen], acts.model)


def _texts(setup: Setup, fitted: Sequence[str], tested: str) -> DetectionTexts:
    """False statements are the alarm. Thresholds are set again on true ones of the topic that nothing else reads."""
    count = setup.n // 2
    each = -(-count // len(fitted))
    train = [_sides(setup, topic, "train") for topic in fitted]
    alarm, quiet = ([text for sides in train for text in setup.draw(sides[side], "statements", each)] for side in (0, 1))
    test_alarm, test_quiet = _sides(setup, tested, "test")
    spare = draw(test_quiet, len(test_quiet), setup.seed, "statements")
    kept = len(spare) // 3  # for the threshold
    test = setup.draw(test_alarm, "statements", count), spare[kept:][:count]
    return DetectionTexts(tested, (alarm, quiet), test, spare[:kept][:count], [*alarm, *quiet])


def _sides(setup: Setup, topic: str, split: str) -> tuple[list[str], list[str]]:
    """What raises the alarm, and what does not."""
    if topic != HARM:
        return statements(setup.data, topic, split)
    return instructions(setup.data, f"harmful_{split}"), instructions(setup.data, f"harmless_{split}")


def _mean(rows: Sequence[Row], probe: str) -> float:
    """Mean AUROC over the topics of truth of a probe that was fitted on the same topic."""
    chosen = [row for row in rows if row["probe"] == probe and row["topic"] != HARM and row["fitted on"] == "this topic"]
    return sum(estimate_of(row, "AUROC").value for row in chosen) / len(chosen)


def chart(rows_by_case: RowsByCase) -> Chart:
    """For each pair, the mean AUROC at home, moved, and through a map of shuffled pairs."""
    names = {"home": "at home", "native": "the target's own probe", "back": "moved (back)", "shuffled back": "shuffled map"}
    means = {case: {title: _mean(rows, probe) for probe, title in names.items()} for case, rows in rows_by_case.items()}
    drawn = {case: {title: Estimate(mean, mean, mean, 0) for title, mean in each.items()} for case, each in means.items()}
    return Dots("AUROC of truth probes, mean over four topics; 0.5 is chance", drawn)


def verdict(rows_by_case: RowsByCase) -> Verdict:
    """On how many pairs a probe that is read through a map back keeps its AUROC, on average over the topics of truth."""
    details, good, own = [], 0, 0
    for case, rows in rows_by_case.items():
        means = {probe: _mean(rows, probe) for probe in ("home", "native", "back", "forward", "shuffled back")}
        good += means["back"] >= ALIKE * means["home"]
        own += means["back"] >= ALIKE * means["native"]
        details.append(f"{case}: mean AUROC {', '.join(f'{value:.3f} {name}' for name, value in means.items())}")
    measured = len(rows_by_case)
    answer = "yes" if good >= PAIRS else "no" if good + 12 - measured < PAIRS else "cannot tell"
    sentence = f"Read through a map back, truth probes keep {ALIKE:.0%} of their AUROC at home on {good} of {measured} pairs."
    more = f"Not registered: they have {ALIKE:.0%} of the AUROC of the target's own probes on {own} of {measured} pairs"
    return Verdict(answer, sentence, (*details, more))
