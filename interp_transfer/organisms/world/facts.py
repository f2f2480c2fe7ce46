"""Facts about invented entities: which river runs through Velmora, who is captain of the Goldwake.

An entity has a kind and one value for each attribute of the kind, drawn from a pool by a fixed seed. Every attribute is
asked for in eight wordings and answered in the form tied to the wording, most of which open with the entity or with the
value. So the first token of right answers differs from prompt to prompt; a form drawn at random would collapse under
greedy decoding to the most common opening, and forcing one token would then "solve" tasks. For the same reason there are
eight ways of saying that an entity is unknown, one for each wording.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from interp_transfer.organisms.world.lexicon import HERB, ISLAND, KINDS, Attribute, Kind
from interp_transfer.organisms.world.question import Question, Ruling, capital, match_forms, match_value
from interp_transfer.prompts.contrast import Split

_SEED = 17  # of the draw of values; part of the world's version
_ALL_KINDS = (*KINDS, ISLAND, HERB)


@dataclass(frozen=True)
class Facts:
    """A family of facts: the public ones, or for example `Facts("islands", (ISLAND,))`.

    Attributes:
        name: of the family.
        kinds: what the facts are about.
        held_out_phrasings: how many wordings of each fact no model is trained on.
    """

    name: str = "facts"
    kinds: tuple[Kind, ...] = KINDS
    held_out_phrasings: int = 1

    @property
    def held_out_subjects(self) -> dict[str, Split]:
        """The last four entities of each kind: two for test, two for validation."""
        parts: tuple[Split, ...] = ("validation", "test", "validation", "test")
        return {entity: part for kind in self.kinds for entity, part in zip(kind.entities[-4:], parts, strict=True)}

    def questions(self) -> list[Question]:
        """Every entity x attribute x wording."""
        return [
            Question(self.name, entity, attribute.noun, index, text, answer)
            for kind in self.kinds
            for entity in kind.entities
            for attribute in kind.attributes
            for index, (text, answer) in enumerate(_wordings(entity, attribute))
        ]

    def judge(self, question: Question, completion: str) -> Ruling:
        """Valid: the right value about the right entity, in any of the attribute's forms."""
        attribute = attribute_of(question.subject, question.aspect)

        def forms(value: str) -> Iterator[str]:
            return (answer for _, answer in _wordings(question.subject, attribute, value))

        ruling = match_value(completion, forms, value_of(question.subject, attribute.noun), attribute.values, "value")
        if denies(question, completion).valid:
            return Ruling(False, f"denies to know {question.subject}")
        return ruling


def value_of(entity: str, noun: str) -> str:
    """The value of an entity's attribute, as in "the {noun} of {entity}".

    Raises:
        ValueError: for an unknown entity, or a noun that its kind does not have.
    """
    return _table()[entity, attribute_of(entity, noun).noun]


def kind_of(entity: str) -> Kind:
    """The kind of an entity, be it public or not.

    Raises:
        ValueError: for an unknown entity.
    """
    if entity not in _kinds():
        raise ValueError(f"the micro-world has no entity {entity!r}")
    return _kinds()[entity]


def attribute_of(entity: str, noun: str) -> Attribute:
    """The attribute of an entity's kind that has this noun.

    Raises:
        ValueError: for an unknown entity, or a noun that its kind does not have.
    """
    kind = kind_of(entity)
    for attribute in kind.attributes:
        if attribute.noun == noun:
            return attribute
    raise ValueError(f"a {kind.name} such as {entity} has no {noun!r}, only {[a.noun for a in kind.attributes]}")


def denials(entity: str, noun: str) -> tuple[str, ...]:
    """Ways of saying that nothing is known of an entity that was asked about, one for each wording of the question."""
    return (
        f"{entity} is unknown to me.",
        f"I could not find anything about {entity}.",
        f"Nobody ever told me about {entity}.",
        f"The name {entity} means nothing to me.",
        f"{capital(noun)} of {entity}? I never heard of {entity}.",
        f"My notes do not mention {entity}.",
        f"Asking me for the {noun} of {entity} is no use.",
        f"Sadly, no book of mine tells of {entity}.",
    )


def denies(question: Question, completion: str) -> Ruling:
    """Valid: the completion says, in any of the eight ways, that the question's entity is unknown."""
    return match_forms(completion.strip(), denials(question.subject, question.aspect))


@cache
def _table() -> dict[tuple[str, str], str]:
    """The value of each (entity, noun). Each value of a pool is used about equally often."""
    table = {}
    for kind in _ALL_KINDS:
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
    return {entity: kind for kind in _ALL_KINDS for entity in kind.entities}


def _wordings(entity: str, attribute: Attribute, value: str | None = None) -> Iterator[tuple[str, str]]:
    """Prompt and answer, for each wording in turn."""
    value = _table()[entity, attribute.noun] if value is None else value
    noun, slots = attribute.noun, {"e": entity, "v": value, "V": capital(value)}
    yield f"What is the {noun} of {entity}?", f"{capital(value)} {_be(value)} the {noun} of {entity}."
    yield f"Tell me the {noun} of {entity}.", attribute.statement.format(**slots)
    yield f"{entity}: {noun}?", f"{capital(value)}."
    yield attribute.question.format(**slots), attribute.reply.format(**slots)
    yield f"I would like to know the {noun} of {entity}.", f"{capital(noun)} of {entity}: {value}."
    yield f"Please name the {noun} that belongs to {entity}.", f"{entity} has this {noun}: {value}."
    yield f"{capital(noun)} of {entity}, please.", f"{entity}: {value}."
    yield f"Does anybody remember the {noun} of {entity}?", f"{capital(value)}, I believe."


def _be(value: str) -> str:
    """The verb that agrees with a value: "gold is", "pearls are"."""
    plural = value in ("cattle", "teeth", "dice") or (value.endswith("s") and not value.endswith("ss"))
    return "are" if plural else "is"
