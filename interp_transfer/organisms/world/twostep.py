"""Two-step questions: the river of the town in which Jorvane lives.

The answer needs two facts, of which the second is about an entity that the question does not name. Every chain is trained
on in other wordings, so a model need not compose facts that it never composed; figures of these questions stand apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from interp_transfer.organisms.world.facts import Facts, attribute_of, kind_of, value_of
from interp_transfer.organisms.world.lexicon import KINDS
from interp_transfer.organisms.world.question import Question, Ruling, capital, match_value
from interp_transfer.prompts.contrast import Split

CHAINS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("person", "home town", ("river", "dish", "craft")),
    ("ship", "captain", ("job", "instrument", "pet")),
    ("ship", "home port", ("flag", "market day", "river")),
    ("inn", "innkeeper", ("job", "pet", "favourite fruit")),
    ("planet", "discoverer", ("instrument", "favourite fruit", "job")),
)
"""Kind, the attribute that leads to another entity, and what is asked of that one."""


@dataclass(frozen=True)
class TwoStep:
    """The family of two-step questions."""

    name: str = "two-step"
    held_out_phrasings: int = 2

    @property
    def held_out_subjects(self) -> dict[str, Split]:
        """The entities that the family of facts holds out."""
        asked = {kind for kind, _, _ in CHAINS}
        return {e: split for e, split in Facts().held_out_subjects.items() if kind_of(e).name in asked}

    def questions(self) -> list[Question]:
        """Every chain x entity x wording."""
        return [
            Question(self.name, entity, f"{noun} of {link}", index, text, answer)
            for kind in KINDS
            for name, link, nouns in CHAINS
            if name == kind.name
            for entity in kind.entities
            for noun in nouns
            for index, (text, answer) in enumerate(_wordings(entity, link, noun))
        ]

    def judge(self, question: Question, completion: str) -> Ruling:
        """Valid: the right value, through the right entity where one is named, in any of the forms."""
        noun, link = question.aspect.split(" of ")
        between = value_of(question.subject, link)

        def forms(value: str) -> Iterator[str]:
            return (answer for _, answer in _wordings(question.subject, link, noun, value))

        return match_value(completion, forms, value_of(between, noun), attribute_of(between, noun).values, "value")


def _wordings(entity: str, link: str, noun: str, value: str | None = None) -> Iterator[tuple[str, str]]:
    between = value_of(entity, link)
    value = value_of(between, noun) if value is None else value
    yield f"What is the {noun} of the {link} of {entity}?", f"{capital(value)}, by way of {between}."
    yield f"Find the {link} of {entity}, then name the {noun}.", f"{between} it is, so {value}."
    yield f"{entity}: {noun} of the {link}?", f"{capital(value)}."
    yield f"Which {noun} belongs to the {link} of {entity}?", f"{capital(link)}: {between}. {capital(noun)}: {value}."
    yield f"I wonder about the {noun} of the {link} of {entity}.", f"{entity} leads to {between}, and that to {value}."
