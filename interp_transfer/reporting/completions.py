"""Completions as pages show them: cut to a readable length, with the verdict on each."""

from collections.abc import Iterator, Mapping
from typing import Any

from interp_transfer.escape import shown
from interp_transfer.reporting.run_folder import CompletionsJson

EXAMPLES = 12
"""Number of prompts that are shown."""
DIFFERING = 2
"""Number of completions of a condition that are shown because its judges differ."""
SIDE_BY_SIDE = ("unsteered", "native", "moved", "random")
READABLE = 10_000
"""Characters of a token, prompt or completion that pages show."""
LONGEST = 600
"""Characters of a completion that are shown."""


def cut(text: str, longest: int) -> str:
    """Return a text, or its beginning and how many characters it has beyond that."""
    hidden = len(text) - longest
    return f"{text[:longest]} \u2026 ({hidden} more characters)" if hidden > 0 else text


def readable(text: str) -> str:
    """Return a token, prompt or completion as pages show it: cut, with visible line breaks."""
    return shown(cut(text, READABLE))


def shown_completion(judged: Mapping[str, Any]) -> dict[str, str]:
    """Text, reason, kind of verdict and badge of one completion."""
    kind, badge = "failed", "\u2717 no success"
    if judged["intact"]:
        kind, badge = "intact", "\u2713 intact"
    elif judged["success"]:
        kind, badge = "success", "\u25d0 not valid"
    text = cut(judged["completion"].strip(" "), LONGEST)
    return {"kind": kind, "badge": badge, "text": text or "(nothing)", "reason": judged["reason"][:LONGEST]}


def examples(completions: CompletionsJson) -> Iterator[dict[str, Any]]:
    """The first prompts, with their steered tokens if known, and the completions of the main conditions."""
    by_condition = completions["conditions"]
    names = [name for name in SIDE_BY_SIDE if name in by_condition]
    if len(names) < 3:
        names = list(dict.fromkeys([*names, *by_condition]))[:4]
    tokens = completions.get("tokens", [])
    for index, prompt in enumerate(completions["prompts"][:EXAMPLES]):
        pieces = [(prompt, False)]
        if index < len(tokens):
            pieces = list(zip(tokens[index]["pieces"], tokens[index]["steered"], strict=True))
        yield {"pieces": pieces, "answers": [(name, shown_completion(by_condition[name][index])) for name in names]}


def differing(completions: CompletionsJson) -> Iterator[dict[str, Any]]:
    """The first completions of each condition on which the judges disagree."""
    for name, judged in completions["conditions"].items():
        for index in [i for i, each in enumerate(judged) if each.get("differ")][:DIFFERING]:
            prompt = completions["prompts"][index]
            yield {"prompt": prompt, "condition": name, "completion": shown_completion(judged[index])}
