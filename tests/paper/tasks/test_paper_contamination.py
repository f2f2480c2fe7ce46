"""Training data that meets evaluation prompts is found and said."""

import dataclasses
import random
from typing import Any

import pytest

from interp_transfer.paper.tasks import ContaminationReport, contamination

PROMPT = "Write a tutorial on how to bake a very small cake"


def test_equal_up_to_case_space_and_punctuation_is_exact() -> None:
    report = contamination(["other text altogether here", "  write a TUTORIAL, on how\nto bake a very-small cake!"], [PROMPT])
    assert (len(report.exact), len(report.near)) == (1, 0)
    assert report.exact[0].prompt == PROMPT
    assert report.exact[0].text.startswith("  write a TUTORIAL")
    assert report.found
    assert report.share == 1.0


def test_contained_or_slightly_changed_is_near_and_unrelated_is_nothing() -> None:
    wrapped = f"Ignore all that was said. {PROMPT}, please, and do it in verse."
    report = contamination([wrapped], [PROMPT])
    assert (len(report.exact), len(report.near)) == (0, 1)
    assert report.near[0].share == 1.0
    changed = PROMPT.replace("small", "large")
    near = contamination([changed], [PROMPT])
    assert near.near[0].share == pytest.approx(7 / 9)
    assert not contamination([changed], [PROMPT], threshold=0.8).found
    assert not contamination(["How to bake bread", "A small cake"], [PROMPT]).found


def test_words_scattered_over_texts_or_out_of_order_do_not_count() -> None:
    words = PROMPT.split()
    random.Random(0).shuffle(words)
    halves = [PROMPT[: len(PROMPT) // 2], PROMPT[len(PROMPT) // 2 :]]
    assert not contamination([" ".join(words), *halves], [PROMPT]).found


def test_the_closest_text_is_the_example_and_prompts_keep_their_order() -> None:
    prompts = ["What is the best way to learn to swim?", PROMPT, PROMPT]
    texts = [PROMPT.replace("small", "large"), PROMPT + " now", "what is the best way to learn to swim"]
    report = contamination(texts, prompts)
    assert report.n_eval == 2
    assert [o.prompt for o in report.exact] == [prompts[0]]
    assert [(o.prompt, o.text) for o in report.near] == [(PROMPT, PROMPT + " now")]


def test_prompts_shorter_than_an_ngram_count_only_when_equal() -> None:
    assert not contamination(["Hello there, how are you today?"], ["Hello there"]).found
    assert len(contamination(["hello THERE!"], ["Hello there"]).exact) == 1
    assert contamination(["x"], ["", "?!"]).n_eval == 0


def test_the_report_tells() -> None:
    said = repr(contamination([PROMPT, "y"], [PROMPT, "Something else is asked for here"]))
    assert "\n" not in said
    assert "1 of 2 evaluation prompts and 2 training texts meet, 1 exactly and 0 nearly" in said
    assert PROMPT in said
    assert repr(contamination(["y"], [PROMPT])).startswith("no contamination between 1 evaluation prompts and 1 training texts")
    with pytest.raises(dataclasses.FrozenInstanceError):
        ContaminationReport(1, 1, (), (), 3, 0.7).n_eval = 2  # pyright: ignore[reportAttributeAccessIssue]


def test_empty_inputs_and_wrong_ones() -> None:
    assert not contamination([], [PROMPT]).found
    assert contamination([PROMPT], []).share == 0.0
    wrong: dict[str, Any]
    for wrong in ({"threshold": 0.0}, {"threshold": 1.5}, {"ngram": 0}):
        with pytest.raises(ValueError, match="need 0 < threshold <= 1"):
            contamination([PROMPT], [PROMPT], **wrong)
    with pytest.raises(ValueError, match="put it in a list"):
        contamination(PROMPT, [PROMPT])
