"""Contrast pairs and splits.

A contrast is a list of pairs of prompts that differ in one respect; the positive side shows the wanted behaviour. Each side is
a text or a chat (see ``prompts.chats``).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from interp_transfer.names import misplaced, quoted
from interp_transfer.prompts.chats import Prompt, as_prompt

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class ContrastPair:
    """Two prompts, each a text or a `Chat`, that differ in one respect; `positive` shows the wanted behaviour."""

    positive: Any
    negative: Any


def check_split(split: str) -> Split:
    """Return ``split`` if it is the name of a split.

    Raises:
        ValueError: for any other name.
    """
    for known in SPLITS:
        if split == known:
            return known
    raise ValueError(f"unknown split {quoted(split)}: choose one of {', '.join(SPLITS)}")


Pairs = Sequence[Any]
"""``ContrastPair`` or plain (positive, negative) tuples; ``sides`` checks them."""


def sides(contrast: Pairs) -> tuple[list[Prompt], list[Prompt]]:
    """The positive and the negative prompts of a contrast.

    Raises:
        ValueError: if it is empty or does not consist of pairs.
    """
    if not isinstance(contrast, Iterable):
        raise misplaced(contrast, "pairs of prompts", "give a list of (positive, negative), such as task.contrast('train')")
    pairs = list(contrast)
    if not pairs:
        raise ValueError("the contrast is empty: give at least one pair of (positive, negative) texts")
    if isinstance(contrast, str) or any(isinstance(pair, str) for pair in pairs):
        raise ValueError("a contrast is a list of (positive, negative) pairs of texts, not of single texts")
    both = []
    for index, pair in enumerate(pairs):
        two = (pair.positive, pair.negative) if isinstance(pair, ContrastPair) else tuple(pair)
        try:
            positive, negative = map(as_prompt, two)
        except ValueError as error:
            raise ValueError(
                f"pair {index} of the contrast is {quoted(two)}: give two texts or chats, (positive, negative)"
            ) from error
        both.append((positive, negative))
    return [positive for positive, _ in both], [negative for _, negative in both]
