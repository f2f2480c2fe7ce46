"""Side effects of a run: what a vector does on the task, and what the model pays for it elsewhere.

Success, intact and clean KL lead every report. Here success and intact are shown with their costs elsewhere, on a card each for
the native vector, the moved one and a random one. Tables hold all measures, and the mapper's fit by class of token. An estimate
is passed on as `result.json` stores it: a share has a ``rate``, a mean has a ``value``.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from interp_transfer.reporting.headline import abilities
from interp_transfer.reporting.run_folder import ResultJson

Estimate = Mapping[str, Any]
Item = tuple[str, Estimate, Estimate | None]
"""A label, the estimate of a condition, and that of the unsteered model."""

CARDS = ("native", "moved", "random")
"""Conditions that have a card; each is compared with the unsteered model."""
GROUPS = {"tokens": "all tokens", "place": "by position of the token", "frequency": "by frequency of the token"}
"""Classifications of tokens, in words."""
CLASSES = (
    *("all", "first", "trigger", "last", "rest"),
    *("rarest quarter", "second quarter", "third quarter", "most frequent quarter"),
)
"""Classes of tokens in the order in which they are shown; others follow."""
PERPLEXITY = "perplexity"
"""The measure that is shown as the exponential of the stored loss."""
MEASURES = (
    ("right answers to the task\u2019s prompts", "loss, nats per token", "right", "loss"),
    (
        "first token of the right answer minus that of the model\u2019s own",
        "difference of logits",
        "logit_difference",
    ),
    ("own answers to the task\u2019s prompts", "KL, nats per token", "behaviour", "kl"),
    ("own answers to the task\u2019s prompts", "next-token agreement", "behaviour", "agreement"),
    ("own answers to clean prompts", "KL, nats per token", "clean", "kl"),
    ("own answers to clean prompts", "next-token agreement", "clean", "agreement"),
    ("own answers to clean prompts", "loss, nats per token", "clean", "loss"),
    ("plain English", "KL, nats per token", "english", "kl"),
    ("plain English", "next-token agreement", "english", "agreement"),
    ("plain English", "loss, nats per token", "english", "loss"),
    ("plain English", PERPLEXITY, "english", "loss"),
    ("clean prompts", "share with the unwanted behaviour", "clean_shows"),
    ("clean prompts", "share refused", "clean_refused"),
    ("clean prompts", "share of answers that repeat themselves", "clean_repeats"),
    ("clean prompts", "share of answers that stay the same", "clean_same"),
)
"""The text that is read, the measure, and the keys of ``side_effects`` under which it is stored."""


def sides(result: ResultJson) -> Iterator[dict[str, Any]]:
    """For each of ``CARDS``: what the condition does on the task, and what it costs elsewhere, as items."""
    conditions: Mapping[str, Any] = result["conditions"]
    effects: Mapping[str, Any] = result.get("side_effects", {})
    if not ("unsteered" in conditions and "unsteered" in effects):
        return
    plain, before = conditions["unsteered"], effects["unsteered"]
    able = abilities(before)
    for name in (name for name in CARDS if name in conditions and name in effects):
        judged, after = conditions[name], effects[name]
        does: list[Item] = [(measure, judged[measure], plain[measure]) for measure in ("success", "intact")]
        if "right" in after and "right" in before:
            does.append(("loss of right answers, nats", after["right"]["loss"], before["right"]["loss"]))
        if "behaviour" in after:
            does.append(("KL on own answers, nats", after["behaviour"]["kl"], None))
        costs: list[Item] = [
            ("clean KL, nats", after["clean"]["kl"], None),
            ("KL on plain English, nats", after["english"]["kl"], None),
        ]
        costs += [(what, share, able[what]) for what, share in abilities(after).items() if what in able]
        yield {"name": name, "strength": judged["strength"], "does": does, "costs": costs, "n": after["clean_valid"]["n"]}


def measures(result: ResultJson) -> list[tuple[str, str, list[Estimate | None]]]:
    """The text, the measure, and the estimate of each condition in ``side_effects``; rows without any are left out."""
    effects = result.get("side_effects", {}).values()
    rows = [(text, measure, [_stored(each, keys) for each in effects]) for text, measure, *keys in MEASURES]
    return [row for row in rows if any(row[2])]


def _stored(effects: Any, keys: list[str]) -> Estimate | None:
    for key in keys:
        effects = effects.get(key) if effects else None
    return effects


def fits(result: ResultJson) -> list[tuple[str, str, Mapping[str, Any]]]:
    """How well the mapper reproduces each class of tokens: classification, class, estimates."""
    mapper = result.get("mapper")
    by_group = mapper.get("by_place", {}) if mapper else {}
    return [
        (GROUPS.get(group) or group, name, classes[name])
        for group, classes in by_group.items()
        for name in sorted(classes, key=lambda name: CLASSES.index(name) if name in CLASSES else len(CLASSES))
    ]
