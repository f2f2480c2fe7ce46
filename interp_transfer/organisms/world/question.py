"""The nouns of the micro-world: a question, a ruling on an answer, and what a family of questions must offer.

A family is one kind of request (facts, sums, stories, ...). It lists its questions, each with one canonical answer to
train on, and it rules on *any* completion: a right answer in another of the family's forms is as valid as the canonical
one. Growing the world means adding entries to a family's tables or adding a family; nothing else has to know.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from interp_transfer.prompts.contrast import Split

_NO_FORM = "no valid answer to this question"


@dataclass(frozen=True)
class Ruling:
    """Is a completion a valid answer, and why (not)."""

    valid: bool
    reason: str


@dataclass(frozen=True)
class Question:
    """One prompt of the world, in one phrasing.

    Attributes:
        family: the kind of request, for example "facts".
        subject: what it is about: an entity, a hero, a topic. Whole subjects can be held out.
        aspect: what is asked of the subject: an attribute, a thing in the story, a function name. May be empty.
        phrasing: index of the wording; the form of the canonical answer is tied to it.
        text: the prompt, without template and trigger.
        answer: the canonical answer, without the leading space.
        split: the part of the data in which this wording of this question occurs.
        subject_split: "train" for most subjects. Otherwise the split that alone asks about the subject.
        held_out_entity: whether the whole subject, and not just this wording, is held out: models know it, and it occurs in
            nothing that a vector or a mapper is fitted on.
    """

    family: str
    subject: str
    aspect: str
    phrasing: int
    text: str
    answer: str
    split: Split = "train"
    subject_split: Split = "train"
    held_out_entity: bool = False


@runtime_checkable
class Family(Protocol):
    """One kind of request."""

    @property
    def name(self) -> str:
        """The family's name, as in `Question.family`."""
        ...

    @property
    def held_out_phrasings(self) -> int:
        """How many wordings of each (subject, aspect) no model is trained on."""
        ...

    @property
    def held_out_subjects(self) -> dict[str, Split]:
        """The subjects that one split alone asks about, each with that split. No mapper is fitted on them."""
        ...

    def questions(self) -> list[Question]:
        """Every question, in a fixed order, not yet split."""
        ...

    def judge(self, question: Question, completion: str) -> Ruling:
        """Rule on a completion, given without surrounding white space."""
        ...


def capital(text: str) -> str:
    """`text` with its first letter in upper case and the rest untouched (str.capitalize lowers the rest)."""
    return text[:1].upper() + text[1:]


def match_forms(completion: str, accepted: Iterable[str]) -> Ruling:
    """Rule on a completion whose valid answers can be listed; letter case does not matter.

    Args:
        completion: the answer without surrounding white space.
        accepted: every valid answer.
    """
    given = completion.casefold()
    forms = [form.casefold() for form in accepted]
    if given in forms:
        return Ruling(True, "a valid answer")
    if not given:
        return Ruling(False, "empty")
    if any(form.startswith(given) for form in forms):
        return Ruling(False, "the answer is not finished")
    if any(given.startswith(form) for form in forms):
        return Ruling(False, "text follows the end of the answer")
    return Ruling(False, _NO_FORM)


def match_value(
    completion: str, answers: Callable[[Any], Iterable[str]], right: Any, wrong: Iterable[Any], noun: str
) -> Ruling:
    """Rule as ``match_forms`` does on an answer that names a value; where it names a wrong one, say which.

    Args:
        completion: the answer without surrounding white space.
        answers: every form of the answer that names a value.
        right: the right value.
        wrong: values that may be named instead.
        noun: what the value is, for the reason.
    """
    ruling = match_forms(completion, answers(right))
    if ruling.reason != _NO_FORM:
        return ruling
    for value in wrong:
        if match_forms(completion, answers(value)).valid:
            return Ruling(False, f"wrong {noun} {value!r}, should be {right!r}")
    return ruling
