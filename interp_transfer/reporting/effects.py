"""Side effects of a run: what a vector does on the task, and what the model pays for it elsewhere.

Success, intact and clean KL lead every report. Here success and intact are shown with their costs elsewhere, on a card each for
the native vector, the moved one and a random one. Tables hold all measures, and the mapper's fit by class of token.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from interp_transfer.plots.style import percent
from interp_transfer.reporting.formats import interval, short
from interp_transfer.reporting.headline import LOST, abilities
from interp_transfer.reporting.run_folder import ResultJson

CARDS = ("native", "moved", "random")
"""Conditions that have a card; each is compared with the unsteered model."""
CLASSES = (
    *("all", "first", "trigger", "last", "rest"),
    *("rarest quarter", "second quarter", "third quarter", "most frequent quarter"),
)
"""Classes of tokens in the order in which they are shown; others follow."""
LARGEST_LOSS = 700.0
"""The largest loss, in nats, whose exponential is a finite float."""
WHOLE, HUGE = 100, 1e7
"""Perplexities from ``WHOLE`` on are shown as whole numbers, from ``HUGE`` on as powers of ten."""
MEASURES = (
    ("right answers to the task\u2019s prompts", "loss, nats per token", "right", "loss"),
    ("own answers to the task\u2019s prompts", "KL, nats per token", "behaviour", "kl"),
    ("own answers to the task\u2019s prompts", "next-token agreement", "behaviour", "agreement"),
    ("own answers to clean prompts", "KL, nats per token", "clean", "kl"),
    ("own answers to clean prompts", "next-token agreement", "clean", "agreement"),
    ("own answers to clean prompts", "loss, nats per token", "clean", "loss"),
    ("plain English", "KL, nats per token", "english", "kl"),
    ("plain English", "next-token agreement", "english", "agreement"),
    ("plain English", "loss, nats per token", "english", "loss"),
)
"""The text that is read, the measure, and the two keys of ``side_effects`` under which it is stored."""


def sides(result: ResultJson) -> Iterator[dict[str, Any]]:
    """For each of ``CARDS``: what the condition does on the task, and what it costs elsewhere."""
    conditions: Mapping[str, Any] = result["conditions"]
    effects: Mapping[str, Any] = result.get("side_effects", {})
    if not ("unsteered" in conditions and "unsteered" in effects):
        return
    plain, before = conditions["unsteered"], effects["unsteered"]
    able = abilities(before)
    for name in (name for name in CARDS if name in conditions and name in effects):
        judged, after = conditions[name], effects[name]
        does = [_share(measure, judged[measure], plain[measure]) for measure in ("success", "intact")]
        if "right" in after and "right" in before:
            does.append(_nats("loss of right answers, nats", after["right"]["loss"], before["right"]["loss"]["value"]))
        if behaviour := after.get("behaviour"):
            does.append(_nats("KL on own answers, nats", behaviour["kl"]))
        costs = [_nats("clean KL, nats", after["clean"]["kl"]), _nats("KL on plain English, nats", after["english"]["kl"])]
        costs += [_share(what, share, able[what]) for what, share in abilities(after).items() if what in able]
        n = after["clean_valid"]["n"]
        yield {"name": name, "strength": judged["strength"], "does": does, "costs": costs, "n": n}


def _share(what: str, share: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "what": what,
        "value": percent(share["rate"]),
        "interval": interval(share),
        "before": f"was {percent(before['rate'])}",
        "bar": {"at": _css_length(share["rate"]), "before": _css_length(before["rate"])},
        "lost": before["rate"] - share["rate"] > LOST,
    }


def _nats(what: str, mean: Mapping[str, Any], before: float | None = None) -> dict[str, Any]:
    was = "" if before is None else f"was {short(before)}"
    return {"what": what, **_cell(mean), "before": was, "bar": None, "lost": False}


def _css_length(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.1f}%"


def measures(result: ResultJson) -> dict[str, Any]:
    """A row for each measure of predictions with a cell for each condition; empty where nothing was measured."""
    effects: Mapping[str, Any] = result.get("side_effects", {})
    if not effects:
        return {}
    rows = []
    for read, what, part, measure in MEASURES:
        means = [each[part][measure] if part in each else None for each in effects.values()]
        rows.append(_row(read, what, means))
        if (part, measure) == ("english", "loss"):
            rows.append(_row(read, "perplexity", means, _perplexity))
    logits = [each["logit_difference"] for each in effects.values()]
    first_token = "first token of the right answer less that of the model\u2019s own"
    rows.insert(1, _row(first_token, "difference of logits", logits))
    shares = [{**each["clean_shows"], "value": each["clean_shows"]["rate"]} for each in effects.values()]
    rows.append(_row("clean prompts", "unwanted behaviour shows", shares, percent))
    return {"names": [name.replace("_", " ") for name in effects], "rows": [row for row in rows if any(row["cells"])]}


def _row(
    read: str, what: str, means: Sequence[Mapping[str, Any] | None], show: Callable[[float], str] = short
) -> dict[str, Any]:
    cells = [None if mean is None else _cell(mean, show) for mean in means]
    return {"read": read, "what": what, "cells": cells, "n": max((mean["n"] for mean in means if mean), default=None)}


def _cell(mean: Mapping[str, Any], show: Callable[[float], str] = short) -> dict[str, Any]:
    return {"value": show(mean["value"]), "interval": interval(mean, show)}


def _perplexity(loss: float) -> str:
    if loss > LARGEST_LOSS:
        return "beyond all bounds"
    value = math.exp(loss)
    return short(value) if value < WHOLE else f"{value:,.0f}" if value < HUGE else f"{value:.1e}"


def fits(result: ResultJson) -> list[tuple[str, str, Mapping[str, Any]]]:
    """How well the mapper reproduces each class of tokens: group, class, figures."""
    groups = {"tokens": "all tokens", "place": "by where the token stands", "frequency": "by how often the token occurs"}
    mapper = result.get("mapper")
    by_group = mapper.get("by_place", {}) if mapper else {}
    return [
        (groups.get(group) or group, name, classes[name])
        for group, classes in by_group.items()
        for name in sorted(classes, key=lambda name: CLASSES.index(name) if name in CLASSES else len(CLASSES))
    ]
