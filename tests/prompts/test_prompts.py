"""The Alpaca template, instructions, splits and contrast pairs."""

import pytest

from interp_transfer.prompts.alpaca import alpaca
from interp_transfer.prompts.chats import Chat, instructed
from interp_transfer.prompts.contrast import ContrastPair, check_split


def test_alpaca_has_an_input_only_when_given():
    assert "### Input:" not in alpaca("Sort.")
    assert alpaca("Sort.", "3 1").endswith("### Instruction:\nSort.\n\n### Input:\n3 1\n\n### Response:\n")


def test_unknown_split_names_the_splits():
    assert check_split("test") == "test"
    with pytest.raises(ValueError, match="'tset'.*train, validation, test"):
        check_split("tset")


def test_a_pair_cannot_be_changed():
    with pytest.raises(AttributeError):
        ContrastPair("a", "b").positive = "c"  # pyright: ignore[reportAttributeAccessIssue]


def test_an_instruction_becomes_the_system_prompt() -> None:
    user, system = ("user", "Hello"), ("system", "Be brief.")
    assert instructed(Chat((user,)), "Rhyme.") == Chat((("system", "Rhyme."), user))
    assert instructed(Chat((system, user)), "Rhyme.") == Chat((("system", "Be brief.\nRhyme."), user))
    assert instructed("Hello", "Rhyme.") == "Rhyme.\n\nHello"
