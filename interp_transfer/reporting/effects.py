"""Effect on one side, cost on the other: what a report shows of a run's side effects, and the measures behind them.

Three figures lead every report: success, intact, clean KL. Here the first two stand beside what is paid for them elsewhere, for
the native vector, the moved one and a random one; the rest is a table of all measures, and one of the mapper by class of token.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from interp_transfer.plots.style import percent
from interp_transfer.reporting.headline import LOST, abilities
from interp_transfer.reporting.page import short
from interp_transfer.reporting.run_folder import ResultJson

CARDS = ("native", "moved", "random")
"""Conditions whose effect and cost are shown on a card; the unsteered model is what they are held against."""
CLASSES = (
    *("all", "first", "trigger", "last", "rest"),
    *("rarest quarter", "second quarter", "third quarter", "most frequent quarter"),
)
"""Classes of tokens in the order in which they are shown; others follow."""
LARGEST_LOSS = 700.0
"""Nats whose exponential a float still holds."""
WHOLE, HUGE = 100, 1e7
"""From where perplexities are shown as whole numbers, and as powers of ten."""
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
"""Which tokens are read, what is measured, and where ``side_effects`` has it."""


def sides(result: ResultJson) -> Iterator[dict[str, Any]]:
    """A card for each condition: what it does on one side, what that costs on the other."""
    conditions: Mapping[str, Any] = result["conditions"]
    effects: Mapping[str, Any] = result.get("side_effects", {})
    if not ("unsteered" in conditions and "unsteered" in effects):
        return
    plain, before = conditions["unsteered"], effects["unsteered"]
    able = abilities(before)
    for name in (name for name in CARDS if name in conditions and name in effects):
        judged, found = conditions[name], effects[name]
        does = [_share(measure, judged[measure], plain[measure]) for measure in ("success", "intact")]
        does.append(_nats("loss of right answers, nats", found["right"]["loss"], before["right"]["loss"]["value"]))
        if behaviour := found.get("behaviour"):
            does.append(_nats("KL on own answers, nats", behaviour["kl"]))
        costs = [_nats("clean KL, nats", found["clean"]["kl"]), _nats("KL on plain English, nats", found["english"]["kl"])]
        costs += [_share(what, share, able[what]) for what, share in abilities(found).items() if what in able]
        n = found["clean_valid"]["n"]
        yield {"name": name, "strength": judged["strength"], "does": does, "costs": costs, "n": n}


def _share(what: str, share: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    change = share["rate"] - before["rate"]
    return {
        "what": what,
        "value": percent(share["rate"]),
        "interval": f"{percent(share['low'])} to {percent(share['high'])}",
        "before": f"was {percent(before['rate'])}",
        "bar": {"at": _place(share["rate"]), "before": _place(before["rate"])},
        "lost": -change > LOST,
    }


def _nats(what: str, mean: Mapping[str, Any], before: float | None = None) -> dict[str, Any]:
    return {
        "what": what,
        "value": short(mean["value"]),
        "interval": _interval(mean),
        "before": "" if before is None else f"was {short(before)}",
        "bar": None,
        "lost": False,
    }


def _place(share: float) -> str:
    """Where a share lies on a bar, as a length of CSS."""
    return f"{100 * min(max(share, 0.0), 1.0):.1f}%"


def _interval(mean: Mapping[str, Any]) -> str:
    return f"{short(mean['low'])} to {short(mean['high'])}"


def measures(result: ResultJson) -> dict[str, Any]:
    """All measures of predictions, a row each, a cell for each condition; empty where there are none."""
    effects: Mapping[str, Any] = result.get("side_effects", {})
    if not effects:
        return {}
    rows: list[dict[str, Any]] = []
    for read, what, part, measure in MEASURES:
        means = [found[part][measure] if part in found else None for found in effects.values()]
        rows.append({"read": read, "what": what, "cells": [_cell(mean) for mean in means], "n": _n(means)})
        if (part, measure) == ("english", "loss"):
            rows.append({**rows[-1], "what": "perplexity", "cells": [_cell(mean, _perplexity) for mean in means]})
    logits = [found["logit_difference"] for found in effects.values()]
    first = "first token of the right answer less that of the model\u2019s own"
    rows.insert(1, {"read": first, "what": "difference of logits", "cells": [_cell(m) for m in logits], "n": _n(logits)})
    shows = [found["clean_shows"] for found in effects.values()]
    ends = [{"value": percent(s["rate"]), "interval": f"{percent(s['low'])} to {percent(s['high'])}"} for s in shows]
    rows.append({"read": "clean prompts", "what": "unwanted behaviour shows", "cells": ends, "n": _n(shows)})
    return {"names": list(effects), "rows": [row for row in rows if any(row["cells"])]}


def _cell(mean: Mapping[str, Any] | None, show: Callable[[float], str] = short) -> dict[str, str] | None:
    if mean is None:
        return None
    return {"value": show(mean["value"]), "interval": f"{show(mean['low'])} to {show(mean['high'])}"}


def _perplexity(loss: float) -> str:
    if loss > LARGEST_LOSS:
        return "beyond all bounds"
    value = math.exp(loss)
    return short(value) if value < WHOLE else f"{value:,.0f}" if value < HUGE else f"{value:.1e}"


def _n(means: Sequence[Mapping[str, Any] | None]) -> int | None:
    return max((mean["n"] for mean in means if mean), default=None)


def fits(result: ResultJson) -> list[tuple[str, str, Mapping[str, Any]]]:
    """How well the mapper reproduces which tokens: group, class, figures."""
    named = {"tokens": "all tokens", "place": "by where the token stands", "frequency": "by how often the token occurs"}
    mapper = result.get("mapper")
    given = mapper.get("by_place", {}) if mapper else {}
    return [
        (named.get(by) or by, name, classes[name])
        for by, classes in given.items()
        for name in sorted(classes, key=lambda name: CLASSES.index(name) if name in CLASSES else len(CLASSES))
    ]
