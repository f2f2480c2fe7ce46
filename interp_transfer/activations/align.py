"""Pair the tokens of two tokenizers over the same text.

A strategy selects, for each token of the target, its partners among the tokens of the source. All strategies but the paper's
index pairing compare characters and are causal: a partner has read no further than the target's token.

`last_so_far`
    The last source token that ends no later. Every token but the first ones has a partner.
`same_boundary`
    The source token that ends at the same character; other tokens have no partner.
`mean_in_span`
    The mean over the source tokens that end within the target's token; if there are none, the last one so far.
`word_ends`
    `same_boundary`, only at the ends of words.
`index_left`, `index_right`
    The paper's: the n-th token with the n-th, counted from the start, or from the end as with padding on the left. It pairs
    unrelated tokens and serves as a baseline.

Tokens that a tokenizer adds around a text (BOS) are paired only with each other.

Chats are rendered by each model's own template. Each content is paired by characters, and only with the same message; the
template's tokens between two contents are paired with those between the same two contents by index from the right: the last of
the generation prompt with the last of the generation prompt. The first token of a chat, on which models put activations of
extraordinary length, is paired with the first. The index pairings ignore all this.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_transfer.activations.chat_columns import chat_columns
from interp_transfer.activations.spans import Conversation, Ints, TokenSpans, spans_of
from interp_transfer.names import find
from interp_transfer.plots.alignment import aligned_tokens

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformers import PreTrainedTokenizerBase

Partners = tuple[Ints, Ints]
"""For each token of the target its first partner and the one after its last; equal if it has none."""

Strategy = Callable[[TokenSpans, TokenSpans], Partners]

DEFAULT_STRATEGY = "last_so_far"
SAME_TOKENS = "same_tokens"
"""The strategy that reports and cards name for two models that split texts into the same tokens."""
EXAMPLES = 8
"""Number of texts that a report keeps for its plot."""

COUNTS = ("pairs", "target_tokens", "apart", "peeking", "texts_cut", "texts_dropped")
"""Fields of a report that are added when reports are."""


@dataclass(frozen=True)
class Example:
    """One text in the tokens of both models, for a plot.

    Attributes:
        text: the text, as the target reads it.
        source: each token of the source, and the character up to which it has read; in chats its column, see ``chat_columns``.
        target: the same for the target.
        first: first partner of each target token.
        stop: the token after its last partner.
    """

    text: str
    source: list[tuple[str, int]]
    target: list[tuple[str, int]]
    first: list[int]
    stop: list[int]


@dataclass(frozen=True, repr=False)
class AlignmentReport:
    """How the tokens of two models were paired over some texts.

    Attributes:
        strategy: how they were paired; "same_tokens" if both models split texts in the same way.
        pairs: number of the target's tokens with a partner.
        target_tokens: number of the target's tokens.
        apart: characters between the ends of a target token and of its last partner, summed over all pairs.
        peeking: pairs in which the partner has read further than the target; 0 except for index pairing.
        examples: the first few texts.
        texts_cut: texts that were cut because they exceeded a context.
        texts_dropped: texts that were left out for the same reason; their tokens are not counted.
        by_role: in chats, the paired and all tokens of the target by role (see ``spans.Part``).
    """

    strategy: str
    pairs: int
    target_tokens: int
    apart: int = 0
    peeking: int = 0
    examples: tuple[Example, ...] = ()
    texts_cut: int = 0
    texts_dropped: int = 0
    by_role: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def coverage(self) -> float:
        """Share of the target's tokens that have a partner."""
        return self.pairs / self.target_tokens if self.target_tokens else 0.0

    @property
    def gap(self) -> float:
        """Mean number of characters between the ends of a target token and of its last partner."""
        return self.apart / self.pairs if self.pairs else 0.0

    @property
    def peeks(self) -> float:
        """Share of pairs in which the partner has read further than the target."""
        return self.peeking / self.pairs if self.pairs else 0.0

    def __len__(self) -> int:
        return self.pairs

    def __add__(self, other: "AlignmentReport") -> "AlignmentReport":
        """Return the report on the texts of both; the examples are those of the first."""
        assert self.strategy == other.strategy, "reports on different strategies cannot be added"
        sums = {name: getattr(self, name) + getattr(other, name) for name in COUNTS}
        roles = dict(self.by_role)
        for role, (paired, count) in other.by_role.items():
            before = roles.get(role, (0, 0))
            roles[role] = before[0] + paired, before[1] + count
        return AlignmentReport(self.strategy, examples=self.examples, by_role=roles, **sums)

    @property
    def too_long(self) -> str:
        """The numbers of texts that were cut or dropped, for display; empty if there were none."""
        counts = ((self.texts_cut, "cut"), (self.texts_dropped, "dropped"))
        return "".join(f", {n} text{'s' if n > 1 else ''} too long and {what}" for n, what in counts if n)

    def __repr__(self) -> str:
        peeks = f", {self.peeks:.1%} of pairs peek ahead" if self.peeks else ""
        roles = ", ".join(f"{role} {paired} of {count}" for role, (paired, count) in self.by_role.items())
        return (
            f"Alignment({self.strategy}: {self.coverage:.1%} of {self.target_tokens} target tokens have a partner, "
            f"{self.gap:.2f} characters behind on average{peeks}{self.too_long}{f'; by role: {roles}' if roles else ''})"
        )

    def plot(self, text: int = 0) -> "Figure":
        """Plot the tokens of both models for one of the first few texts, and their pairs.

        Raises:
            ValueError: for a text that is not among the examples.
        """
        if not 0 <= text < len(self.examples):
            raise ValueError(f"text {text}: there are examples of {len(self.examples)} texts")
        shown = self.examples[text]
        links = [(s, t) for t, (a, b) in enumerate(zip(shown.first, shown.stop, strict=True)) for s in range(a, b)]
        return aligned_tokens(shown.text, shown.source, shown.target, links)


