"""Align the tokens of a text that is still being generated with those of another tokenizer.

A strategy of ``activations.align`` pairs the tokens of two tokenizers over a whole text. During generation there is no whole
text, and the source's last tokens may change when more text arrives. So each token is paired when it is read: the tokens of a
prompt over the text of the prompt, a generated token over the text up to its own end. A token is never paired again, with a KV
cache or without; teacher forcing pairs the tokens of an answer as generation does.

The text is that of the target's tokens. It leaves out tokens that the target's tokenizer adds around a text (BOS) and special
tokens that were generated; special tokens that are written in a prompt (a chat template's) are text. The source reads what its
own tokenizer makes of the text, with its own BOS.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from interp_transfer.activations.align import find_strategy
from interp_transfer.activations.spans import TokenSpans, ends_word, token_spans
from interp_transfer.models.tokens import added_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_INCOMPLETE = "\ufffd"
"""The decoded form of bytes that are no complete character."""


@dataclass(frozen=True)
class TargetTokens:
    """Tokens of one text of the target that need partners.

    Attributes:
        ids: all tokens of the text that have been read.
        prompt: how many of them are the prompt.
        positions: those that need a partner, in order.
    """

    ids: list[int]
    prompt: int
    positions: list[int]


@dataclass(frozen=True)
class SourceReading:
    """A sequence that the source has to read, and the partners in it.

    Attributes:
        ids: token ids of the source, up to the last partner.
        positions: tokens of the target, by position; those without a partner are in no reading.
        first: index into ``ids`` of each one's first partner.
        stop: index after its last partner.
    """

    ids: list[int]
    positions: list[int]
    first: list[int]
    stop: list[int]


def same_tokens(target: TargetTokens) -> list[SourceReading]:
    """Pair every token with itself, for two models with the same tokenizer."""
    if not target.positions:
        return []
    stop = [position + 1 for position in target.positions]
    return [SourceReading(target.ids[: stop[-1]], target.positions, target.positions, stop)]


@dataclass
class StreamingAligner:
    """Pairs the tokens of growing texts. Decoded text is kept, so that a longer text costs only its new tokens.

    Attributes:
        source: the source's tokenizer.
        target: the target's.
        strategy: name of a strategy of ``activations.align``.
        texts: the decoded text of each row of the batch.
    """

    source: "PreTrainedTokenizerBase"
    target: "PreTrainedTokenizerBase"
    strategy: str
    texts: "list[_GrowingText | None]" = field(default_factory=list)

    def pair(self, rows: Sequence[TargetTokens]) -> list[list[SourceReading]]:
        """Return, for each row, the sequences that the source has to read in turn; usually a single one."""
        if len(rows) != len(self.texts):
            self.texts = [None] * len(rows)
        tasks: list[tuple[int, list[int], TokenSpans]] = []
        for row, tokens in enumerate(rows):
            if not tokens.positions:
                continue
            text = self.texts[row] = _updated(self.texts[row], self.target, tokens)
            prompt = [p for p in tokens.positions if p < text.prompt]
            if prompt:
                tasks.append((row, prompt, text.spans(text.prompt)))
            tasks += [(row, [p], text.spans(p + 1)) for p in tokens.positions if p >= text.prompt]
        source_spans = token_spans(self.source, [target.text for _, _, target in tasks])
        readings: list[list[SourceReading]] = [[] for _ in rows]
        for (row, positions, target), source in zip(tasks, source_spans, strict=True):
            first, stop = find_strategy(self.strategy)(source, target)
            paired = [p for p in positions if stop[p] > first[p]]
            if paired:
                length = int(max(stop[p] for p in paired))
                firsts, stops = ([int(bounds[p]) for p in paired] for bounds in (first, stop))
                _append(readings[row], SourceReading(source.ids[:length].tolist(), paired, firsts, stops))
        return readings


def _append(readings: list[SourceReading], new: SourceReading) -> None:
    """Append a reading, or merge it into the last one if one of the two sequences is a beginning of the other."""
    last = readings[-1] if readings else None
    shorter = min(len(last.ids), len(new.ids)) if last else 0
    if last is None or last.ids[:shorter] != new.ids[:shorter]:
        readings.append(new)
        return
    ids = max(last.ids, new.ids, key=len)
    readings[-1] = SourceReading(ids, last.positions + new.positions, last.first + new.first, last.stop + new.stop)


@dataclass
class _GrowingText:
    """The text of one row, token by token.

    Attributes:
        tokenizer: the target's.
        prompt: how many tokens are the prompt.
        prompt_spans: spans of the prompt.
        ids: all tokens so far.
        text_ids: those that are text.
        text: the decoded text, without an incomplete last character.
        start, sure, most: where each token begins and its two ends, as in ``TokenSpans``.
        special: ids that are no text when they are generated.
    """

    tokenizer: Any
    prompt: int
    prompt_spans: TokenSpans
    ids: list[int]
    text_ids: list[int]
    text: str
    start: list[int]
    sure: list[int]
    most: list[int]
    special: frozenset[int]

    def spans(self, length: int) -> TokenSpans:
        """Return spans of the first ``length`` tokens, with the text up to the end of the last of them."""
        if length == self.prompt:
            return self.prompt_spans
        generated = length - self.prompt
        text = self.text[: self.sure[length - 1]]
        # Only the last generated token is ever paired; whether the others end a word does not matter.
        closes = np.append(self.prompt_spans.closes, np.zeros(generated, dtype=bool))
        closes[-1] = self.sure[length - 1] == self.most[length - 1] and _surely_ends_word(text)
        start, sure, most = (np.array(column[:length], dtype=np.int64) for column in (self.start, self.sure, self.most))
        return TokenSpans(
            (*self.prompt_spans.pieces, *[""] * generated),
            np.array(self.ids[:length], dtype=np.int64),
            start,
            sure,
            most,
            closes,
            np.append(self.prompt_spans.added, np.zeros(generated, dtype=bool)),
            text,
        )

    def grow(self, token: int) -> None:
        """Add one generated token."""
        begin, incomplete = len(self.text), False
        self.ids.append(token)
        if token not in self.special:
            self.text_ids.append(token)
            self.text, incomplete = _decode(self.tokenizer, self.text_ids, self.text)
        self.start.append(begin)
        self.sure.append(len(self.text))
        self.most.append(len(self.text) + incomplete)


def _updated(text: _GrowingText | None, tokenizer: Any, tokens: TargetTokens) -> _GrowingText:
    """The text of all tokens; continues ``text`` if it is a beginning of it."""
    prompt = min(tokens.prompt, len(tokens.ids))
    if text is None or text.prompt != prompt or text.ids[: len(tokens.ids)] != tokens.ids[: len(text.ids)]:
        text = _prompt_text(tokenizer, tokens.ids[:prompt])
    for token in tokens.ids[len(text.ids) :]:
        text.grow(token)
    return text


def _prompt_text(tokenizer: Any, ids: list[int]) -> _GrowingText:
    before, after = added_tokens(tokenizer)
    first = len(before) if ids[: len(before)] == list(before) else 0
    last = len(ids) - (len(after) if after and ids[len(ids) - len(after) :] == list(after) else 0)
    last = max(first, last)
    text, _ = _decode(tokenizer, ids[first:last], "")
    spans = token_spans(tokenizer, [text])[0]
    if spans.ids.tolist() != ids:  # the tokenizer would have cut this text differently
        spans = _spans_by_decoding(tokenizer, ids, first, last)
    closes = spans.closes.copy()
    own = (~spans.added).nonzero()[0]
    if len(own):  # the text after the prompt is not known yet
        closes[own[-1]] = bool(closes[own[-1]]) and _surely_ends_word(spans.text)
    spans = replace(spans, closes=closes)
    start, sure, most = ([int(place) for place in column] for column in (spans.start, spans.sure, spans.most))
    special = frozenset(tokenizer.all_special_ids)
    return _GrowingText(tokenizer, len(ids), spans, list(ids), ids[first:last], spans.text, start, sure, most, special)


def _spans_by_decoding(tokenizer: Any, ids: list[int], first: int, last: int) -> TokenSpans:
    """Spans of tokens by decoding ever longer prefixes; tokens outside of ``first`` to ``last`` were added around the text."""
    text, columns = "", ([0] * first, [0] * first, [0] * first)
    for end in range(first + 1, last + 1):
        begin = len(text)
        text, incomplete = _decode(tokenizer, ids[first:end], text)
        for column, place in zip(columns, (begin, len(text), len(text) + incomplete), strict=True):
            column.append(place)
    start, sure, most = (np.array(column + [len(text)] * (len(ids) - last), dtype=np.int64) for column in columns)
    index = np.arange(len(ids))
    added = (index < first) | (index >= last)
    closes = ~added & (sure == most) & np.array([ends_word(text, place) for place in sure.tolist()], dtype=bool)
    return TokenSpans(("",) * len(ids), np.array(ids, dtype=np.int64), start, sure, most, closes, added, text)


def _decode(tokenizer: Any, ids: list[int], before: str) -> tuple[str, bool]:
    """The text of tokens without an incomplete last character, and whether there is one. It is no shorter than ``before``."""
    decoded = str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    complete = decoded.rstrip(_INCOMPLETE)
    return (complete if len(complete) >= len(before) else before), len(complete) < len(decoded)


def _surely_ends_word(text: str) -> bool:
    """Whether a word ends with the text, whatever follows."""
    return ends_word(f"{text}a", len(text))
