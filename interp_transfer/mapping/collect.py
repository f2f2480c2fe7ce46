"""Paired activations: what two models hold at a site each, token by token, on the same texts.

Each token of the target is paired with what the source holds where it has read the same text (``activations.align``); for two
models of one tokenizer that is the same token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_transfer.activations.align import DEFAULT_STRATEGY, Alignment, align_spans, find_strategy, same_tokens
from interp_transfer.activations.capture import Activations, capture
from interp_transfer.activations.spans import Conversation, TokenSpans, chat_spans, token_spans
from interp_transfer.models.load import ModelIdentity, tokenizer_fingerprint, tokenizer_of
from interp_transfer.models.sites import HookedModel, check_site


@dataclass(frozen=True, repr=False)
class PairedActivations:
    """Rows of two models for the same tokens.

    Attributes:
        source: ``Float[Tensor, "row d_source"]`` by source site.
        target: ``Float[Tensor, "row d_target"]`` by target site.
        site_pairs: which source site belongs to which target site.
        text_index: which text each row comes from; a mapper is judged on texts that it was not fitted on.
        target_token: the target's token id of each row.
        source_model: identity of the source.
        target_model: identity of the target.
        alignment: how tokens were paired.
        is_shuffled: whether partners were exchanged at random, as a control.
    """

    source: dict[str, Float[Tensor, "row _"]]
    target: dict[str, Float[Tensor, "row _"]]
    site_pairs: tuple[tuple[str, str], ...]
    text_index: Int[Tensor, " row"]
    target_token: Int[Tensor, " row"]
    source_model: ModelIdentity
    target_model: ModelIdentity
    alignment: Alignment
    is_shuffled: bool = False

    def __len__(self) -> int:
        return len(self.text_index)

    def __repr__(self) -> str:
        sites = ", ".join(f"{s} -> {t}" for s, t in self.site_pairs)
        control = ", partners shuffled" if self.is_shuffled else ""
        return (
            f"PairedActivations({len(self)} rows, {self.source_model.name} -> {self.target_model.name}, {sites}, "
            f"{self.alignment.strategy} {self.alignment.coverage:.1%}{control})"
        )

    def shuffled(self, seed: int = 0) -> "PairedActivations":
        """The control of every mapper: the same rows on both sides, partners exchanged at random."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        mixed = {site: rows[order] for site, rows in self.target.items()}
        return replace(self, target=mixed, target_token=self.target_token[order], is_shuffled=True)

    def reversed(self) -> "PairedActivations":
        """The same pairs from the target to the source, for a map back.

        Raises:
            ValueError: for different tokenizers: a partner that has read no further one way has read further the other way.
        """
        if self.alignment.strategy != "same_tokens":
            raise ValueError("these tokens are paired for one direction: collect again, with the two models exchanged")
        return replace(
            self,
            source=self.target,
            target=self.source,
            site_pairs=tuple((t, s) for s, t in self.site_pairs),
            source_model=self.target_model,
            target_model=self.source_model,
        )

    def rows(self, pair: tuple[str, str] | None = None) -> tuple[tuple[str, str], Tensor, Tensor]:
        """One site pair with its source and target rows; the only one, unless named.

        Raises:
            ValueError: for a pair that was not collected, or when there are several and none was named.
        """
        if pair is None and len(self.site_pairs) == 1:
            pair = self.site_pairs[0]
        if pair is None or pair not in self.site_pairs:
            raise ValueError(f"sites={pair}: name one of the collected pairs, {list(self.site_pairs)}")
        return pair, self.source[pair[0]], self.target[pair[1]]

    def split(self, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
        """Row indices for fitting and for judging, whole texts on one side or the other.

        Raises:
            ValueError: when there are too few texts to hold any out.
        """
        texts = self.text_index.unique()
        count = round(held_out * len(texts))
        if not 0 < count < len(texts):
            raise ValueError(f"held_out={held_out} of {len(texts)} texts leaves one side empty: collect more texts")
        order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed))
        judged = torch.isin(self.text_index, texts[order[:count]])
        return (~judged).nonzero()[:, 0], judged.nonzero()[:, 0]


