"""Paired activations: the activations of two models at a site each, token by token, on the same texts.

They are in memory or in a store on disk (`stored`). Both are read through `part`: the rows of some texts, block by block or in
shuffled batches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp_transfer.activations.align import AlignmentReport
from interp_transfer.mapping.row_blocks import CollectedPart, MemoryPart
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.models.sites import join_sites
from interp_transfer.plots.cards import card, shares


@dataclass(frozen=True, repr=False)
class PairedActivations:
    """Rows of two models for the same tokens.

    Attributes:
        source: ``Float[Tensor, "row d_source"]`` by source site; in a store, columns that are read when they are sliced.
        target: ``Float[Tensor, "row d_target"]`` by target site.
        site_pairs: pairs of a source site and a target site.
        text_index: number of each row's text; a mapper is tested on texts that it was not fitted on.
        target_token: the target's token id of each row.
        source_model: identity of the source.
        target_model: identity of the target.
        alignment: how tokens were paired.
        is_shuffled: whether partners were exchanged at random, as a control.
        dropped: rows that were left out because they held NaN or infinity.

    Raises:
        ValueError: for columns of different lengths, or a site without a column.
    """

    source: Mapping[str, Any]
    target: Mapping[str, Any]
    site_pairs: tuple[tuple[str, str], ...]
    text_index: Any
    target_token: Any
    source_model: ModelIdentity
    target_model: ModelIdentity
    alignment: AlignmentReport
    is_shuffled: bool = False
    dropped: int = 0

    def __post_init__(self) -> None:
        for index, (side, columns) in enumerate((("source", self.source), ("target", self.target))):
            if missing := [pair[index] for pair in self.site_pairs if pair[index] not in columns]:
                raise ValueError(f"site_pairs name {missing[0]!r}, and {side} holds {', '.join(columns)}: give its rows too")
            for site, rows in columns.items():
                if len(rows.shape) != 2:
                    raise ValueError(f"{side} rows at {site!r} have shape {tuple(rows.shape)}: give (row, dimension)")
        named = {**{f"source {s}": c for s, c in self.source.items()}, **{f"target {s}": c for s, c in self.target.items()}}
        for name, rows in {**named, "target_token": self.target_token}.items():
            if len(rows) != len(self.text_index):
                raise ValueError(
                    f"{name} has {len(rows)} rows and text_index {len(self.text_index)}: give a row of each for every token"
                )

    def __len__(self) -> int:
        return len(self.text_index)

    def __repr__(self) -> str:
        sites = ", ".join(f"{s} -> {t}" for s, t in self.site_pairs)
        left_out = self.alignment.too_long + (f", {self.dropped} rows dropped" if self.dropped else "")
        control = ", partners shuffled" if self.is_shuffled else ""
        return (
            f"PairedActivations({len(self)} rows, {self.source_model.name} -> {self.target_model.name}, {sites}, "
            f"{self.alignment.strategy} {self.alignment.coverage:.1%}{left_out}{control}{self._where()})"
        )

    def _repr_html_(self) -> str:
        whole = {"target tokens paired": (self.alignment.pairs, self.alignment.target_tokens)}
        return card(repr(self), shares({**whole, **self.alignment.by_role}))

    def shuffled(self, seed: int = 0, *, within_text: bool = False) -> "PairedActivations":
        """Return the control of every mapper: the same rows on both sides, partners exchanged at random.

        In a store, partners are exchanged block by block: the rows of a block of 2048 get theirs, in random order, from another
        block of the store.

        Args:
            seed: draws the exchange.
            within_text: exchange partners within each text only, so that a mapper can still learn what a text is about, but
                not what its tokens are. Pairs in a store refuse this.
        """
        generator = torch.Generator().manual_seed(seed)
        if within_text:
            keys = self.text_index + torch.rand(len(self), dtype=torch.float64, generator=generator)
            order = torch.empty(len(self), dtype=torch.long)
            order[self.text_index.argsort(stable=True)] = keys.argsort()
        else:
            order = torch.randperm(len(self), generator=generator)
        mixed = {site: rows[order] for site, rows in self.target.items()}
        return replace(self, target=mixed, target_token=self.target_token[order], is_shuffled=True)

    def reversed(self) -> "PairedActivations":
        """Return the same pairs from the target to the source, for a map back.

        Raises:
            ValueError: for different tokenizers: the source token of a pair may have read less than the target token.
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

    def joined(self, source_sites: Sequence[str], target_site: str | None = None) -> "PairedActivations":
        """Return pairs whose source rows are those of several sites, concatenated, for one map from all of them.

        Args:
            source_sites: at least one of the collected source sites.
            target_site: site that the map leads to; the only one that was collected if None.

        Raises:
            ValueError: for a site that was not collected, or no target site where there are several.
        """
        site = target_site if target_site is not None or len(self.target) > 1 else next(iter(self.target))
        for side, sites, have in (("source", list(source_sites), self.source), ("target", [site], self.target)):
            if missing := [one for one in sites if one not in have]:
                raise ValueError(f"{side} site {missing[0]!r} was not collected: choose among {', '.join(have)}")
        assert site is not None
        name = join_sites(source_sites)
        columns = self._side_by_side([self.source[one] for one in source_sites])
        return replace(self, source={name: columns}, target={site: self.target[site]}, site_pairs=((name, site),))

    def rows(self, pair: tuple[str, str] | None = None) -> tuple[tuple[str, str], Any, Any]:
        """Return one site pair with its source and target rows; the only one if None.

        Raises:
            ValueError: for a pair that was not collected, or None where there are several.
        """
        if pair is None and len(self.site_pairs) == 1:
            pair = self.site_pairs[0]
        if pair is None or pair not in self.site_pairs:
            raise ValueError(f"sites={pair}: name one of the collected pairs, {list(self.site_pairs)}")
        return pair, self.source[pair[0]], self.target[pair[1]]

    def held_out(self, share: float, seed: int) -> Bool[Tensor, " text"]:
        """Return which texts a mapper is tested on and not fitted on, by text number.

        Args:
            share: share of the texts that have rows.
            seed: of the draw.

        Raises:
            ValueError: for too few texts to hold any out.
        """
        texts = self._texts()
        count = round(share * len(texts))
        if not 0 < count < len(texts):
            raise ValueError(f"held_out={share} of {len(texts)} texts leaves one side empty: collect more texts")
        order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed))
        judged = torch.zeros(int(texts[-1]) + 1, dtype=torch.bool)
        judged[texts[order[:count]]] = True
        return judged

    def split(self, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
        """Return row indices for fitting and for testing; all rows of a text are on one side.

        Raises:
            ValueError: for too few texts to hold any out.
        """
        judged = self.held_out(held_out, seed)
        return self._indices(~judged), self._indices(judged)

    def part(self, texts: Bool[Tensor, " text"], pair: tuple[str, str] | None = None) -> CollectedPart:
        """Return the rows of some texts.

        Args:
            texts: the texts, by text number.
            pair: the site pair, when several were collected.

        Raises:
            ValueError: as ``rows``.
        """
        _, x, y = self.rows(pair)
        chosen = self._indices(texts)
        return MemoryPart(x[chosen].float(), y[chosen].float())

    def _texts(self) -> Int[Tensor, " text"]:
        """Numbers of the texts that have rows, in order."""
        return self.text_index.unique()

    def _indices(self, texts: Bool[Tensor, " text"]) -> Int[Tensor, " row"]:
        return texts[self.text_index].nonzero()[:, 0]

    def _side_by_side(self, columns: Sequence[Any]) -> Any:
        return torch.cat(list(columns), dim=1)

    def _where(self) -> str:
        """Where the rows are, for the repr."""
        return ""
