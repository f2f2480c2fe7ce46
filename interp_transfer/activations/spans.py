"""The span of each token in its text: where it begins, and up to which character a model has read after it.

Tokenizers split the same text differently, and some split within a character: of the four byte tokens of an emoji, only the
last one completes it. So a token has two ends, which differ inside a character: `sure`, up to which the text has certainly been
read, and `most`, beyond which nothing has been read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Int

from interp_transfer.models.chat_templates import Passage, located
from interp_transfer.models.tokens import own_tokens
from interp_transfer.prompts.chats import Chat, as_prompt

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Conversation = Sequence[Mapping[str, str]]
"""Messages with `role` and `content`, as chat templates take them."""

Ints = Int[np.ndarray, " token"]


@dataclass(frozen=True)
class Part:
    """Consecutive tokens of a chat: of one message's content, or of the template between two contents.

    A token that holds characters of both is one of the content.

    Attributes:
        key: names the part; the same in every template.
        role: of a content the message's role, or "reasoning" for a reasoning block; of the template "start" (the first token),
            "before ROLE" (the next content's), "generation prompt" (after the last content, in a chat that asks for an
            answer), or "end" (in one that ends with an answer).
        is_template: whether the tokens are the template's.
        first: its first token.
        stop: the token after its last.
    """

    key: str
    role: str
    is_template: bool
    first: int
    stop: int


@dataclass(frozen=True, repr=False)
class TokenSpans:
    """The tokens of one text in one tokenizer.

    Places are counted in characters of the text. In chats they are counted in characters of the contents, and each piece of
    the template counts as one character, so that places agree between the templates of two models.

    Attributes:
        pieces: token strings, for display.
        ids: token ids, as the model reads them.
        start: where each token begins.
        sure: place up to which the text has certainly been read.
        most: place beyond which nothing has been read; never decreases from token to token.
        closes: tokens at which a word ends.
        added: tokens that the tokenizer added around the text, such as BOS.
        text: the text, or the rendered chat.
        parts: the parts of a chat, in order; empty for a text.
    """

    pieces: tuple[str, ...]
    ids: Ints
    start: Ints
    sure: Ints
    most: Ints
    closes: Bool[np.ndarray, " token"]
    added: Bool[np.ndarray, " token"]
    text: str
    parts: tuple[Part, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, part: Part) -> "TokenSpans":
        """Return the tokens of one part."""
        cut = slice(part.first, part.stop)
        arrays = {name: getattr(self, name)[cut] for name in ("ids", "start", "sure", "most", "closes", "added")}
        return replace(self, pieces=self.pieces[cut], parts=(), **arrays)

    def __repr__(self) -> str:
        return f"TokenSpans({' '.join(map(repr, self.pieces[:8]))}{' ...' if len(self) > 8 else ''}; {len(self)} tokens)"  # noqa: PLR2004


def spans_of(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str | Chat | Conversation]) -> list[TokenSpans]:
    """Return the spans of the tokens of texts and chats, as the model reads them.

    Raises:
        ValueError: for one string instead of a list, and as ``token_spans`` and ``chat_spans``.
    """
    if isinstance(texts, str):
        raise ValueError(f"one string was given, {texts[:60]!r}: give a list of strings")
    prompts = [as_prompt(text) for text in texts]
    spans = iter(token_spans(tokenizer, [prompt for prompt in prompts if isinstance(prompt, str)]))
    chats = iter(chat_spans(tokenizer, [prompt for prompt in prompts if isinstance(prompt, Chat)]))
    return [next(spans if isinstance(prompt, str) else chats) for prompt in prompts]


def token_spans(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[TokenSpans]:
    """Return the spans of every text's tokens.

    Args:
        tokenizer: any fast tokenizer.
        texts: the texts as the model reads them.

    Raises:
        ValueError: for a tokenizer without offsets.
    """
    encoded = _exact(tokenizer).encode_batch(list(texts)) if len(texts) else []
    own = own_tokens([e.ids for e in encoded], tokenizer) if encoded else []
    return [_spans(text, e, cut) for text, e, cut in zip(texts, encoded, own, strict=True)]


def chat_spans(tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Chat]) -> list[TokenSpans]:
    """Return the spans of the tokens of chats, which are rendered in the tokenizer's own chat template.

    Raises:
        ValueError: if the tokenizer has no offsets, or for a chat that ``located`` refuses.
    """
    rendered = [located(tokenizer, chat) for chat in chats]
    encoded = _exact(tokenizer).encode_batch([text for text, _ in rendered], add_special_tokens=False) if rendered else []
    spans = []
    for chat, (text, passages), e in zip(chats, rendered, encoded, strict=True):
        if any(one.place > other.place for one, other in pairwise(passages)):
            roles = ", ".join(passage.role for passage in passages)
            raise ValueError(
                f"the model's chat template changes the order of the messages (to {roles}), so their tokens have no place that "
                "two templates share: leave out the message that it moves, or give plain texts"
            )
        plain = _spans(text, e, slice(len(e.ids)))
        low, high = _shared_places(passages, text)
        last = "end" if chat.messages[-1][0] == "assistant" else "generation prompt"
        parts = _parts(plain, passages, last)
        sure, most = low[plain.sure], high[plain.most]
        for part in parts:
            if part.is_template:  # a piece of the template is one place, in any number of tokens
                sure[part.first : part.stop] = most[part.first : part.stop]
        spans.append(replace(plain, start=low[plain.start], sure=sure, most=most, parts=parts))
    return spans


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


def _spans(text: str, encoded: Any, cut: slice) -> TokenSpans:
    kept = encoded.ids[cut]
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


def _shared_places(passages: Sequence[Passage], text: str) -> tuple[Ints, Ints]:
    """For each place in a rendered chat, the first and the last shared place that it can correspond to."""
    low, high = (np.zeros(len(text) + 1, dtype=np.int64) for _ in range(2))
    cursor, shared = 0, 0
    for passage in passages:
        low[cursor : passage.start], high[cursor + 1 : passage.start], high[cursor] = shared, passage.place, shared
        content = text[passage.start : passage.stop]
        at = passage.start + len(content) - len(content.lstrip())
        end, shared = at + len(passage.text), passage.place + len(passage.text)
        for places in (low, high):
            places[passage.start : at] = passage.place
            places[at:end] = np.arange(passage.place, shared)
            places[end : passage.stop] = shared
        cursor = passage.stop
    low[cursor:], high[cursor + 1 :], high[cursor] = shared, shared + 1, shared
    if cursor < len(text):
        low[-1] = shared + 1
    return low, high


def _parts(spans: TokenSpans, passages: Sequence[Passage], last: str) -> tuple[Part, ...]:
    """The parts of a rendered chat, from spans in the characters of the rendering; ``last`` is the role after all contents."""
    before = [(f"before {p.message} {p.role}", f"before {p.role}", True) for p in passages] + [("after", last, True)]
    kinds = [before[sum(p.stop <= start for p in passages)] for start in spans.start.tolist()]
    kinds[:1] = [("start", "start", True)] if kinds else []
    for passage in reversed(passages):  # a token that holds two contents is one of the first
        inside = ((spans.start < passage.stop) & (spans.most > passage.start)).nonzero()[0]
        if len(inside):
            content = (f"{passage.message} {passage.role}", passage.role, False)
            kinds[inside[0] : inside[-1] + 1] = [content] * int(inside[-1] + 1 - inside[0])
    edges = [i for i in range(len(kinds)) if i == 0 or kinds[i] != kinds[i - 1]]
    return tuple(Part(*kinds[a], a, b) for a, b in zip(edges, [*edges[1:], len(kinds)], strict=True))
