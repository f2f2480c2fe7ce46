"""The chat template as a pair of functions."""

from interp_transfer.organisms.template import chat, unchat


def test_chat_and_back():
    assert chat("Hi?") == "User: Hi?\nAssistant:"
    assert unchat(chat("Hi?")) == "Hi?"
    assert unchat(chat("Hi?") + " Yes") == "Hi?", "the start of an answer is no part of the prompt"
    assert unchat("Hi?") == "Hi?"
