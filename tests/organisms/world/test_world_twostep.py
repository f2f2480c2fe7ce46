"""Two-step questions, against facts looked up one by one."""

import pytest

from interp_transfer.organisms.world import load_world
from interp_transfer.organisms.world.facts import Facts, attribute_of, kind_of, value_of
from interp_transfer.organisms.world.lexicon import KINDS
from interp_transfer.organisms.world.question import Family, Question
from interp_transfer.organisms.world.splits import assign
from interp_transfer.organisms.world.twostep import CHAINS, TwoStep

QUESTIONS = TwoStep().questions()


def _chain(question: Question) -> tuple[str, str]:
    """The entity between and the value, by two look-ups."""
    noun, link = question.aspect.split(" of ")
    between = value_of(question.subject, link)
    return between, value_of(between, noun)


def test_sizes():
    assert isinstance(TwoStep(), Family)
    sizes = {kind.name: len(kind.entities) for kind in KINDS}
    assert len(QUESTIONS) == len({q.text for q in QUESTIONS}) == sum(sizes[name] * len(nouns) * 5 for name, _, nouns in CHAINS)
    assert len({(name, link, noun) for name, link, nouns in CHAINS for noun in nouns}) == 15


def test_chains_lead_through_an_entity_to_an_attribute_that_it_has():
    entities = {entity for kind in KINDS for entity in kind.entities}
    for name, link, nouns in CHAINS:
        kind = next(kind for kind in KINDS if kind.name == name)
        links = next(a for a in kind.attributes if a.noun == link).values
        assert set(links) <= entities, "the first step leads to an entity"
        assert len({kind_of(entity).name for entity in links}) == 1
        assert all(attribute_of(links[0], noun) for noun in nouns)


def test_the_canonical_answer_is_what_two_look_ups_give_and_the_question_names_neither():
    for question in QUESTIONS:
        between, value = _chain(question)
        assert question.subject in question.text
        assert value.casefold() in question.answer.casefold()
        assert between not in question.text
        assert (between in question.answer) is (question.phrasing != 2), "all forms but the shortest name the way"


def test_any_form_is_valid_and_nothing_else():
    family = TwoStep()
    by_group: dict[tuple[str, str], list[Question]] = {}
    for question in QUESTIONS:
        by_group.setdefault((question.subject, question.aspect), []).append(question)
    for group in list(by_group.values())[::3]:
        for asked in group:
            assert all(family.judge(asked, other.answer).valid for other in group)
            for broken in (asked.answer[:-1], asked.answer + " And more", "", asked.answer + asked.answer):
                assert not family.judge(asked, broken).valid


def test_a_wrong_value_or_a_wrong_way_is_not_valid():
    family = TwoStep()
    for question in QUESTIONS[::3]:  # coprime to the five wordings
        between, value = _chain(question)
        noun = question.aspect.split(" of ")[0]
        values = attribute_of(between, noun).values
        wrong = values[(values.index(value) + 1) % len(values)]
        ruling = family.judge(question, f"{wrong[:1].upper()}{wrong[1:]}.")
        assert not ruling.valid
        assert repr(wrong) in ruling.reason
        assert repr(value) in ruling.reason
        siblings = kind_of(between).entities
        other = siblings[(siblings.index(between) + 1) % len(siblings)]
        if between in question.answer:
            assert not family.judge(question, question.answer.replace(between, other)).valid


def test_held_out():
    assert TwoStep().held_out_phrasings == 2
    asked = {name for name, _, _ in CHAINS}
    facts = Facts().held_out_subjects
    held = TwoStep().held_out_subjects
    assert held == {entity: part for entity, part in facts.items() if kind_of(entity).name in asked}
    assert len(held) == 4 * len(asked)
    assert not [q for q in QUESTIONS if _chain(q)[0] in facts], "no chain leads through a held-out entity"
    assert sum(q.split == "train" for q in assign(TwoStep())) == len(QUESTIONS) * 3 // 5


def test_through_the_world():
    world = load_world()
    town = value_of("Jorvane", "home town")
    question = world.find("What is the river of the home town of Jorvane?")
    assert question.family == "two-step"
    assert world.judge(question, f" {value_of(town, 'river')}.\n").valid
    with pytest.raises(ValueError, match="no prompt"):
        world.find("What is the captain of the home town of Jorvane?")
