"""Completions as pages show them, with the verdict on each: some side by side, and all of them to be filtered."""

import re
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from interp_transfer.escape import shown, visible
from interp_transfer.reporting.run_folder import CompletionsJson, TokensJson

CARDS = 3
"""Number of prompts at the head of a report."""
EXAMPLES = 12
"""Number of changed prompts that the page on two runs shows."""
DIFFERING = 2
"""Number of completions of a condition that are shown because its judges differ."""
SIDE_BY_SIDE = ("unsteered", "moved", "native", "random")
"""Conditions whose answers are shown at first, where a run has them."""
READABLE = 10_000
"""Characters of a token, prompt or completion that pages show."""
LONGEST = 600
"""Characters of a completion that are shown where it stands among others."""
COMPARED = 300
"""Words of a completion that are compared with another's."""


def cut(text: str, longest: int) -> str:
    """Return a text, or its beginning and how many characters it has beyond that."""
    hidden = len(text) - longest
    return f"{text[:longest]} \u2026 ({hidden} more characters)" if hidden > 0 else text


def readable(text: str) -> str:
    """Return a token, prompt or completion as pages show it: cut, with visible line breaks."""
    return shown(cut(text, READABLE))


BADGES = {"intact": "\u2713 intact", "success": "\u25d0 success, not valid", "failed": "\u2717 no success"}
"""What each kind of verdict is called."""


def kind_of(judged: Mapping[str, Any]) -> str:
    """Return the kind of verdict on a completion: intact, success (without a valid answer) or failed."""
    return "intact" if judged["intact"] else "success" if judged["success"] else "failed"


def shown_completion(judged: Mapping[str, Any]) -> dict[str, str]:
    """Text, reason, kind of verdict and badge of one completion."""
    kind = kind_of(judged)
    text = cut(judged["completion"].strip(" "), LONGEST)
    return {"kind": kind, "badge": BADGES[kind], "text": text or "(nothing)", "reason": judged["reason"][:LONGEST]}


def before_after(completions: CompletionsJson) -> dict[str, Any] | None:
    """The first prompts that need an intervention, unsteered and steered; None without an unsteered and another condition.

    A prompt needs one if the unsteered model has no success on it. How the steered model fares plays no part in the choice. If
    there is no such prompt, the first ones are shown.
    """
    by_condition = completions["conditions"]
    after = next((name for name in ("moved", "native", *by_condition) if name in by_condition and name != "unsteered"), None)
    if "unsteered" not in by_condition or after is None:
        return None
    before = by_condition["unsteered"]
    need = [i for i, judged in enumerate(before) if not judged["success"]]
    chosen = (need or [*range(len(before))])[:CARDS]
    answers = [[(name, shown_completion(by_condition[name][i])) for name in ("unsteered", after)] for i in chosen]
    cards = [(i, cut(completions["prompts"][i], LONGEST), both) for i, both in zip(chosen, answers, strict=True)]
    return {"cards": cards, "after": after, "need": len(need), "intact": sum(by_condition[after][i]["intact"] for i in need)}


def all_completions(completions: CompletionsJson, looks: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Everything that the models said, as ``completions.js`` reads it.

    Args:
        completions: of a run.
        looks: colour and marker of each condition.
    """
    by_condition = completions["conditions"]
    first = [name for name in SIDE_BY_SIDE if name in by_condition]
    first = first if len(first) > 2 else list(dict.fromkeys([*first, *by_condition]))[:3]
    order = list(dict.fromkeys([*first, *by_condition]))
    said = {name: [_readable(judged["completion"]) for judged in by_condition[name]] for name in order}
    pairs = zip(said["moved"], said["native"], strict=True) if {"moved", "native"} <= said.keys() else ()
    return {
        "prompts": [visible(cut(prompt, READABLE)) for prompt in completions["prompts"]],
        "conditions": [
            {
                "name": visible(name.replace("_", " ")),
                "key": name if name in ("moved", "native") else "",
                "colour": looks[name][0],
                "mark": looks[name][1],
                "shown": name in first,
                "answers": [
                    [visible(text), kind_of(judged), visible(judged["reason"][:LONGEST])]
                    for text, judged in zip(said[name], by_condition[name], strict=True)
                ],
            }
            for name in order
        ],
        "badges": BADGES,
        "differences": [[[visible(piece) for piece in side] for side in differences(*pair)] for pair in pairs],
        "marked": [_marked(tokens) for tokens in completions.get("tokens", [])] if partly_steered(completions) else [],
    }


def differences(one: str, other: str) -> tuple[list[str], list[str]]:
    """Two texts, each in pieces that are in turn common to both and not; the first piece is common and may be empty.

    They are compared word by word; all that follows ``COMPARED`` words counts as one.
    """
    sides = tuple(re.findall(r"\s+|\w+|[^\w\s]", text) for text in (one, other))
    heads = [words[:COMPARED] for words in sides]
    pieces: tuple[list[str], list[str]] = ([""], [""])
    for kind, *ends in SequenceMatcher(None, *heads, autojunk=False).get_opcodes():
        for side, words, start, end in zip(pieces, heads, ends[::2], ends[1::2], strict=True):
            if (kind == "equal") == (len(side) % 2 == 0):  # the last piece is of the other kind
                side.append("")
            side[-1] += "".join(words[start:end])
    for side, words in zip(pieces, sides, strict=True):
        if rest := "".join(words[COMPARED:]):
            if (sides[0][COMPARED:] == sides[1][COMPARED:]) == (len(side) % 2 == 0):
                side.append("")
            side[-1] += rest
    return pieces


def partly_steered(completions: CompletionsJson) -> bool:
    """Whether some tokens of the prompts are steered and others are not."""
    return len({steered for tokens in completions.get("tokens", []) for steered in tokens["steered"]}) > 1


def _marked(tokens: TokensJson) -> list[list[Any]]:
    return [[visible(piece), steered] for piece, steered in zip(tokens["pieces"], tokens["steered"], strict=True)]


def _readable(text: str) -> str:
    return cut(text.strip(" "), READABLE)


def differing(completions: CompletionsJson) -> Iterator[dict[str, Any]]:
    """The first completions of each condition on which the judges disagree."""
    for name, judged in completions["conditions"].items():
        for index in [i for i, each in enumerate(judged) if each.get("differ")][:DIFFERING]:
            prompt = completions["prompts"][index]
            yield {"prompt": prompt, "condition": name, "completion": shown_completion(judged[index])}
