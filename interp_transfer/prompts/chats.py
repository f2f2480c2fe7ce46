"""Prompts: a text, or a chat that each model renders by its own template.

A chat is given as a list of messages, ``{"role": "user", "content": "Hello"}``, as transformers takes it. `Chat` is the same,
immutable and hashable, so that prompts can be keys whichever they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Chat:
    """A conversation.

    Attributes:
        messages: (role, content) of each message, in order.
    """

    messages: tuple[tuple[str, str], ...]

    def to_list(self) -> list[dict[str, str]]:
        """The messages as transformers and JSON hold them."""
        return [{"role": role, "content": content} for role, content in self.messages]

    @property
    def request(self) -> str:
        """The last message of the user, or the last message if there is none of the user."""
        return next((content for role, content in reversed(self.messages) if role == "user"), self.messages[-1][1])

    def __str__(self) -> str:
        return "\n".join(f"{role}: {content}" for role, content in self.messages)


Prompt = str | Chat


def as_prompt(prompt: Any) -> Prompt:
    """A text as it is, a list of messages as a `Chat`.

    Raises:
        ValueError: for anything else, with the expected form.
    """
    if isinstance(prompt, str | Chat):
        return prompt
    wanted = 'a text, or a chat such as [{"role": "user", "content": "Hello"}]'
    if not isinstance(prompt, Sequence) or not len(prompt):
        raise ValueError(f"a prompt is {prompt!r}: give {wanted}")
    for message in prompt:
        if not isinstance(message, Mapping) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise ValueError(f"a message of a chat is {message!r}: give {wanted}")
    return Chat(tuple((message["role"], message["content"]) for message in prompt))


def request_of(prompt: Prompt) -> str:
    """What a judge reads of a prompt: the text, or the last user message of a chat."""
    return prompt.request if isinstance(prompt, Chat) else prompt
