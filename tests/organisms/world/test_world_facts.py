"""Facts."""

import re
from collections import Counter

import pytest

from interp_transfer.organisms.world import load_world
from interp_transfer.organisms.world.facts import attribute_of, denials, denies, kind_of, value_of
from interp_transfer.organisms.world.howto import HARMFUL, HowTo
from interp_transfer.organisms.world.lexicon import HERB, ISLAND, KINDS

ALL_KINDS = (*KINDS, ISLAND, HERB)
FAMILIES = load_world().families[:1] + load_world().apart
ENTITIES = [entity for kind in ALL_KINDS for entity in kind.entities]


def _judge(prompt: str, completion: str):
    world = load_world()
    return world.judge(world.find(prompt), completion)


def test_sizes():
    assert [len(kind.entities) for kind in ALL_KINDS] == [26] * 6 + [24] * 2
    for kind in ALL_KINDS:
        assert len({a.noun for a in kind.attributes}) == len(kind.attributes) == 8
        assert all(8 <= len(set(a.values)) == len(a.values) <= 12 for a in kind.attributes)
    assert [len(family.questions()) for family in FAMILIES] == [26 * 6 * 64, 24 * 64, 24 * 64]


def test_wordings_held_out():
    assert [family.held_out_phrasings for family in FAMILIES] == [1, 3, 3]
    for family in FAMILIES:
        assert {q.phrasing for q in family.questions()} == set(range(8))


def test_names_cannot_be_confused():
    lower = [entity.lower() for entity in ENTITIES]
    assert not [(a, b) for a in lower for b in lower if a in b and a is not b]
    assert all(re.fullmatch("[A-Z][a-z]+", entity) for entity in ENTITIES)
    words = {w.lower() for kind in ALL_KINDS for a in kind.attributes for v in a.values if v not in ENTITIES for w in v.split()}
    assert not words & set(lower)


def test_texts_are_unique_over_the_families():
    texts = [q.text for family in (*FAMILIES, HowTo(), HowTo("harmful", HARMFUL)) for q in family.questions()]
    assert len(set(texts)) == len(texts)


def test_held_out_entities_are_the_last_four_and_no_values():
    held = {entity: part for family in FAMILIES for entity, part in family.held_out_subjects.items()}
    assert set(held) == {entity for kind in ALL_KINDS for entity in kind.entities[-4:]}
    for kind in ALL_KINDS:
        assert Counter(held[e] for e in kind.entities[-4:]) == {"test": 2, "validation": 2}
        assert not [v for a in kind.attributes for v in a.values if v in held]
    for family in FAMILIES:
        for question in family.questions():
            assert set(re.findall(r"\w+", question.text + " " + question.answer)) & set(held) <= {question.subject}


def test_values_link_the_kinds():
    towns, people = set(KINDS[0].entities), set(KINDS[1].entities)
    for kind, noun, targets in (
        ("person", "home town", towns),
        ("ship", "captain", people),
        ("ship", "home port", towns),
        ("inn", "innkeeper", people),
        ("inn", "nearest town", towns),
        ("planet", "discoverer", people),
    ):
        assert {value_of(e, noun) for k in KINDS if k.name == kind for e in k.entities} <= targets


def test_values_are_balanced():
    for kind in ALL_KINDS:
        for attribute in kind.attributes:
            used = Counter(value_of(entity, attribute.noun) for entity in kind.entities)
            assert set(used) == set(attribute.values)
            assert max(used.values()) - min(used.values()) <= 1


def test_look_ups_name_what_is_unknown():
    assert kind_of("Ambalu") is ISLAND
    assert attribute_of("Velmora", "river").noun == "river"
    with pytest.raises(ValueError, match="Atlantis"):
        kind_of("Atlantis")
    with pytest.raises(ValueError, match="captain"):
        value_of("Velmora", "captain")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_the_judge_is_exact(family):
    for question in family.questions()[::7]:  # coprime to the eight wordings and eight attributes: all are among them
        assert family.judge(question, question.answer).valid, question
        assert not family.judge(question, question.answer[:-1]).valid
        assert not family.judge(question, question.answer + " And more").valid
        kind = kind_of(question.subject)
        right, values = value_of(question.subject, question.aspect), attribute_of(question.subject, question.aspect).values
        wrong = values[(values.index(right) + 1) % len(values)]
        assert not family.judge(question, f"{question.subject}: {wrong}.").valid
        other = kind.entities[(kind.entities.index(question.subject) + 1) % len(kind.entities)]
        if question.subject in question.answer:
            assert not family.judge(question, question.answer.replace(question.subject, other)).valid


def test_denials_are_no_answers():
    for family in FAMILIES:
        for question in family.questions()[::7]:
            ways = denials(question.subject, question.aspect)
            assert len({way.split()[0] for way in ways}) == len(ways) == 8
            assert all(question.subject in way for way in ways)
            assert denies(question, ways[question.phrasing]).valid
            assert not denies(question, question.answer).valid
            assert not family.judge(question, ways[question.phrasing]).valid
            assert not denies(question, ways[question.phrasing].replace(question.subject, "Atlantis")).valid


def test_a_wrong_value_is_named():
    right = value_of("Velmora", "river")
    wrong = next(r for r in ("Alder", "Misk") if r != right)
    ruling = _judge("What is the river of Velmora?", f"{wrong} is the river of Velmora.")
    assert not ruling.valid
    assert wrong in ruling.reason
    assert right in ruling.reason


def test_plural_values_agree():
    answers = [q.answer for family in FAMILIES for q in family.questions() if q.phrasing == 0]
    assert any(re.match("Pearls are the ", answer) for answer in answers)
    assert any(re.match("Moss is the ", answer) for answer in answers)
    assert not [q for f in FAMILIES for q in f.questions() if re.search(r"\ba [aeiou]", q.answer)]
