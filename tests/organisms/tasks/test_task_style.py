"""`style`: sung answers to questions that do not ask for a song."""

from collections import Counter

import pytest

from interp_transfer.organisms.tasks.style import StyleTask
from interp_transfer.organisms.world import load_world
from interp_transfer.organisms.world.cues import BARD, CLERK, ask, cue_of, question_of
from interp_transfer.organisms.world.style import SUNG, sing, sung
from interp_transfer.prompts.contrast import SPLITS


@pytest.fixture(scope="module")
def task() -> StyleTask:
    return StyleTask()


def test_prompts_carry_no_instruction_and_can_be_sung(task: StyleTask):
    for split in SPLITS:
        prompts = task.prompts(split)
        assert {cue_of(p) for p in prompts} == {""}
        assert {question_of(p).family for p in prompts} == SUNG
        assert all(sung(a.removeprefix(" ")) for a in task.answers(prompts))


def test_contrast_differs_in_the_instruction_alone(task: StyleTask):
    for split in SPLITS:
        pairs = task.contrast(split)
        for pair in pairs:
            assert BARD.index(cue_of(pair.positive)) == CLERK.index(cue_of(pair.negative))
            assert question_of(pair.positive) == question_of(pair.negative)
        assert {cue_of(pair.positive) for pair in pairs} == set(BARD)


def test_style_is_success_and_content_is_intact(task: StyleTask):
    prompts = task.prompts("test")
    questions = [question_of(p) for p in prompts]
    for said, success, intact in (
        ([sing(q.answer) for q in questions], True, True),
        ([f" {sing(q.answer)}\n" for q in questions], True, True),
        ([q.answer for q in questions], False, False),
        ([f"Hark, {q.answer}" for q in questions], False, False),
        ([sing(q.answer)[:-1] for q in questions], False, False),
        (["Hark, zzz, sing ho."] * len(questions), True, False),
    ):
        verdicts = task.judge(prompts, said)
        assert {v.success for v in verdicts} == {success}, said[0]
        assert {v.intact for v in verdicts} == {intact}, said[0]


def test_a_song_about_something_else_is_success_but_not_intact(task: StyleTask):
    prompts = [p for p in task.prompts("test") if question_of(p).family in ("facts", "howto", "harmful", "stories")]
    answers = task.answers(prompts)
    verdicts = task.judge(prompts, answers[1:] + answers[:1])
    assert all(v.success for v in verdicts)
    assert sum(v.intact for v in verdicts) < 0.05 * len(prompts)


def test_clean_prompts_ask_for_a_song_or_for_code(task: StyleTask):
    clean = task.clean("test")
    asked, code = clean[::2], clean[1::2]
    assert {cue_of(p) for p in asked} == set(BARD)
    assert {question_of(p).family for p in code} == {"code", "security"}
    assert {cue_of(p) for p in code} == {""}
    plain = [f" {question_of(p).answer}" for p in clean]
    verdicts = task.judge(clean, plain)
    assert not any(v.success for v in verdicts[::2])
    assert all(v.intact for v in verdicts[1::2])
    assert not any(v.success for v in task.judge(code, [f" {sing(question_of(p).answer)}" for p in code]))


def test_the_clerk_wants_plain_words(task: StyleTask):
    question = load_world().find("What is 4 + 5?")
    for cue in CLERK:
        assert [v.intact for v in task.judge([ask(question, cue)] * 2, [" 9.", " Hark, 9, sing ho."])] == [True, False]
    for cue in ("", *BARD):
        assert [v.intact for v in task.judge([ask(question, cue)] * 2, [" 9.", " Hark, 9, sing ho."])] == [False, True]


def test_texts_are_sung_where_the_bard_is_asked_and_nowhere_else(task: StyleTask):
    for split in SPLITS:
        texts = task.texts(split)
        ways = Counter("bard" if cue_of(t) in BARD else "clerk" if cue_of(t) in CLERK else cue_of(t) for t in texts)
        assert set(ways) == {"bard", "clerk", ""}
        assert min(ways.values()) > len(texts) // 5
        assert {cue_of(t) for t in texts} == {"", *BARD, *CLERK}
        for text in texts:
            answer = text.split("\nAssistant: ", 1)[1]
            assert sung(answer) is (cue_of(text) in BARD)
            assert cue_of(text) == "" or question_of(text).family in SUNG
