"""Ready contrasts: traits of a model's answers, and a small set of requests that are refused.

A trait is brought out by an instruction in the system prompt, and recognised by words. Any two traits make a contrast; each
trait also has an opposite. The data are the files in ``ready``: ``traits.toml`` (instructions and words), ``questions.toml``
(questions that are put under them) and ``refusal.jsonl`` (64 mildly harmful requests, each with a harmless twin).
"""

import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

from interp_transfer.names import find
from interp_transfer.prompts.chats import Chat
from interp_transfer.prompts.contrast import SPLITS, ContrastPair, check_split

READY = Path(__file__).parent / "ready"
REFUSAL_FILE = READY / "refusal.jsonl"


@dataclass(frozen=True)
class Trait:
    """A trait of answers.

    Attributes:
        name: the trait.
        opposite: the name of its opposite.
        instructions: system prompts that bring it out.
        words: words and phrases of answers that have it; an entry that ends in * stands for every word that begins so.
    """

    name: str
    opposite: str
    instructions: tuple[str, ...] = field(repr=False)
    words: tuple[str, ...] = field(repr=False)


@cache
def traits() -> Mapping[str, Trait]:
    """Return all traits by name."""
    plain = tomllib.loads((READY / "traits.toml").read_text(encoding="utf-8"))
    return MappingProxyType(
        {name: Trait(name, t["opposite"], tuple(t["instructions"]), tuple(t["words"])) for name, t in plain.items()}
    )


def two_traits(wanted: str, unwanted: str) -> tuple[Trait, Trait]:
    """Return two different traits.

    Raises:
        ValueError: for an unknown name, with the closest one, or the same trait twice.
    """
    both = find(wanted, traits(), "trait"), find(unwanted, traits(), "trait")
    if wanted == unwanted:
        raise ValueError(f"both traits are {wanted!r}: give two, such as {wanted!r} and its opposite {both[0].opposite!r}")
    return both


@cache
def questions(split: str) -> tuple[str, ...]:
    """Return the questions of a split in a mixed order. No topic is in two splits.

    Raises:
        ValueError: for an unknown split.
    """
    plain = tomllib.loads((READY / "questions.toml").read_text(encoding="utf-8"))
    topics, templates = plain["topics"][check_split(split)], plain["templates"]
    # Each round puts every topic once, the templates shifted by one from topic to topic and from round to round.
    return tuple(
        templates[(turn + k) % len(templates)].format(topic=topic)
        for turn in range(len(templates))
        for k, topic in enumerate(topics)
    )


def trait_pairs(wanted: str, unwanted: str, split: str | None = None) -> list[ContrastPair]:
    """Return a contrast of two traits: chats with the same question under two system prompts.

    A model whose chat template has no system role reads the instruction at the beginning of the user's message, see
    ``models.chat_templates.render_chat``.

    Args:
        wanted: trait of the positive sides, such as "cheerful".
        unwanted: trait of the negative sides, such as "gloomy"; any other trait.
        split: "train" (128 pairs), "validation" (64) or "test" (208); all of them unless given.

    Raises:
        ValueError: for an unknown trait or split, with the closest name, or the same trait twice.
    """
    instructions = list(zip(*(trait.instructions for trait in two_traits(wanted, unwanted)), strict=True))
    pairs = []
    for part in SPLITS if split is None else (check_split(split),):
        drawn = random.Random(part)
        for question in questions(part):
            sides = (Chat((("system", one), ("user", question))) for one in drawn.choice(instructions))
            pairs.append(ContrastPair(*sides))
    return pairs
