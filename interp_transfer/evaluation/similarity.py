"""How alike two models' activations are on the same texts.

Linear centred kernel alignment (Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", equation 3 in
its feature-space form): 1 if one set of rows is a rotation and a rescaling of the other, near 0 if they share nothing. The two
may have different widths and different tokenizers, because it compares one row for each text.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.sites import residual_sites


def cka(first: Float[Tensor, "row d_first"], second: Float[Tensor, "other_row d_second"]) -> float:
    """Linear CKA of two sets of rows that belong together, in [0, 1].

    With few rows it is biased upwards (two independent Gaussian sets of n rows and width d give about d / (n + d)), so give
    many more rows than dimensions, and look at `shuffled_cka` beside it.

    Raises:
        ValueError: for different numbers of rows, fewer than two, or rows that are all the same.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"CKA needs as many rows of both, at least two: got {len(first)} and {len(second)}")
    x, y = (rows.double() - rows.double().mean(0) for rows in (first, second))
    size = (x.T @ x).norm() * (y.T @ y).norm()
    if not size > 0:
        raise ValueError("CKA is not defined where all rows are the same")
    return float((y.T @ x).norm() ** 2 / size)


def shuffled_cka(first: Float[Tensor, "row d_first"], second: Float[Tensor, "row d_second"], seed: int = 0) -> float:
    """CKA when the rows are paired at random: what the number of rows alone gives."""
    order = torch.randperm(len(second), generator=torch.Generator().manual_seed(seed))
    return cka(first, second[order])


def layerwise_cka(
    first: HookedModel, second: HookedModel, texts: Sequence[str], *, progress: bool = True
) -> tuple[Float[Tensor, "first second"], Float[Tensor, "first second"]]:
    """CKA between the residual streams of two models, block by block.

    Args:
        first: its blocks are the rows.
        second: its blocks are the columns.
        texts: prompts; each model's last token of each is compared.
        progress: show a bar when it takes longer than two seconds.

    Returns:
        CKA at every pair of block inputs, and the same with the texts paired at random.
    """
    acts = [capture(m, list(texts), residual_sites(m), "last", progress=progress) for m in (first, second)]
    rows = [[a[site].float() for site in residual_sites(m)] for a, m in zip(acts, (first, second), strict=True)]
    table = [[(_cka(x, y), _shuffled(x, y)) for y in rows[1]] for x in rows[0]]
    both = torch.tensor(table)
    return both[..., 0], both[..., 1]


def _cka(x: Tensor, y: Tensor) -> float:
    """CKA, or NaN at the input of the first block, where the last token is the same in every prompt."""
    same = any(bool((rows - rows[:1]).abs().max() == 0) for rows in (x, y))
    return float("nan") if same else cka(x, y)


def _shuffled(x: Tensor, y: Tensor) -> float:
    same = any(bool((rows - rows[:1]).abs().max() == 0) for rows in (x, y))
    return float("nan") if same else shuffled_cka(x, y)
