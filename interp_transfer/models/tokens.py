"""Token ids of prompts, as the model's own tokenizer and chat template make them."""

import hashlib
import warnings
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from interp_transfer.models.chat_templates import render_chat
from interp_transfer.models.hooked_model import HookedModel, check_model, context_length
from interp_transfer.models.identity import registered_tokenizer, tokenizer_hash
from interp_transfer.prompts.chats import Chat, PromptLike, as_prompt

UNFINISHED = "\ufffd"
"""What a tokenizer decodes an incomplete character to."""
CHATS_REMEMBERED = 1 << 16
"""Number of chats that positions in chats can look up, see ``chat_of``; those of the last call in any case."""

_CHATS: "WeakKeyDictionary[Any, OrderedDict[bytes, Chat]]" = WeakKeyDictionary()


class TextTooLong(ValueError):
    """A text has more tokens than the model's context."""


def tokenizer_of(model: HookedModel) -> Any:
    """The tokenizer that turns texts into this model's tokens.

    For models loaded by ``load_model`` it is the checkpoint's own, as transformers loads it: the wrapper's copy may prepend a
    BOS that the checkpoint's own tokenizer does not add.
    """
    check_model(model)
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

    A text is tokenized with the special tokens that the tokenizer adds before it by default; one that already begins with them,
    such as a rendered chat, does not get them twice. Those that it adds after a text are left out, with a warning. A chat is
    rendered by ``render_chat``, whose template writes all special tokens itself.

    Args:
        model: any hooked model.
        prompts: texts or chats.
        first_text: index of the first prompt in errors.
        any_length: return prompts that exceed the model's context too, instead of refusing them.

    Raises:
        ValueError: for one string instead of a list, a prompt that is neither text nor chat or has no tokens, a token that
            the model lacks, a chat that ``render_chat`` refuses, or (as `TextTooLong`) a prompt that exceeds the context.
    """
    if isinstance(prompts, str):
        raise ValueError(f"one string was given, {prompts[:60]!r}: give a list of strings")
    tokenizer = tokenizer_of(model)
    texts: dict[int, str] = {}
    chats: dict[int, Chat] = {}
    for index, prompt in enumerate(prompts):
        try:
            prompt = as_prompt(prompt)
        except ValueError as error:
            raise ValueError(f"text {first_text + index}: {error}") from error
        if isinstance(prompt, Chat):
            chats[index] = prompt
        else:
            texts[index] = prompt
    rows: list[list[int]] = [[] for _ in prompts]
    if texts:
        ids = tokenizer(list(texts.values()), verbose=False)["input_ids"]
        appended: list[int] = []
        for index, row, own in zip(texts, ids, own_tokens(ids, tokenizer), strict=True):
            rows[index], appended = list(row[own]), list(row[own.stop :])
        if appended:
            last = tokenizer.decode(appended)
            warnings.warn(f"{last!r}, which the tokenizer appends to every text, is left out", UserWarning, stacklevel=2)
    if chats:
        rendered = [render_chat(tokenizer, chat) for chat in chats.values()]
        ids = tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"]
        for (index, chat), row in zip(chats.items(), ids, strict=True):
            rows[index] = list(row)
            _remember(tokenizer, row, chat, max(CHATS_REMEMBERED, len(chats)))
    limit, size = context_length(model), int(model.cfg.d_vocab)
    for index, row in enumerate(rows):
        if not row:
            raise ValueError(f"text {first_text + index} ({prompts[index]!r}) has no tokens: leave it out")
        if max(row) >= size:
            raise ValueError(
                f"text {first_text + index} has the token {tokenizer.decode([max(row)])!r}, number {max(row)}, and the model's "
                f"vocabulary has {size}: give the tokenizer that belongs to the model, tokenizer=..., or resize its embedding"
            )
        if len(row) > limit and not any_length:
            raise TextTooLong(
                f"text {first_text + index} has {len(row)} tokens, the model's context is {limit}: shorten or split it"
            )
    return rows


def chat_of(tokenizer: Any, ids: Sequence[int]) -> Chat | None:
    """The chat that ``tokenize`` rendered to these token ids, or None.

    Token ids do not show which of them are the template's, so positions in chats look the chat up. Two chats of the same ids
    are read as the one that was tokenized last.
    """
    return _CHATS.get(tokenizer, {}).get(_digest(ids))


def _remember(tokenizer: Any, ids: Sequence[int], chat: Chat, most: int) -> None:
    known = _CHATS.setdefault(tokenizer, OrderedDict())
    known[_digest(ids)] = chat
    known.move_to_end(_digest(ids))
    if len(known) > most:
        known.popitem(last=False)


def _digest(ids: Sequence[int]) -> bytes:
    return hashlib.blake2b(array("q", ids).tobytes(), digest_size=16).digest()


def added_tokens(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens that a tokenizer adds before and after every text."""
    full = list(tokenizer("a", verbose=False)["input_ids"])
    bare = list(tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"])
    for first in range(len(full) - len(bare) + 1):
        if full[first : first + len(bare)] == bare:
            return tuple(full[:first]), tuple(full[first + len(bare) :])
    return (), ()


def own_tokens(rows: Sequence[Sequence[int]], tokenizer: Any) -> list[slice]:
    """Which tokens of each text remain without those that the tokenizer appends, and prepends to a text that has them already.

    An appended end token is no part of a text that goes on, and positions such as "last" are those of the text.
    """
    # Only tokens that the tokenizer adds itself are removed: any other doubled token belongs to the text.
    before, after = added_tokens(tokenizer)
    slices = []
    for ids in rows:
        row = tuple(ids)
        start = len(before) if before and row[: 2 * len(before)] == before * 2 else 0
        appended = len(after) if after and row[-len(after) :] == after else 0
        slices.append(slice(start, len(row) - appended))
    return slices


def token_text(tokenizer: Any, token: int) -> str:
    """A token as it reads in the middle of a text; the vocabulary's own spelling of one that is part of a character."""
    piece = str(tokenizer.convert_ids_to_tokens(token))
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = getattr(backend, "decoder", None)
    if token in tokenizer.all_special_ids:
        return piece
    text = tokenizer.decode([token]) if decoder is None else decoder.decode(["a", piece])[1:]  # alone, it may lose its space
    return piece if not text or UNFINISHED in text else text
