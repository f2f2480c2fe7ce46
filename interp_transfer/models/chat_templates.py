"""Chats as the text that a model reads: its own chat template, or one that the user names for a model without any.

``chat_template="alpaca"`` in ``load_model`` sets Alpaca's template, a Jinja string sets that one, and a function
``(messages, add_generation_prompt) -> str`` is called in place of a template. Without any of these, a model without a template
refuses chats.

`located` finds the characters of each message in a rendering. It renders the chat a second time with a mark in place of the
message: what is not the mark is the template or another message. So nothing is assumed about the template's source.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from interp_transfer.io import hashed
from interp_transfer.names import find, first_line
from interp_transfer.prompts.alpaca import alpaca
from interp_transfer.prompts.chats import Chat
from interp_transfer.prompts.reasoning import split_reasoning

Messages = list[dict[str, str]]

ChatFunction = Callable[[Messages, bool], str]
"""``function(messages, add_generation_prompt)`` returns the text of a chat."""

_PREAMBLE, _FIELD, _ = alpaca("\0").partition("### Instruction:\n")

ALPACA = (
    "{% if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% else %}{{ PREAMBLE }}{% endif %}"
    "{% for message in messages %}"
    "{% if message.role == 'user' %}{{ '### Instruction:\\n' + message.content + '\\n\\n' }}"
    "{% elif message.role == 'assistant' %}{{ '### Response:\\n' + message.content }}"
    "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}"
    "{% elif message.role != 'system' or not loop.first %}"
    "{{ raise_exception('Alpaca has the roles user and assistant, and system for the first message') }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
).replace("PREAMBLE", repr(_PREAMBLE))

TEMPLATES = {"alpaca": ALPACA}
"""Templates by name, for models that have none."""

_MARK = "\ue000\ue001"
"""Stands for a message in a rendering; characters for private use, which no template contains."""

_FUNCTIONS: "WeakKeyDictionary[Any, ChatFunction]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Passage:
    """The content of one message in a rendered chat.

    Attributes:
        message: index of the message.
        role: the message's role, or "reasoning" for the reasoning block of an assistant's message.
        start: character of the rendering at which the content begins.
        stop: the character after its last.
        text: the content without the white space around it, which some templates remove.
        place: index of the content's first character among those of all contents, the template before each content counted as
            one character. It is the same in every template.
    """

    message: int
    role: str
    start: int
    stop: int
    text: str
    place: int


def use_chat_template(tokenizer: Any, template: str | ChatFunction) -> None:
    """Set the chat template of a tokenizer.

    Args:
        tokenizer: of transformers.
        template: a name in ``TEMPLATES``, a Jinja template, or a function. Names and functions get the BOS that the tokenizer
            adds to texts.

    Raises:
        ValueError: for an unknown name.
    """
    if callable(template):
        _FUNCTIONS[tokenizer] = template
        return
    if "{{" not in template and "{%" not in template:
        named = find(template, TEMPLATES, "chat template", more=", a Jinja template, or a function of the messages")
        template = ("{{ bos_token }}" if _adds_bos(tokenizer) else "") + named
    _FUNCTIONS.pop(tokenizer, None)
    tokenizer.chat_template = template


def has_chat_template(tokenizer: Any) -> bool:
    """Whether chats can be rendered."""
    return tokenizer in _FUNCTIONS or bool(getattr(tokenizer, "chat_template", None))


def template_fingerprint(tokenizer: Any) -> str:
    """A hash of a tokenizer's chat template; of a function, a hash of what it makes of a short chat."""
    if tokenizer not in _FUNCTIONS:
        return hashed(["generation prompt added", getattr(tokenizer, "chat_template", None)])
    chat = Chat((("user", "a"), ("assistant", "b"), ("user", "c")))
    return hashed(_rendered(tokenizer, chat.to_list(), chat))


def render_chat(tokenizer: Any, chat: Chat) -> str:
    """The text of a chat in a tokenizer's own template, reasoning switched off where the template has a switch.

    The prompt for the assistant's answer is added, unless the last message is the assistant's. A template that rejects a system
    prompt, or drops it, gets it at the beginning of the first message of the user, an empty line after it.

    Raises:
        ValueError: for a tokenizer without a template, a chat that the template rejects, or one of whose messages it leaves
            out.
    """
    takes_system = _takes_system(tokenizer, chat)
    text = _rendered(tokenizer, chat.to_list(), chat, takes_system)
    for index, (role, content) in enumerate(chat.messages):
        answer = split_reasoning(content)[-1].strip()
        marked = _rendered(tokenizer, _replaced(chat, index, _MARK), chat, takes_system) if answer else _MARK
        if answer not in text or _MARK not in marked:
            raise _not_rendered(index, role, content)
    return text


