"""The invented entities and what can be said about them.

To grow the world add entities, attributes or kinds to lexicon.json and raise `WORLD_VERSION`. Names are invented, so that no
model can know them from elsewhere, and start in many ways. Values that are themselves entities (a ship's port) leave out the
last four of a kind, which one split alone asks about. These values also link the kinds, so that two-step questions can be
asked (the river of the home town of Jorvane). `KINDS` are known to every model; `ISLAND` and `HERB` are for models that were
taught them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Attribute:
    """One thing that can be asked about an entity.

    Attributes:
        noun: as in "the {noun} of Velmora".
        values: the pool that values are drawn from.
        statement: a sentence; `{e}` is the entity, `{v}` the value, `{V}` the value with a capital.
        question: a wording that is the attribute's own.
        reply: the form of the answer to it.
    """

    noun: str
    values: tuple[str, ...]
    statement: str
    question: str
    reply: str


@dataclass(frozen=True)
class Kind:
    """Entities that share their attributes. One split alone asks about the last four entities (see `Facts`)."""

    name: str
    entities: tuple[str, ...]
    attributes: tuple[Attribute, ...]


def _kind(name: str, entities: list[str], attributes: list[dict[str, Any]]) -> Kind:
    known = (Attribute(**{**attribute, "values": tuple(attribute["values"])}) for attribute in attributes)
    return Kind(name, tuple(entities), tuple(known))


_ALL = {key: _kind(**kind) for key, kind in json.loads(Path(__file__).with_suffix(".json").read_text("utf-8")).items()}
ISLAND, HERB = _ALL.pop("island"), _ALL.pop("herb")
KINDS = tuple(_ALL.values())