def collect(
    source: HookedModel,
    target: HookedModel,
    texts: Sequence[str] | Sequence[Conversation],
    source_sites: str | Sequence[str],
    target_sites: str | Sequence[str],
    *,
    strategy: str = DEFAULT_STRATEGY,
    progress: bool = True,
) -> PairedActivations:
    """Activations of both models over the same texts, each model in one pass.

    Args:
        source: model that interventions come from.
        target: model that they go to.
        texts: what both read: plain texts, or conversations (lists of messages with `role` and `content`), which each model
            reads in its own chat template.
        source_sites: one site, or several.
        target_sites: as many; the first belongs to the first, and so on.
        strategy: how tokens are paired where the tokenizers differ, see ``activations.align``.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: for no texts, an unknown site or strategy, lists of different lengths, or a tokenizer that does not tell
            where in a text its tokens are.
    """
    find_strategy(strategy)
    pairs = tuple(_site_pairs(source_sites, target_sites))
    for s, t in pairs:
        check_site(source, s)
        check_site(target, t)
    if isinstance(texts, str) or not len(texts):
        raise ValueError("no texts to collect from: give a list of the texts that both models should read")
    left_texts, right_texts, spans = _read(source, target, texts)
    left = capture(source, left_texts, list(dict.fromkeys(s for s, _ in pairs)), progress=progress)
    right = capture(target, right_texts, list(dict.fromkeys(t for _, t in pairs)), progress=progress)
    if spans is None:
        alignment = same_tokens(len(right.token))
        _check_tokens(left, right.token, "the target")
    else:
        alignment = align_spans(*spans, strategy)
        for acts, side in ((left, spans[0]), (right, spans[1])):
            _check_tokens(acts, torch.from_numpy(np.concatenate([one.ids for one in side])), "its offsets")
    if not len(alignment):
        raise ValueError(f"strategy={strategy!r} pairs no token of these texts: choose 'last_so_far'")
    return PairedActivations(
        {site: alignment.gather(rows) for site, rows in left.items()},
        {site: rows[alignment.target] for site, rows in right.items()},
        pairs,
        right.text_index[alignment.target],
        right.token[alignment.target],
        left.model,
        right.model,
        alignment,
    )


Sides = tuple[list[TokenSpans], list[TokenSpans]]


def _read(
    source: HookedModel, target: HookedModel, texts: Sequence[str] | Sequence[Conversation]
) -> tuple[list[str], list[str], Sides | None]:
    """What each model reads, and the spans of its tokens where they are needed to pair them."""
    plain, talks = [t for t in texts if isinstance(t, str)], [t for t in texts if not isinstance(t, str)]
    if plain and talks:
        raise ValueError("texts holds strings and conversations: give one kind")
    alike = tokenizer_fingerprint(source) == tokenizer_fingerprint(target)
    if plain and alike:
        return plain, plain, None
    tokenizers = tokenizer_of(source), tokenizer_of(target)
    if plain:
        left, right = (token_spans(tokenizer, plain) for tokenizer in tokenizers)
        return plain, plain, (left, right)
    (left_texts, left), (right_texts, right) = (chat_spans(tokenizer, talks) for tokenizer in tokenizers)
    return left_texts, right_texts, None if alike else (left, right)


def _check_tokens(acts: Activations, expected: Int[Tensor, " row"], whose: str) -> None:
    if not torch.equal(acts.token, expected.to(acts.token)):
        raise ValueError(f"{acts.model.name} reads other tokens than {whose} tell: its tokenizer was changed after loading")


def _site_pairs(source: str | Sequence[str], target: str | Sequence[str]) -> Iterator[tuple[str, str]]:
    s, t = ([x] if isinstance(x, str) else list(x) for x in (source, target))
    if len(s) != len(t) or not s:
        raise ValueError(f"{len(s)} source sites and {len(t)} target sites: give one target site for each source site")
    yield from zip(s, t, strict=True)
