"""A control for mappers: the target's mean activation for each token."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_transfer.activations.agreement import Agreement
from interp_transfer.interventions.transforms import At
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.mapping.row_blocks import BLOCK_ROWS


@dataclass(frozen=True, repr=False)
class TokenMeans:
    """The target's mean activation for each token id; a transform that can be spliced in like mapped activations.

    Attributes:
        ids: token ids, sorted.
        means: mean activation of each.
        rest: mean of all rows, for other tokens.
        fvu: FVU on held-out texts.
    """

    ids: Int[Tensor, " token"]
    means: Float[Tensor, "token d_target"]
    rest: Float[Tensor, " d_target"]
    fvu: float = float("nan")

    def __repr__(self) -> str:
        return f"TokenMeans({len(self.ids)} tokens of {self.means.shape[1]} dimensions, fvu {self.fvu:.3f})"

    def of(self, tokens: Int[Tensor, " row"]) -> Float[Tensor, "row d_target"]:
        """Return the mean activation for each of some tokens."""
        tokens = tokens.cpu()
        place = torch.searchsorted(self.ids, tokens).clamp(max=len(self.ids) - 1)
        return torch.where((self.ids[place] == tokens)[:, None], self.means[place], self.rest)

    def __call__(self, a: Float[Tensor, "n d_target"], at: At) -> Float[Tensor, "n d_target"]:
        """Replace each row by its token's mean."""
        return self.of(at.token).to(a)


def token_means(
    pairs: PairedActivations, *, sites: tuple[str, str] | None = None, seed: int = 0, held_out: float = 0.1
) -> TokenMeans:
    """Return the mean target activation by token id, over the texts that ``fit`` with the same seed fits mappers on.

    Args:
        pairs: from ``collect``.
        sites: the site pair, when several were collected.
        seed: of the split.
        held_out: share of the texts on which the error is measured.
    """
    _, _, y = pairs.rows(sites)
    judged = pairs.held_out(held_out, seed)
    ids, counts = torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.float64)
    sums = torch.zeros(0, y.shape[1], dtype=torch.float64)
    for tokens, rows in _blocks(pairs, y, ~judged):
        union = torch.cat([ids, tokens]).unique()
        if len(union) > len(ids):
            place = torch.searchsorted(union, ids)
            counts = torch.zeros(len(union), dtype=torch.float64).index_copy_(0, place, counts)
            sums = torch.zeros(len(union), y.shape[1], dtype=torch.float64).index_copy_(0, place, sums)
            ids = union
        which = torch.searchsorted(ids, tokens)
        counts.index_add_(0, which, torch.ones(len(tokens), dtype=torch.float64))
        sums.index_add_(0, which, rows.double())
    means = TokenMeans(ids, (sums / counts[:, None]).float(), (sums.sum(dim=0) / counts.sum()).float())
    agreement = Agreement()
    for tokens, rows in _blocks(pairs, y, judged):
        agreement.update(rows, means.of(tokens))
    return replace(means, fvu=agreement.fvu)


def _blocks(
    pairs: PairedActivations, y: Any, texts: Bool[Tensor, " text"]
) -> Iterator[tuple[Int[Tensor, " row"], Float[Tensor, "row d_target"]]]:
    """The target's tokens and rows of some texts, block by block, from memory or from a store."""
    for start in range(0, len(pairs), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        chosen = texts[pairs.text_index[block]]
        yield pairs.target_token[block][chosen], y[block][chosen].float()
