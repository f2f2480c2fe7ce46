"""What a mapper must beat: the target's mean activation for each token. And what is lost on the way there and back."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_transfer.activations.agreement import Agreement, fvu
from interp_transfer.interventions.transforms import At
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.pairs import PairedActivations


@dataclass(frozen=True, repr=False)
class TokenMeans:
    """The target's mean activation for each token id; a transform, to be spliced in as mapped activations are.

    Attributes:
        ids: token ids that were seen, in order.
        means: of each.
        rest: mean of all rows, for tokens that were not seen.
        fvu: on texts that the means were not taken over.
    """

    ids: Int[Tensor, " token"]
    means: Float[Tensor, "token d_target"]
    rest: Float[Tensor, " d_target"]
    fvu: float = float("nan")

    def __repr__(self) -> str:
        return f"TokenMeans({len(self.ids)} tokens of {self.means.shape[1]} dimensions, fvu {self.fvu:.3f})"

    def of(self, tokens: Int[Tensor, " row"]) -> Float[Tensor, "row d_target"]:
        """The mean activation for each of some tokens."""
        tokens = tokens.cpu()
        place = torch.searchsorted(self.ids, tokens).clamp(max=len(self.ids) - 1)
        return torch.where((self.ids[place] == tokens)[:, None], self.means[place], self.rest)

    def __call__(self, a: Float[Tensor, "n d_target"], at: At) -> Float[Tensor, "n d_target"]:
        """Replaces each row."""
        return self.of(at.token).to(a)


def token_means(
    pairs: PairedActivations, *, sites: tuple[str, str] | None = None, seed: int = 0, held_out: float = 0.1
) -> TokenMeans:
    """Mean target activation by token id, over the texts that ``fit`` with the same seed fits mappers on.

    Args:
        pairs: from ``collect``.
        sites: which site pair, when several were collected.
        seed: of the split.
        held_out: share of the texts on which the error is measured.
    """
    _, _, y = pairs.rows(sites)
    judged = pairs.held_out(held_out, seed)
    ids, counts = torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.float64)
    sums = torch.zeros(0, y.shape[1], dtype=torch.float64)
    for tokens, rows in pairs.target_rows(~judged, sites):
        everyone = torch.cat([ids, tokens]).unique()
        if len(everyone) > len(ids):
            place = torch.searchsorted(everyone, ids)
            counts = torch.zeros(len(everyone), dtype=torch.float64).index_copy_(0, place, counts)
            sums = torch.zeros(len(everyone), y.shape[1], dtype=torch.float64).index_copy_(0, place, sums)
            ids = everyone
        which = torch.searchsorted(ids, tokens)
        counts.index_add_(0, which, torch.ones(len(tokens), dtype=torch.float64))
        sums.index_add_(0, which, rows.double())
    found = TokenMeans(ids, (sums / counts[:, None]).float(), (sums.sum(dim=0) / counts.sum()).float())
    agreement = Agreement()
    for tokens, rows in pairs.target_rows(judged, sites):
        agreement.update(rows, found.of(tokens))
    return TokenMeans(ids, found.means, found.rest, agreement.fvu)


def cycle_error(there: Mapper, back: Mapper, rows: Float[Tensor, "row d"]) -> float:
    """Fraction of the rows' variance that is lost on the way through two mappers.

    Args:
        there: from the rows' space to another.
        back: from that one to the first.
        rows: activations of ``there``'s source that neither was fitted on.

    Raises:
        ValueError: if the second mapper does not lead back.
    """
    if (there.target, there.source) != (back.source, back.target):
        raise ValueError(
            "the second mapper does not lead from the first one's target back to its source: fit it on the reverse"
        )
    return fvu(rows, back(there(rows)))
