"""The span of each token in its text: where it begins, and up to which character a model has read after it.

Tokenizers split the same text differently, and some split within a character: of the four byte tokens of an emoji, only the
last one completes it. So a token has two ends, which differ inside a character: `sure`, up to which the text has certainly been
read, and `most`, beyond which nothing has been read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Int

from interp_transfer.models.tokens import apply_template, without_doubles

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Conversation = Sequence[Mapping[str, str]]
"""Messages with `role` and `content`, as chat templates take them."""

Ints = Int[np.ndarray, " token"]


@dataclass(frozen=True, repr=False)
class TokenSpans:
    """The tokens of one text in one tokenizer.

    Places are counted in characters of the text. In conversations each piece of the template counts as one character, so that
    places agree between the templates of two models.

    Attributes:
        pieces: token strings, for display.
        ids: token ids, as the model reads them.
        start: where each token begins.
        sure: place up to which the text has certainly been read.
        most: place beyond which nothing has been read; never decreases from token to token.
        closes: tokens at which a word ends.
        added: tokens that the tokenizer added around the text, such as BOS.
        text: the text, or the rendered conversation.
    """

    pieces: tuple[str, ...]
    ids: Ints
    start: Ints
    sure: Ints
    most: Ints
    closes: Bool[np.ndarray, " token"]
    added: Bool[np.ndarray, " token"]
    text: str

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"TokenSpans({' '.join(map(repr, self.pieces[:8]))}{' ...' if len(self) > 8 else ''}; {len(self)} tokens)"  # noqa: PLR2004


def token_spans(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[TokenSpans]:
    """Return the spans of every text's tokens.

    Args:
        tokenizer: any fast tokenizer.
        texts: the texts as the model reads them.

    Raises:
        ValueError: for a tokenizer without offsets.
    """
    encoded = _exact(tokenizer).encode_batch(list(texts)) if len(texts) else []
    return [_spans(tokenizer, text, e) for text, e in zip(texts, encoded, strict=True)]


def chat_spans(
    tokenizer: "PreTrainedTokenizerBase", conversations: Sequence[Conversation]
) -> tuple[list[str], list[TokenSpans]]:
    """Render conversations in the tokenizer's own chat template, and return them with the spans of their tokens.

    A piece of the template is complete with its last token; the tokens before it have read a part of it.

    Raises:
        ValueError: if the tokenizer has no template, or its template changes the messages' text.
    """
    texts, spans = rendered(tokenizer, conversations), []
    for messages, text, plain in zip(conversations, texts, token_spans(tokenizer, texts), strict=True):
        low, high = _shared_places(messages, text)
        spans.append(replace(plain, start=low[plain.start], sure=low[plain.sure], most=high[plain.most]))
    return texts, spans


def rendered(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str | Conversation]) -> list[str]:
    """Render conversations in the tokenizer's own chat template; strings stay as they are.

    Raises:
        ValueError: if there are conversations and the tokenizer has no template.
    """
    if not tokenizer.chat_template and not all(isinstance(text, str) for text in texts):
        raise ValueError("the tokenizer has no chat template: set tokenizer.chat_template, or give plain texts")
    return [text if isinstance(text, str) else apply_template(tokenizer, text) for text in texts]


_EXACT: "WeakKeyDictionary[PreTrainedTokenizerBase, Tokenizer]" = WeakKeyDictionary()


def _exact(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer":
    """The tokenizer without padding and truncation, with spaces included in offsets."""
    from tokenizers import Tokenizer

    if tokenizer not in _EXACT:
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ValueError(
                f"{type(tokenizer).__name__} is a slow tokenizer, which has no offsets of its tokens in the text: load it with "
                "use_fast=True, or convert it to a fast one"
            )
        state = json.loads(backend.to_str()) | {"padding": None, "truncation": None}
        _EXACT[tokenizer] = cast("Tokenizer", Tokenizer.from_str(json.dumps(_untrimmed(state))))
    return _EXACT[tokenizer]


def _untrimmed(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: False if key == "trim_offsets" else _untrimmed(value) for key, value in state.items()}
    return [_untrimmed(value) for value in state] if isinstance(state, list) else state


def _spans(tokenizer: "PreTrainedTokenizerBase", text: str, encoded: Any) -> TokenSpans:
    kept = without_doubles([list(encoded.ids)], tokenizer)[0]
    first = 0 if kept == encoded.ids[: len(kept)] else 1  # the doubled special token is at the start or at the end
    cut = slice(first, first + len(kept))
    added = np.array(encoded.special_tokens_mask[cut], dtype=bool)
    offsets = np.array(encoded.offsets[cut], dtype=np.int64).reshape(-1, 2)
    own = (~added).nonzero()[0]
    start, sure, most = (np.zeros(len(kept), dtype=np.int64) for _ in range(3))
    start[own], sure[own], most[own] = _ends(text, offsets[own, 0], offsets[own, 1])
    after = np.arange(len(kept)) > (own[-1] if len(own) else -1)
    for places in (start, sure, most):
        places[added & after] = len(text) if len(own) else 0
    closes = ~added & (sure == most) & np.array([ends_word(text, place) for place in most.tolist()], dtype=bool)
    return TokenSpans(tuple(encoded.tokens[cut]), np.array(kept, dtype=np.int64), start, sure, most, closes, added, text)


def ends_word(text: str, place: int) -> bool:
    """Return whether a word ends at a place: there is text before it that no letter or digit continues."""
    before, after = text[place - 1 : place], text[place : place + 1]
    return bool(before) and not before.isspace() and not (before.isalnum() and after.isalnum())


def _ends(text: str, start: Ints, end: Ints) -> tuple[Ints, Ints, Ints]:
    """Where tokens begin, and their two ends, from a tokenizer's offsets."""
    start, end = start.copy(), end.copy()
    following = np.append(start[1:], len(text))
    for i in (following > end).nonzero()[0]:
        if not text[end[i] : following[i]].isspace():  # composed or dropped by the normalizer: read with the text before
            end[i] = following[i]
    sure = np.minimum(end, np.minimum.accumulate(np.append(start, len(text))[::-1])[::-1][1:])
    for first, last in _shared_spans(start, end):
        sizes = [len(char.encode()) for char in text[start[first] : end[first]]]
        if sum(sizes) == last - first:  # a token for each byte
            whole = np.repeat(np.arange(len(sizes)), sizes) + start[first]
            done = np.repeat(np.cumsum(sizes), sizes) == np.arange(1, last - first + 1)
            start[first:last], end[first:last], sure[first:last] = whole, whole + 1, whole + done
    return start, np.maximum.accumulate(sure), np.maximum.accumulate(end)


