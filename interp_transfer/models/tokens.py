"""Token ids of prompts, as the model's own tokenizer and chat template make them."""

from collections.abc import Mapping, Sequence
from typing import Any

from interp_transfer.models.hooked_model import HookedModel, context_length
from interp_transfer.models.identity import registered_tokenizer, tokenizer_hash
from interp_transfer.prompts.chats import Chat, PromptLike, as_prompt


class TextTooLong(ValueError):
    """A text has more tokens than the model's context."""


def tokenizer_of(model: HookedModel) -> Any:
    """The tokenizer that turns texts into this model's tokens.

    For models loaded by ``load_model`` it is the checkpoint's own, as transformers loads it: the wrapper's copy may prepend a
    BOS that the checkpoint's own tokenizer does not add.
    """
    tokenizer = registered_tokenizer(model)
    tokenizer = model.tokenizer if tokenizer is None else tokenizer
    if tokenizer is None:
        raise ValueError("this model has no tokenizer: wrap it with one, or use load_model(model, tokenizer=...)")
    return tokenizer


def tokenizer_fingerprint(model: HookedModel) -> str:
    """A hash that two models share exactly if they turn every text into the same tokens."""
    return tokenizer_hash(tokenizer_of(model), specials=True)[:16]


def tokenize(
    model: HookedModel, prompts: Sequence[PromptLike], *, first_text: int = 0, any_length: bool = False
) -> list[list[int]]:
    """Token ids of each prompt, without padding.

    A text is tokenized with the special tokens that the tokenizer adds by default; one that already begins or ends with such a
    token does not get it twice. A chat is rendered by ``render_chat``, whose template writes all special tokens itself.

    Args:
        model: any hooked model.
        prompts: texts or chats.
        first_text: index of the first prompt in errors.
        any_length: return prompts that exceed the model's context too, instead of refusing them.

    Raises:
        ValueError: for a prompt that is neither text nor chat or has no tokens, a chat where the tokenizer has no template,
            or (as `TextTooLong`) a prompt that exceeds the model's context.
    """
    tokenizer = tokenizer_of(model)
    texts: dict[int, str] = {}
    chats: dict[int, str] = {}
    for index, prompt in enumerate(prompts):
        try:
            prompt = as_prompt(prompt)
        except ValueError as error:
            raise ValueError(f"text {first_text + index}: {error}") from error
        if isinstance(prompt, Chat):
            chats[index] = render_chat(tokenizer, prompt)
        else:
            texts[index] = prompt
    rows: list[list[int]] = [[] for _ in prompts]
    if texts:
        ids = tokenizer(list(texts.values()), verbose=False)["input_ids"]
        for index, row in zip(texts, without_doubles([list(row) for row in ids], tokenizer), strict=True):
            rows[index] = row
    if chats:
        ids = tokenizer(list(chats.values()), add_special_tokens=False, verbose=False)["input_ids"]
        for index, row in zip(chats, ids, strict=True):
            rows[index] = list(row)
    limit = context_length(model)
    for index, row in enumerate(rows):
        if not row:
            raise ValueError(f"text {first_text + index} ({prompts[index]!r}) has no tokens: leave it out")
        if len(row) > limit and not any_length:
            raise TextTooLong(
                f"text {first_text + index} has {len(row)} tokens, the model's context is {limit}: shorten or split it"
            )
    return rows


def render_chat(tokenizer: Any, chat: Chat) -> str:
    """The text of a chat in a tokenizer's own template, reasoning switched off where the template has a switch.

    The prompt for the assistant's answer is added, unless the last message is the assistant's. Where the template has no system
    role, see `apply_template`.

    Raises:
        ValueError: for a tokenizer without a template, or a chat that the template rejects.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "this model's tokenizer has no chat template, so it cannot read a chat: give the prompt as a text, or set "
            "tokenizer.chat_template"
        )
    from jinja2 import TemplateError

    ask = chat.messages[-1][0] != "assistant"
    try:
        return apply_template(tokenizer, chat.to_list(), add_generation_prompt=ask, enable_thinking=False)
    except TemplateError as error:
        raise ValueError(f"the model's chat template rejects the chat {chat.to_list()!r}: {error}") from error


def apply_template(tokenizer: Any, messages: Sequence[Mapping[str, str]], **options: Any) -> str:
    """Render messages in a tokenizer's own template.

    A template that rejects a system prompt, or drops it, gets it at the beginning of the first message of the user, an empty
    line after it.

    Args:
        tokenizer: a tokenizer with a chat template.
        messages: messages with ``role`` and ``content``.
        options: of ``apply_chat_template``.

    Raises:
        jinja2.TemplateError: for messages that the template rejects in this form too.
    """
    from jinja2 import TemplateError

    plain = [dict(message) for message in messages]
    roles = [message["role"] for message in plain[:2]]
    try:
        text = tokenizer.apply_chat_template(plain, tokenize=False, **options)
    except TemplateError:
        if roles != ["system", "user"]:
            raise
    else:
        if roles != ["system", "user"] or plain[0]["content"].strip() in text:
            return text
    first, second, *rest = plain
    joined = {**second, "content": f"{first['content']}\n\n{second['content']}"}
    return tokenizer.apply_chat_template([joined, *rest], tokenize=False, **options)


def without_doubles(rows: list[list[int]], tokenizer: Any) -> list[list[int]]:
    """Remove the special token that the tokenizer added to a text that already had it."""
    # Only a token that the tokenizer adds itself is removed: any other doubled token belongs to the text.
    sample = tokenizer("a", verbose=False)["input_ids"]
    first = sample[0] if len(sample) > 1 and sample[0] == tokenizer.bos_token_id else None
    last = sample[-1] if len(sample) > 1 and sample[-1] == tokenizer.eos_token_id else None
    rows = [ids[1:] if first is not None and ids[:2] == [first, first] else ids for ids in rows]
    return [ids[:-1] if last is not None and ids[-2:] == [last, last] else ids for ids in rows]
