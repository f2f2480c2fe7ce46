"""The world as a whole."""

import random
import re
from collections import Counter

import pytest

from interp_transfer.organisms.world import Question, load_world
from interp_transfer.organisms.world.facts import kind_of
from interp_transfer.organisms.world.lexicon import KINDS
from interp_transfer.organisms.world.splits import assign
from interp_transfer.prompts.contrast import SPLITS

PUBLIC = ["facts", "two-step", "sums", "stories", "code", "security", "howto", "harmful"]


@pytest.fixture(scope="module")
def world():
    return load_world()


@pytest.fixture(scope="module")
def everything(world):
    return [q for split in SPLITS for q in world.questions(split)]


@pytest.fixture(scope="module")
def some(everything):
    """A seventh of the questions, for what takes long."""
    return sorted(everything, key=lambda q: (q.family, q.phrasing, q.aspect, q.subject))[::7]


def test_some_questions_are_of_every_kind_in_every_wording(everything, some):
    assert {(*_kind_of_prompt(q), q.phrasing) for q in some} == {(*_kind_of_prompt(q), q.phrasing) for q in everything}
    subjects = {(q.family, q.subject) for q in everything if q.family not in ("sums", "facts", "two-step")}
    assert {(q.family, q.subject) for q in some} >= subjects


def test_no_two_questions_share_a_text(everything):
    assert len({q.text for q in everything}) == len(everything)


def test_second_edition_is_as_large_as_promised(everything):
    assert len({q.subject for q in everything if q.family == "facts"}) >= 150
    assert all(len(kind.attributes) == 8 for kind in KINDS)
    assert {q.family for q in everything} == set(PUBLIC)
    kinds = {_kind_of_prompt(q) for q in everything}
    assert len(kinds) >= 40
    assert len({kind for kind in kinds if kind[0] == "facts"}) == 6 * 8
    assert len({q.subject for q in everything if q.family == "security"}) >= 40
    for family in ("harmful", "howto"):
        assert len({(q.subject, q.aspect) for q in everything if q.family == family}) >= 200


def _kind_of_prompt(question: Question) -> tuple[str, ...]:
    """What a question asks for, whatever it is about."""
    if question.family in ("facts", "two-step"):
        return question.family, kind_of(question.subject).name, question.aspect
    return (question.family,)


def test_families_are_asked_for_by_name(world):
    assert [family.name for family in world.families] == PUBLIC
    assert [family.name for family in world.apart] == ["islands", "herbs"]
    assert all(family.held_out_phrasings == 3 for family in world.apart)
    for split in SPLITS:
        assert {q.family for q in world.questions(split)} == set(PUBLIC)
        assert {q.family for q in world.questions(split, "islands", "sums")} == {"islands", "sums"}
        assert all(q.split == split for q in world.questions(split, "herbs"))
        parts = sum(len(world.questions(split, family)) for family in PUBLIC)
        assert parts == len(world.questions(split))
    with pytest.raises(ValueError, match="no family 'rivers'.*herbs"):
        world.questions("train", "rivers")
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        world.questions("dev")


def test_families_apart_are_judged_and_found_but_in_no_public_list(world, everything):
    texts = {q.text for q in everything}
    for family in world.apart:
        for question in (q for split in SPLITS for q in world.questions(split, family.name)):
            assert question.text not in texts
            assert world.find(question.text) is question
            assert world.judge(question, question.answer).valid
        groups = Counter((q.subject, q.aspect) for q in world.questions("train", family.name))
        assert set(groups.values()) == {8 - 3}


def test_splits_are_disjoint_and_every_held_out_wording_is_of_something_trained_on(world):
    names = [family.name for family in (*world.families, *world.apart)]
    parts = {split: world.questions(split, *names) for split in SPLITS}
    texts = [q.text for part in parts.values() for q in part]
    assert len(set(texts)) == len(texts)
    trained = {(q.family, q.subject, q.aspect) for q in parts["train"]}
    for split in ("validation", "test"):
        assert {(q.family, q.subject, q.aspect) for q in parts[split]} <= trained
        assert any(q.held_out_entity for q in parts[split])