def _shared_spans(start: Ints, end: Ints) -> list[tuple[int, int]]:
    """Runs of two or more tokens that have the same offsets."""
    fresh = np.append(True, (start[1:] != start[:-1]) | (end[1:] != end[:-1]))
    edges = np.append(fresh.nonzero()[0], len(start)) if len(start) else np.zeros(1, dtype=np.int64)
    return [(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True) if b - a > 1]


def _shared_places(messages: Conversation, text: str) -> tuple[Ints, Ints]:
    """For each place in a rendered conversation, the first and the last shared place that it can correspond to."""
    low, high = (np.zeros(len(text) + 1, dtype=np.int64) for _ in range(2))
    cursor, shared = 0, 0
    for index, message in enumerate(messages):
        content = message["content"].strip()
        at = text.find(content, cursor)
        if at < 0:
            raise ValueError(f"the chat template does not render message {index} ({content[:40]!r}) as it is: give plain texts")
        low[cursor:at], high[cursor + 1 : at] = shared, shared + 1
        high[cursor] = shared
        shared += 1
        low[at : at + len(content)] = high[at : at + len(content)] = np.arange(shared, shared + len(content))
        cursor, shared = at + len(content), shared + len(content)
    low[cursor:], high[cursor + 1 :], high[cursor] = shared, shared + 1, shared
    if cursor < len(text):
        low[-1] = shared + 1
    return low, high