def located(tokenizer: Any, chat: Chat) -> tuple[str, tuple[Passage, ...]]:
    """Render a chat, and return where each message is in the text, in the order of the text.

    Blank messages have no passage, nor have reasoning blocks that the template leaves out. White space around a content may be
    kept or removed by the template.

    Raises:
        ValueError: as ``render_chat``; and for a message that the template changes or repeats.
    """
    text, takes_system = render_chat(tokenizer, chat), _takes_system(tokenizer, chat)
    passages, place = [], 0
    for index, (role, content) in enumerate(chat.messages):
        pieces = split_reasoning(content) if role == "assistant" else ("", "", "", content)
        for number, kind in ((1, "reasoning"), (3, role)):
            own = pieces[number].strip()
            if not own:
                continue
            messages = _replaced(chat, index, "".join((*pieces[:number], _MARK, *pieces[number + 1 :])))
            before, mark, after = _rendered(tokenizer, messages, chat, takes_system).partition(_MARK)
            place += 1
            if mark or kind != "reasoning":
                stop = len(text) - len(after)
                exact = mark and _MARK not in after and text.startswith(before) and text.endswith(after)
                if not exact or text[len(before) : stop].strip() != own:
                    raise _not_rendered(index, role, content)
                passages.append(Passage(index, kind, len(before), stop, own, place))
            place += len(own)
    return text, tuple(sorted(passages, key=lambda passage: passage.start))


def _replaced(chat: Chat, index: int, content: str) -> Messages:
    """The messages of a chat with another content for one of them."""
    messages = chat.to_list()
    messages[index]["content"] = content
    return messages


def _not_rendered(index: int, role: str, content: str) -> ValueError:
    return ValueError(
        f"the model's chat template does not render message {index} ({role}: {content[:40]!r}) as it is: it changes it or "
        "leaves it out; leave the message out, give the prompt as a text, or choose another template with "
        "load_model(..., chat_template=...)"
    )


def _takes_system(tokenizer: Any, chat: Chat) -> bool:
    """Whether the template has a place for the chat's system prompt; true for a chat without one."""
    if [role for role, _ in chat.messages[:2]] != ["system", "user"] or not has_chat_template(tokenizer):
        return True
    system, *rest = chat.to_list()
    try:
        return _MARK in _rendered(tokenizer, [system | {"content": _MARK}, *rest], chat)
    except ValueError:
        return False


def _rendered(tokenizer: Any, messages: Messages, chat: Chat, takes_system: bool = True) -> str:
    """The text of ``messages``, which may hold a mark in place of a content; errors name ``chat``."""
    if not has_chat_template(tokenizer):
        raise ValueError(
            "this model's tokenizer has no chat template, so it cannot read a chat: give the prompt as a text, or name a "
            "template, such as load_model(..., chat_template='alpaca') or --chat-template alpaca"
        )
    if not takes_system:
        system, user, *rest = messages
        messages = [user | {"content": f"{system['content']}\n\n{user['content']}"}, *rest]
    ask = chat.messages[-1][0] != "assistant"
    function = _FUNCTIONS.get(tokenizer)
    try:
        if function is None:
            return str(
                tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask, enable_thinking=False)
            )
        text = function(messages, ask)
        if not isinstance(text, str):
            raise TypeError(f"it returned a {type(text).__name__}, not a text")
    except Exception as error:  # a template is foreign code and raises what it likes
        shown = str(chat.to_list())
        raise ValueError(
            f"the model's chat template rejects the chat {shown[:160]}{'...' if len(shown) > 160 else ''}: {first_line(error)} "  # noqa: PLR2004
            f"(its roles are {', '.join(role for role, _ in chat.messages)}): change the messages, or give the prompt as a text"
        ) from error
    bos = tokenizer.bos_token if _adds_bos(tokenizer) else ""
    return text if text.startswith(bos) else bos + text


def _adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts a BOS before texts."""
    return tokenizer.bos_token_id is not None and tokenizer("a", verbose=False)["input_ids"][:1] == [tokenizer.bos_token_id]
