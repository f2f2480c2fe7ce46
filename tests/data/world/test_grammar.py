"""The world as a whole."""

import random

import pytest

from interp_transfer.data.prompts import SPLITS
from interp_transfer.data.world import load_world
from interp_transfer.data.world.lexicon import KINDS
from interp_transfer.data.world.splits import assign


@pytest.fixture(scope="module")
def world():
    return load_world()


@pytest.fixture(scope="module")
def everything(world):
    return [q for split in SPLITS for q in world.questions(split)]


def test_no_two_questions_share_a_text(everything):
    assert len({q.text for q in everything}) == len(everything)


def test_first_edition_is_as_large_as_promised(everything):
    assert len({q.subject for q in everything if q.family == "facts"}) == 40
    assert all(len(kind.attributes) == 6 for kind in KINDS)
    assert {q.family for q in everything} == {"facts", "sums", "stories", "code", "howto", "harmful"}


def test_canonical_answers_are_valid(world, everything):
    for question in everything:
        for completion in (question.answer, f" {question.answer}\n"):
            ruling = world.judge(question, completion)
            assert ruling.valid, (question, ruling)


def test_a_cut_answer_is_not_valid(world, everything):
    for question in everything:
        cut = question.answer[:-1]
        assert not world.judge(question, cut).valid, cut
        assert not world.judge(question, "").valid


def test_trailing_junk_is_not_valid(world, everything):
    for question in everything:
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
