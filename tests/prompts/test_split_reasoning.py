"""Reasoning blocks before answers."""

import pytest

from interp_transfer.prompts.reasoning import answer_of, opens_reasoning, split_reasoning


@pytest.mark.parametrize(
    ("completion", "opened", "answer"),
    [
        ("Yes.", False, "Yes."),
        (" Yes </think>.", False, " Yes </think>."),
        ("<think>\nNo?\n</think>\n\nYes.", False, "Yes."),
        ("\n<think></think>Yes.", False, "Yes."),
        ("<think>\nNo?", False, ""),
        ("No?\n</think>\n\nYes.", True, "Yes."),
        ("No?", True, ""),
    ],
)
def test_an_answer_follows_the_block(completion: str, opened: bool, answer: str) -> None:
    assert answer_of(completion, opened) == answer


def test_a_prompt_may_open_the_block() -> None:
    assert opens_reasoning("<|im_start|>assistant\n<think>\n")
    assert not opens_reasoning("<|im_start|>assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize("text", ["a", "<think>b</think>c", "\n<think>\nb\n</think>\n\nc</think>", "b</think>c", "<think>b"])
def test_nothing_of_a_message_is_lost(text: str) -> None:
    assert "".join(split_reasoning(text)) == text