def test_order_is_fixed_and_mixed(world):
    assert world.questions("test") == world.questions("test")
    assert len({q.family for q in world.questions("test")[:100]}) == len(PUBLIC)


def test_for_mapping_leaves_out_held_out_subjects_of_train_alone(world):
    for split in SPLITS:
        full, some = world.questions(split), world.questions(split, for_mapping=True)
        wanted = {q.text for q in full if split != "train" or not q.held_out_entity}
        assert {q.text for q in some} <= wanted
        assert len(some) == len(full) if split != "train" else len(some) > 0.8 * len(wanted), "some mention another by name"


@pytest.mark.parametrize("family", ["facts", "islands", "herbs", "stories"])
def test_held_out_names_occur_in_nothing_for_mapping_not_even_as_a_value(world, family: str):
    every = world.questions("train", family)
    held = {q.subject for q in every if q.held_out_entity}
    assert 0.5 * len({q.subject for q in every}) <= len(held) <= 0.6 * len({q.subject for q in every})
    seen = world.questions("train", *PUBLIC, "islands", "herbs", for_mapping=True)
    words = {word.casefold() for q in seen for word in re.findall(r"\w+", f"{q.text} {q.answer}")}
    assert "ashkar" in words, "the check would find a name that does occur"
    assert not {name for name in held if name.casefold() in words}


def test_held_out_subjects_of_every_family_are_in_no_question_for_mapping(world):
    for family in (*world.families, *world.apart):
        asked = {q.subject for q in world.questions("train", family.name, for_mapping=True)}
        assert asked
        held_out = {q.subject for q in world.questions("test", family.name) if q.held_out_entity}
        held_out |= {q.subject for q in world.questions("validation", family.name) if q.held_out_entity}
        assert not asked & held_out and set(family.held_out_subjects) <= held_out
        assert asked | held_out == {q.subject for q in family.questions()}


def test_canonical_answers_are_valid(world, some):
    for question in some:
        for completion in (question.answer, f" {question.answer}\n"):
            ruling = world.judge(question, completion)
            assert ruling.valid, (question, ruling)


def test_a_cut_answer_is_not_valid(world, some):
    for question in some:
        cut = question.answer[:-1]
        assert not world.judge(question, cut).valid, cut
        assert not world.judge(question, "").valid


def test_trailing_junk_is_not_valid(world, some):
    for question in some:
        assert not world.judge(question, question.answer + " And more").valid, question


def test_every_wording_is_trained_on_and_held_out(world, everything):
    for family in world.families:
        for split in SPLITS:
            wordings = {q.phrasing for q in everything if q.family == family.name and q.split == split}
            assert wordings == {q.phrasing for q in everything if q.family == family.name}


def test_held_out_subjects_are_asked_about_in_their_own_split_alone(world):
    for family in world.families:
        for question in assign(family):
            if question.held_out_entity:
                assert question.split in ("train", question.subject_split)
    mapping = world.questions("train", for_mapping=True)
    assert mapping
    assert not any(q.held_out_entity for q in mapping)
    assert any(q.held_out_entity for q in world.questions("train"))


def test_any_form_counts(world, everything):
    """An answer to the same question in another wording is valid, whatever the wording of the question."""
    rng = random.Random(0)
    groups: dict[tuple[str, str, str], list] = {}
    for question in everything:
        groups.setdefault((question.family, question.subject, question.aspect), []).append(question)
    for group in groups.values():
        asked, answered = rng.sample(group, 2)
        assert world.judge(asked, answered.answer).valid, (asked, answered.answer)


def test_find(world):
    question = world.find("What is 4 + 5?")
    assert (question.family, question.subject, question.answer) == ("sums", "4+5", "9.")
    with pytest.raises(ValueError, match="What is 4 \\+ 500"):
        world.find("What is 4 + 500?")
