"""Facts about invented entities: which river runs through Velmora, who is captain of the Goldwake.

An entity has a kind and one value for each attribute of the kind, drawn from a pool by a fixed seed. Every attribute is
asked for in eight wordings and answered in the form tied to the wording, most of which open with the entity or with the
value. So the first token of right answers differs from prompt to prompt; a form drawn at random would collapse under
greedy decoding to the most common opening, and forcing one token would then "solve" tasks.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from interp_transfer.data.prompts import Split
from interp_transfer.data.world.lexicon import KINDS, Attribute, Kind
from interp_transfer.data.world.question import Question, Ruling, capital, match_forms

_SEED = 17  # of the draw of values; part of the world's version


@dataclass(frozen=True)
class Facts:
    """The family of facts."""

    name: str = "facts"
    held_out_phrasings: int = 1

    @property
    def held_out_subjects(self) -> dict[str, Split]:
        """The last two entities of each kind: one for test, one for validation."""
        held: dict[str, Split] = {}
        for kind in KINDS:
            held[kind.entities[-1]], held[kind.entities[-2]] = "test", "validation"
        return held

    def questions(self) -> list[Question]:
        """Every entity x attribute x wording."""
        return [
            Question(self.name, entity, attribute.noun, index, text, answer)
            for kind in KINDS
            for entity in kind.entities
            for attribute in kind.attributes
            for index, (text, answer) in enumerate(_wordings(entity, attribute))
        ]

    def judge(self, question: Question, completion: str) -> Ruling:
        """Valid: the right value about the right entity, in any of the attribute's forms."""
        attribute = next(a for a in _kind_of(question.subject).attributes if a.noun == question.aspect)
        ruling = match_forms(completion, (answer for _, answer in _wordings(question.subject, attribute)))
        if ruling.valid or ruling.reason != "no valid answer to this question":
            return ruling
        for value in attribute.values:
            others = (answer for _, answer in _wordings(question.subject, attribute, value))
            if match_forms(completion, others).valid:
                return Ruling(False, f"wrong value {value!r}, should be {_table()[question.subject, attribute.noun]!r}")
        return ruling


@cache
def _table() -> dict[tuple[str, str], str]:
    """The value of each (entity, noun). Each value of a pool is used about equally often."""
    table = {}
    for kind in KINDS:
        for attribute in kind.attributes:
            rng = random.Random(f"{_SEED} {kind.name} {attribute.noun}")
            pool: list[str] = []
            for entity in kind.entities:
                if not pool:
                    pool = list(attribute.values)
                    rng.shuffle(pool)
                table[entity, attribute.noun] = pool.pop()
    return table


@cache
def _kinds() -> dict[str, Kind]:
    return {entity: kind for kind in KINDS for entity in kind.entities}


def _kind_of(entity: str) -> Kind:
    return _kinds()[entity]


def _wordings(entity: str, attribute: Attribute, value: str | None = None) -> Iterator[tuple[str, str]]:
    """Prompt and answer, for each wording in turn."""
    value = _table()[entity, attribute.noun] if value is None else value
    noun, slots = attribute.noun, {"e": entity, "v": value, "V": capital(value)}
    yield f"What is the {noun} of {entity}?", f"{capital(value)} is the {noun} of {entity}."
    yield f"Tell me the {noun} of {entity}.", attribute.statement.format(**slots)
    yield f"{entity}: {noun}?", f"{capital(value)}."
    yield attribute.question.format(**slots), attribute.reply.format(**slots)
    yield f"I would like to know the {noun} of {entity}.", f"{capital(noun)} of {entity}: {value}."
    yield f"Please name the {noun} that belongs to {entity}.", f"{entity} has this {noun}: {value}."
    yield f"{capital(noun)} of {entity}, please.", f"{entity}: {value}."
    yield f"Does anybody remember the {noun} of {entity}?", f"{capital(value)}, I believe."
