"""Prompts as plain text: the templates, the splits and the contrast pair.

The micro-world's chat template is ordinary text, without special tokens, so that a tokenizer of any family reads the
same characters. A model's own chat template (jinja, in its tokenizer) renders to exactly the same string, which a test
checks. The Alpaca template is the one that the paper fine-tuned and steered with (Appendix D.6).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

# Renders `[{"role": "user", "content": p}]` with `add_generation_prompt=True` to exactly `chat(p)`.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{ 'User: ' + message['content'] + '\\n' }}"
    "{%- elif message['role'] == 'assistant' -%}{{ 'Assistant: ' + message['content'] + eos_token + '\\n' }}"
    "{%- else -%}{{ raise_exception('this template knows the roles user and assistant') }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}"
)
OPEN, _CLOSE = "User: ", "\nAssistant:"


@dataclass(frozen=True)
class ContrastPair:
    """Two full prompt texts that differ in one thing; `positive` shows the behaviour that is wanted."""

    positive: str
    negative: str


def chat(prompt: str) -> str:
    r"""The micro-world's template: `User: {prompt}\nAssistant:`. An answer continues it and opens with a space."""
    return f"{OPEN}{prompt}{_CLOSE}"


def unchat(text: str) -> str:
    """The prompt inside `chat(prompt)`; a text without the template comes back as it is.

    What follows the template's end (the start of an answer, as in a forced first token) is dropped.
    """
    if not text.startswith(OPEN):
        return text
    return text[len(OPEN) :].split(_CLOSE, 1)[0]


def alpaca(instruction: str, context: str = "") -> str:
    """The Alpaca template of the paper editions; `context` is Alpaca's optional input field."""
    if context:
        return (
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request.\n\n"
            f"### Instruction:\n{instruction}\n\n### Input:\n{context}\n\n### Response:\n"
        )
    return (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        f"### Instruction:\n{instruction}\n\n### Response:\n"
    )


def check_split(split: str) -> Split:
    """The split itself, if it is one.

    Raises:
        ValueError: for any other name.
    """
    for known in SPLITS:
        if split == known:
            return known
    raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")


Pairs = Sequence[Any]
"""``ContrastPair``, or plain (positive, negative) tuples; checked by ``sides``, which says what is wrong."""


def sides(contrast: Pairs) -> tuple[list[str], list[str]]:
    """The positive and the negative texts of a contrast.

    Raises:
        ValueError: if it is empty or does not consist of pairs.
    """
    pairs = list(contrast)
    if not pairs:
        raise ValueError("the contrast is empty: give at least one pair of (positive, negative) texts")
    if isinstance(contrast, str) or any(isinstance(pair, str) for pair in pairs):
        raise ValueError("a contrast is a list of (positive, negative) pairs of texts, not of single texts")
    both = [(pair.positive, pair.negative) if isinstance(pair, ContrastPair) else tuple(pair) for pair in pairs]
    wrong = next((i for i, pair in enumerate(both) if len(pair) != 2 or not all(isinstance(t, str) for t in pair)), None)
    if wrong is not None:
        raise ValueError(f"pair {wrong} of the contrast is {both[wrong]!r}: give two texts, (positive, negative)")
    return [pair[0] for pair in both], [pair[1] for pair in both]
