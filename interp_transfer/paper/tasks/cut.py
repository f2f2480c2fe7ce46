"""Splits: the data's own where it has them, seeded ones where it has none.

Rows with the same key (the same question behind another trigger, say) always fall on the same side, so that a held-out
question was not trained on in another guise.
"""

import random
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from interp_transfer.prompts.contrast import Split

T = TypeVar("T")


def shuffled(items: Sequence[T], seed: int) -> list[T]:
    """The items in an order that depends on the seed alone."""
    mixed = list(items)
    random.Random(seed).shuffle(mixed)
    return mixed


def hold_out(items: Sequence[T], key: Callable[[T], str], share: float, seed: int) -> tuple[list[T], list[T]]:
    """Two lists, kept and held out, each in the order of `items`; `share` of the distinct keys is held out, at least one.

    With fewer than two keys nothing is held out.
    """
    keys = list(dict.fromkeys(key(item) for item in items))
    count = max(1, round(share * len(keys))) if len(keys) > 1 else 0
    held = set(shuffled(keys, seed)[:count])
    return [item for item in items if key(item) not in held], [item for item in items if key(item) in held]


def own_splits_for(split: Split, own: Collection[str]) -> tuple[str, ...]:
    """Which of the data's own splits must be read for one of ours.

    With all three, ours are its own. With "train" and one other, the other is our "test" (the paper's held-out tenth) and our
    "validation" is cut from "train". With one split alone, everything is cut from it.
    """
    if {"train", "validation", "test"} <= set(own):
        return (split,)
    others = [name for name in own if name != "train"]
    if "train" in own and len(others) == 1:
        return (others[0],) if split == "test" else ("train",)
    return tuple(own)


def part(
    items: Sequence[T], split: Split, own: Collection[str], key: Callable[[T], str], shares: tuple[float, float], seed: int
) -> list[T]:
    """One of our splits, out of the items of the own splits that `own_splits_for` names.

    Args:
        items: what was read.
        split: ours.
        own: all own splits of the data.
        key: items with the same key stay together.
        shares: of validation and test in all the data, where they are cut.
        seed: decides which keys are held out.
    """
    if own_splits_for("train", own) != own_splits_for("validation", own):
        return list(items)
    validation, test = shares
    if own_splits_for("test", own) == own_splits_for("train", own):
        items, held = hold_out(items, key, test, seed)
        if split == "test":
            return held
    elif split == "test":
        return list(items)
    train, held = hold_out(items, key, validation / (1 - test), seed + 1)
    return train if split == "train" else held