@dataclass(frozen=True, repr=False, kw_only=True)
class Alignment(AlignmentReport):
    """The paired tokens of two models over some texts, and the report.

    Tokens are numbered through all texts. A token of the target is paired with the mean of a run of partners.

    Attributes:
        target: the target's tokens that have a partner.
        first: first partner of each of them.
        stop: the token after its last partner.
    """

    target: Int[Tensor, " pair"]
    first: Int[Tensor, " pair"]
    stop: Int[Tensor, " pair"]

    @property
    def report(self) -> AlignmentReport:
        """The report without the pairs."""
        return AlignmentReport(**{f.name: getattr(self, f.name) for f in fields(AlignmentReport)})

    def gather(self, rows: Float[Tensor, "token d"]) -> Float[Tensor, "pair d"]:
        """Return the partner's row, or the mean of the partners' rows, of each paired target token.

        Args:
            rows: a row for every token of the source.
        """
        if bool((self.stop - self.first == 1).all()):
            return rows[self.first.to(rows.device)]
        lengths = (self.stop - self.first).to(rows.device)
        picked = torch.repeat_interleave(torch.arange(len(self), device=rows.device), lengths)
        within = torch.arange(len(picked), device=rows.device) - (lengths.cumsum(0) - lengths)[picked]
        sums = torch.zeros(len(self), rows.shape[1], dtype=torch.float32, device=rows.device)
        sums.index_add_(0, picked, rows[self.first.to(rows.device)[picked] + within].float())
        return (sums / lengths[:, None]).to(rows.dtype)


def same_tokens(count: int) -> Alignment:
    """Pair every token with itself, for two models of one tokenizer."""
    every = torch.arange(count)
    return Alignment(SAME_TOKENS, count, count, target=every, first=every, stop=every + 1)


def align(
    source: "PreTrainedTokenizerBase",
    target: "PreTrainedTokenizerBase",
    texts: Sequence[str | Conversation],
    strategy: str = DEFAULT_STRATEGY,
) -> Alignment:
    """Pair the tokens of two tokenizers.

    Args:
        source: the source model's tokenizer.
        target: the target model's.
        texts: plain texts, or chats, which each tokenizer renders in its own chat template.
        strategy: see the module's docstring.

    Raises:
        ValueError: for an unknown strategy, a tokenizer without offsets, or a chat that a template changes.
    """
    find_strategy(strategy)
    return align_spans(spans_of(source, texts), spans_of(target, texts), strategy)


def align_spans(source: Sequence[TokenSpans], target: Sequence[TokenSpans], strategy: str = DEFAULT_STRATEGY) -> Alignment:
    """Pair tokens by their spans, text by text, see `align`."""
    tokens, firsts, stops, examples = [], [], [], []
    pair, done, theirs, apart, peeking = find_strategy(strategy), 0, 0, 0, 0
    by_role: dict[str, tuple[int, int]] = {}
    for s, t in zip(source, target, strict=True):
        by_index = pair in (_index_left, _index_right)
        first, stop = _by_part(pair, s, t) if t.parts and not by_index else pair(s, t)
        _count_roles(by_role, t, stop > first)
        has = (stop > first).nonzero()[0]
        last = stop[has] - 1
        tokens.append(has + done)
        firsts.append(first[has] + theirs)
        stops.append(stop[has] + theirs)
        apart += int(np.abs(t.most[has] - s.most[last]).sum())
        peeking += int((s.most[last] > t.most[has]).sum())
        if len(examples) < EXAMPLES:
            ends = chat_columns(s, t) if t.parts else (s.most, t.most)
            shown = [list(zip(side.pieces, end.tolist(), strict=True)) for side, end in zip((s, t), ends, strict=True)]
            examples.append(Example(t.text, shown[0], shown[1], first.tolist(), stop.tolist()))
        done, theirs = done + len(t), theirs + len(s)
    joined = [torch.from_numpy(np.concatenate([*parts, np.zeros(0, dtype=np.int64)])) for parts in (tokens, firsts, stops)]
    figures = (len(joined[0]), done, apart, peeking, tuple(examples))
    return Alignment(strategy, *figures, by_role=by_role, target=joined[0], first=joined[1], stop=joined[2])


