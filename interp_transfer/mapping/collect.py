"""Paired activations: what two models hold at a site each, token by token, on the same texts.

Rows are paired token by token; that needs tokenizers that split every text alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.models.load import ModelIdentity, identity, tokenizer_fingerprint
from interp_transfer.models.sites import HookedModel, check_site


@dataclass(frozen=True)
class Alignment:
    """How the tokens of two models were paired.

    Attributes:
        strategy: "same_tokens" where both models split texts alike.
        coverage: share of the target's tokens that have a partner.
    """

    strategy: str
    coverage: float


@dataclass(frozen=True, repr=False)
class PairedActivations:
    """Rows of two models for the same tokens.

    Attributes:
        source: ``Float[Tensor, "row d_source"]`` by source site.
        target: ``Float[Tensor, "row d_target"]`` by target site.
        site_pairs: which source site belongs to which target site.
        text_index: which text each row comes from; a mapper is judged on texts that it was not fitted on.
        source_model: identity of the source.
        target_model: identity of the target.
        alignment: how tokens were paired.
        is_shuffled: whether partners were exchanged at random, as a control.
    """

    source: dict[str, Float[Tensor, "row _"]]
    target: dict[str, Float[Tensor, "row _"]]
    site_pairs: tuple[tuple[str, str], ...]
    text_index: Int[Tensor, " row"]
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
        return replace(self, target=mixed, is_shuffled=True)

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
    texts: Sequence[str],
    source_sites: str | Sequence[str],
    target_sites: str | Sequence[str],
    *,
    progress: bool = True,
) -> PairedActivations:
    """Activations of both models over the same texts, each model in one pass.

    Args:
        source: model that interventions come from.
        target: model that they go to.
        texts: what both read.
        source_sites: one site, or several.
        target_sites: as many; the first belongs to the first, and so on.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: for no texts, unknown sites, lists of different lengths, or tokenizers that differ.
    """
    pairs = tuple(_site_pairs(source_sites, target_sites))
    for s, t in pairs:
        check_site(source, s)
        check_site(target, t)
    if not len(texts):
        raise ValueError("no texts to collect from: give the texts that both models should read")
    if tokenizer_fingerprint(source) != tokenizer_fingerprint(target):
        raise ValueError(
            f"{identity(source).name} and {identity(target).name} have different tokenizers, so their tokens do not pair "
            "one to one: choose two models of one family (micro-qwen-s and micro-qwen-m, say)"
        )
    left = capture(source, texts, list(dict.fromkeys(s for s, _ in pairs)), progress=progress)
    right = capture(target, texts, list(dict.fromkeys(t for _, t in pairs)), progress=progress)
    assert torch.equal(left.token, right.token)
    return PairedActivations(
        left.sites, right.sites, pairs, left.text_index, left.model, right.model, Alignment("same_tokens", 1.0)
    )


def _site_pairs(source: str | Sequence[str], target: str | Sequence[str]) -> Iterator[tuple[str, str]]:
    s, t = ([x] if isinstance(x, str) else list(x) for x in (source, target))
    if len(s) != len(t) or not s:
        raise ValueError(f"{len(s)} source sites and {len(t)} target sites: give one target site for each source site")
    yield from zip(s, t, strict=True)
