"""Reasoning blocks: what a thinking model writes between ``<think>`` and ``</think>`` before its answer."""

import re

OPEN, CLOSE = "<think>", "</think>"

_BLOCK = re.compile(r"(\s*<think>)(.*?)(</think>)(.*)", re.DOTALL)


def split_reasoning(text: str) -> tuple[str, str, str, str]:
    """Split a message into opening tag, reasoning, closing tag and answer; the first three are empty without a block."""
    match = _BLOCK.fullmatch(text)
    opening, reasoning, closing, answer = match.groups() if match else ("", "", "", text)
    return opening, reasoning, closing, answer


def opens_reasoning(prompt: str) -> bool:
    """Whether a rendered prompt ends within a reasoning block, so that the completion begins in it."""
    return prompt.rstrip().endswith(OPEN)


def answer_of(completion: str, opened: bool = False) -> str:
    """The part of a completion that follows its reasoning block.

    Args:
        completion: generated text.
        opened: whether the prompt has opened the block, see ``opens_reasoning``.

    Returns:
        The completion itself if it has no block; an empty text if the block does not end.
    """
    if not opened and not completion.lstrip().startswith(OPEN):
        return completion
    return completion.partition(CLOSE)[2].lstrip()
