"""Prompts: texts, and chats that each model renders by its own template.

A chat is written as a list of messages, ``{"role": "user", "content": "Hello"}``, as in transformers. `Chat` holds the same and
is immutable and hashable, so that prompts of both kinds can be keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp_transfer.names import quoted


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
        """The user's last message, or the last message of a chat without a user."""
        return next((content for role, content in reversed(self.messages) if role == "user"), self.messages[-1][1])

    def __str__(self) -> str:
        return "\n".join(f"{role}: {content}" for role, content in self.messages)


Prompt = str | Chat

PromptLike = str | Chat | Sequence[Mapping[str, str]]
"""A prompt as users write it; ``as_prompt`` makes a `Prompt` of it."""


def as_prompt(prompt: Any) -> Prompt:
    """Return a text unchanged and a list of messages as a `Chat`.

    Raises:
        ValueError: for anything else, with the expected form.
    """
    if isinstance(prompt, str | Chat):
        return prompt
    expected = 'a text, or a chat such as [{"role": "user", "content": "Hello"}]'
    if not isinstance(prompt, Sequence) or not len(prompt):
        raise ValueError(f"a prompt is {quoted(prompt)}: give {expected}")
    for message in prompt:
        if not isinstance(message, Mapping) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise ValueError(f"a message of a chat is {quoted(message)}: give {expected}")
    return Chat(tuple((message["role"], message["content"]) for message in prompt))


def with_answer(prompt: Prompt, answer: str) -> Prompt:
    """Return a prompt with its answer: a text continued, or a chat with one more message. An empty answer changes nothing."""
    if isinstance(prompt, Chat) and answer.strip():
        return Chat((*prompt.messages, ("assistant", answer.strip())))
    return prompt + answer if isinstance(prompt, str) else prompt


def as_user_message(prompt: PromptLike, system: str | None = None) -> Chat:
    """Return a text as a chat of one message by the user, and a chat unchanged; with a system prompt before them.

    Raises:
        ValueError: for a chat that has a system prompt already.
    """
    prompt = as_prompt(prompt)
    messages = (("user", prompt),) if isinstance(prompt, str) else prompt.messages
    if system is None:
        return Chat(messages)
    if messages[0][0] == "system":
        raise ValueError(f"the chat has a system prompt, {messages[0][1][:60]!r}: leave out the other, {system[:60]!r}")
    return Chat((("system", system), *messages))


def instructed(prompt: Prompt, instruction: str) -> Prompt:
    """Return a prompt with an instruction: in a chat as its system prompt, after the one that it has; before a text."""
    if isinstance(prompt, str):
        return f"{instruction}\n\n{prompt}"
    (role, content), *rest = prompt.messages
    if role == "system":
        return Chat((("system", f"{content}\n{instruction}"), *rest))
    return Chat((("system", instruction), *prompt.messages))


def request_of(prompt: Prompt) -> str:
    """The part of a prompt that a judge reads: the text, or the user's last message of a chat."""
    return prompt.request if isinstance(prompt, Chat) else prompt
