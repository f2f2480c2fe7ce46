"""What another model has to read, and where, to stand for the tokens of a text that is still growing.

A strategy of `activations.align` pairs the tokens of two tokenizers over a whole text. While a text is generated there is no
whole text, and what the source makes of the last word may change when more of it arrives. So each token is paired when it is
read: the tokens of a prompt over the text of the prompt, a generated token over the text up to its own end. What was paired
is never paired again, with a cache or without; teacher forcing pairs the tokens of an answer as generating it would have.

The text is that of the target's tokens. Tokens that its tokenizer puts around a text (BOS) are no part of it, and neither are
special tokens that were generated; special tokens that are written in a prompt (a chat template's) are text like any other.
The source reads what its own tokenizer makes of the text, with its own BOS.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from interp_transfer.activations.align import find_strategy
from interp_transfer.activations.spans import TokenSpans, ends_word, token_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"
"""What bytes that do not make a character yet are decoded to."""


@dataclass(frozen=True)
class Asked:
    """Tokens of one text of the target that need partners.

    Attributes:
        ids: all tokens that have been read of it.
        prompt: how many of them are the prompt.
        positions: which ones need a partner, in order.
    """

    ids: list[int]
    prompt: int
    positions: list[int]


@dataclass(frozen=True)
class Found:
    """What the source has to read for some tokens of a text, and which of its tokens are their partners.

    Attributes:
        ids: token ids of the source, no further than the last partner.
        positions: tokens of the target, by position; those without a partner are in no ``Found``.
        first: each one's first partner, an index into ``ids``.
        behind: the one behind its last partner.
    """

    ids: list[int]
    positions: list[int]
    first: list[int]
    behind: list[int]


def same_partners(asked: Asked) -> list[Found]:
    """Every token with itself, for two models of one tokenizer."""
    if not asked.positions:
        return []
    behind = [position + 1 for position in asked.positions]
    return [Found(asked.ids[: behind[-1]], asked.positions, asked.positions, behind)]


@dataclass
class Partners:
    """Pairs the tokens of growing texts; keeps what it has decoded, so that a longer text costs only its end.

    Attributes:
        source: the source's tokenizer.
        target: the target's.
        strategy: name of a strategy of ``activations.align``.
        texts: of each row of a batch, as far as it has been decoded.
    """

    source: "PreTrainedTokenizerBase"
    target: "PreTrainedTokenizerBase"
    strategy: str
    texts: "list[_Text | None]" = field(default_factory=list)

    def find(self, asked: Sequence[Asked]) -> list[list[Found]]:
        """For each text, what the source has to read one after the other; mostly a single sequence."""
        if len(asked) != len(self.texts):
            self.texts = [None] * len(asked)
        readings: list[tuple[int, list[int], TokenSpans]] = []
        for row, one in enumerate(asked):
            if not one.positions:
                continue
            text = self.texts[row] = _grown(self.texts[row], self.target, one)
            prompt = [p for p in one.positions if p < text.prompt]
            if prompt:
                readings.append((row, prompt, text.spans(text.prompt)))
            readings += [(row, [p], text.spans(p + 1)) for p in one.positions if p >= text.prompt]
        heard = token_spans(self.source, [spans.text for _, _, spans in readings])
        found: list[list[Found]] = [[] for _ in asked]
        for (row, positions, target), source in zip(readings, heard, strict=True):
            first, behind = find_strategy(self.strategy)(source, target)
            paired = [p for p in positions if behind[p] > first[p]]
            if paired:
                need = int(max(behind[p] for p in paired))
                starts, ends = ([int(places[p]) for p in paired] for places in (first, behind))
                _add(found[row], Found(source.ids[:need].tolist(), paired, starts, ends))
        return found


def _add(found: list[Found], new: Found) -> None:
    """Add to what has to be read; into the last sequence, if one of the two goes on where the other ends."""
    last = found[-1] if found else None
    short = min(len(last.ids), len(new.ids)) if last else 0
    if last is None or last.ids[:short] != new.ids[:short]:
        found.append(new)
        return
    ids = max(last.ids, new.ids, key=len)
    found[-1] = Found(ids, last.positions + new.positions, last.first + new.first, last.behind + new.behind)


@dataclass
class _Text:
    """The text of one row, token by token.

    Attributes:
        tokenizer: the target's.
        prompt: how many tokens are the prompt.
        head: spans of the prompt.
        ids: all tokens so far.
        kept: those that are text.
        text: what they say; a character that is not finished is no part of it.
        start, sure, most: where each token begins and its two ends, as in ``TokenSpans``.
        special: ids that are no text when they are generated.
    """

    tokenizer: Any
    prompt: int
    head: TokenSpans
    ids: list[int]
    kept: list[int]
    text: str
    start: list[int]
    sure: list[int]
    most: list[int]
    special: frozenset[int]

    def spans(self, length: int) -> TokenSpans:
        """The first so many tokens and the text up to the end of the last of them."""
        if length == self.prompt:
            return self.head
        more = length - self.prompt
        text = self.text[: self.sure[length - 1]]
        # Of generated tokens only the last one is ever asked for; no matter how the others' words end.
        closes = np.append(self.head.closes, np.zeros(more, dtype=bool))
        closes[-1] = self.sure[length - 1] == self.most[length - 1] and _surely_closes(text)
        start, sure, most = (np.array(places[:length], dtype=np.int64) for places in (self.start, self.sure, self.most))
        return TokenSpans(
            (*self.head.pieces, *[""] * more),
            np.array(self.ids[:length], dtype=np.int64),
            start,
            sure,
            most,
            closes,
            np.append(self.head.added, np.zeros(more, dtype=bool)),
            text,
        )

    def grow(self, token: int) -> None:
        """Read one more token."""
        begin, partial = len(self.text), False
        self.ids.append(token)
        if token not in self.special:
            self.kept.append(token)
            self.text, partial = _decoded(self.tokenizer, self.kept, self.text)
        self.start.append(begin)
        self.sure.append(len(self.text))
        self.most.append(len(self.text) + partial)


def _grown(text: _Text | None, tokenizer: Any, asked: Asked) -> _Text:
    """The text of what has been read, from what was known of it."""
    prompt = min(asked.prompt, len(asked.ids))
    if text is None or text.prompt != prompt or text.ids[: len(asked.ids)] != asked.ids[: len(text.ids)]:
        text = _begun(tokenizer, asked.ids[:prompt])
    for token in asked.ids[len(text.ids) :]:
        text.grow(token)
    return text


def _begun(tokenizer: Any, ids: list[int]) -> _Text:
    """The text of a prompt."""
    before, behind = _around(tokenizer)
    first = len(before) if ids[: len(before)] == list(before) else 0
    last = len(ids) - (len(behind) if behind and ids[len(ids) - len(behind) :] == list(behind) else 0)
    kept = ids[first : max(first, last)]
    said, _ = _decoded(tokenizer, kept, "")
    head = token_spans(tokenizer, [said])[0]
    if head.ids.tolist() != ids:  # the tokens are not those that the tokenizer would have chosen for the text
        head = _decoded_spans(tokenizer, ids, first, max(first, last))
    closes = head.closes.copy()
    own = (~head.added).nonzero()[0]
    if len(own):  # what comes behind the prompt is not known yet
        closes[own[-1]] = bool(closes[own[-1]]) and _surely_closes(head.text)
    head = replace(head, closes=closes)
    start, sure, most = ([int(place) for place in column] for column in (head.start, head.sure, head.most))
    special = frozenset(tokenizer.all_special_ids)
    return _Text(tokenizer, len(ids), head, list(ids), kept, head.text, start, sure, most, special)


def _decoded_spans(tokenizer: Any, ids: list[int], first: int, last: int) -> TokenSpans:
    """Spans of tokens that stand between others which were added around them, by decoding ever longer beginnings."""
    text, columns = "", ([0] * first, [0] * first, [0] * first)
    for end in range(first + 1, last + 1):
        begin = len(text)
        text, partial = _decoded(tokenizer, ids[first:end], text)
        for column, place in zip(columns, (begin, len(text), len(text) + partial), strict=True):
            column.append(place)
    start, sure, most = (np.array(column + [len(text)] * (len(ids) - last), dtype=np.int64) for column in columns)
    index = np.arange(len(ids))
    added = (index < first) | (index >= last)
    closes = ~added & (sure == most) & np.array([ends_word(text, place) for place in sure.tolist()], dtype=bool)
    return TokenSpans(("",) * len(ids), np.array(ids, dtype=np.int64), start, sure, most, closes, added, text)


def _decoded(tokenizer: Any, ids: list[int], before: str) -> tuple[str, bool]:
    """The text of tokens without a character that is not finished, and whether there is such a one."""
    said = str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    whole = said.rstrip(_UNFINISHED)
    return (whole if len(whole) >= len(before) else before), len(whole) < len(said)


def _surely_closes(text: str) -> bool:
    """Whether a word ends with a text, whatever comes behind it."""
    return ends_word(f"{text}a", len(text))


def _around(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens that a tokenizer puts before and behind every text by itself."""
    full = list(tokenizer("a", verbose=False)["input_ids"])
    bare = list(tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"])
    for first in range(len(full) - len(bare) + 1):
        if full[first : first + len(bare)] == bare:
            return tuple(full[:first]), tuple(full[first + len(bare) :])
    return (), ()