def _by_part(pair: Strategy, source: TokenSpans, target: TokenSpans) -> Partners:
    """Pair the tokens of a chat part by part: contents by a strategy, the template by index from the right."""
    first, stop = (np.zeros(len(target), dtype=np.int64) for _ in range(2))
    theirs = {part.key: part for part in source.parts}
    for part in target.parts:
        if part.key in theirs:
            partner, here = theirs[part.key], slice(part.first, part.stop)
            within = (_index_right if part.is_template else pair)(source.of(partner), target.of(part))
            first[here], stop[here] = (places + partner.first for places in within)
    return first, stop


def _count_roles(by_role: dict[str, tuple[int, int]], target: TokenSpans, paired: Bool[np.ndarray, " token"]) -> None:
    """Add the paired tokens of a chat, and all of its tokens, to the counts of their roles."""
    for part in target.parts:
        before = by_role.get(part.role, (0, 0))
        by_role[part.role] = before[0] + int(paired[part.first : part.stop].sum()), before[1] + part.stop - part.first


def _last_so_far(source: TokenSpans, target: TokenSpans) -> Partners:
    stop = _so_far(source, target)
    first = np.maximum(stop - 1, 0)
    return _separate_added(source, target, first, stop)


def _same_boundary(source: TokenSpans, target: TokenSpans) -> Partners:
    first, stop = _last_so_far(source, target)
    last = np.maximum(stop - 1, 0)
    ends = source.most[last] if len(source) else np.zeros(len(target), dtype=np.int64)
    same = (ends == target.sure) & (target.sure == target.most)
    return first, np.where(same, stop, first)


def _mean_in_span(source: TokenSpans, target: TokenSpans) -> Partners:
    first, stop = _last_so_far(source, target)
    own = (~source.added).nonzero()[0]
    inside = np.searchsorted(source.most, target.start, side="right")  # the first that reads beyond where the target's begins
    inside = np.maximum(inside, own[0] if len(own) else 0)
    return np.where((inside < stop) & ~target.added, inside, first), stop


def _word_ends(source: TokenSpans, target: TokenSpans) -> Partners:
    first, stop = _same_boundary(source, target)
    return first, np.where(target.closes, stop, first)


def _index_left(source: TokenSpans, target: TokenSpans) -> Partners:
    index = np.arange(len(target))
    return index, np.where(index < len(source), index + 1, index)


def _index_right(source: TokenSpans, target: TokenSpans) -> Partners:
    index = np.arange(len(target)) + len(source) - len(target)
    return np.maximum(index, 0), np.where(index >= 0, index + 1, 0)


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "last_so_far": _last_so_far,
        "same_boundary": _same_boundary,
        "mean_in_span": _mean_in_span,
        "word_ends": _word_ends,
        "index_left": _index_left,
        "index_right": _index_right,
    }
)
"""The strategies by name, see the module's docstring."""


def find_strategy(name: str) -> Strategy:
    """Return a strategy by name.

    Raises:
        ValueError: naming the closest.
    """
    return find(name, STRATEGIES, "strategy")


def _so_far(source: TokenSpans, target: TokenSpans) -> Ints:
    """For each token of the target, the number of source tokens that have certainly read no further."""
    return np.searchsorted(source.most, target.sure, side="right")


def _separate_added(source: TokenSpans, target: TokenSpans, first: Ints, stop: Ints) -> Partners:
    """Replace pairs of a token of the text with one that a tokenizer added around it."""
    stop = stop.copy()
    for index in target.added.nonzero()[0]:
        partner = _same_place(source, target, int(index))
        first[index], stop[index] = partner, partner + (partner >= 0)
    mixed = (stop > first) & ~target.added
    mixed[mixed] = source.added[stop[mixed] - 1]
    for index in mixed.nonzero()[0]:
        earlier = (~source.added[: stop[index]]).nonzero()[0]
        first[index] = earlier[-1] if len(earlier) else 0
        stop[index] = first[index] + (1 if len(earlier) else 0)
    return np.maximum(first, 0), np.where(first < 0, 0, stop)


def _same_place(source: TokenSpans, target: TokenSpans, index: int) -> int:
    """The source's counterpart of a token that was added before or after the text, counted from the text; -1 if none."""
    before = not (~target.added[:index]).any()
    theirs, own = (~source.added).nonzero()[0], (~target.added).nonzero()[0]
    if not len(theirs) or not len(own):
        return index if index < len(source) else -1
    partner = theirs[0] - (own[0] - index) if before else theirs[-1] + (index - own[-1])
    return int(partner) if 0 <= partner < len(source) else -1
