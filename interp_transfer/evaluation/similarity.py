"""Similarity of two models' activations on the same texts.

Linear centred kernel alignment (Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", equation 3 in
its feature-space form): 1 if one set of rows is a rotation and a rescaling of the other, near 0 if they are unrelated.
Widths and tokenizers may differ, because one row of each text is compared.
"""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.sites import residual_sites
from interp_transfer.progress import progress_bar


def cka(first: Float[Tensor, "row d_first"], second: Float[Tensor, "other_row d_second"]) -> float:
    """Return the linear CKA of two sets of paired rows, in [0, 1].

    With few rows it is biased upwards (two independent Gaussian sets of n rows and width d give about d / (n + d)), so use many
    more rows than dimensions, and compare with rows that are paired at random, as `layerwise_cka` does.

    Raises:
        ValueError: for different numbers of rows, fewer than two, or rows that are all the same.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"CKA needs as many rows of both, at least two: got {len(first)} and {len(second)}")
    (x, size_x), (y, size_y) = map(_centred, (first, second))
    if not size_x * size_y > 0:
        raise ValueError("CKA is not defined where all rows are the same")
    return float((y.T @ x).norm() ** 2 / (size_x * size_y))


def _centred(rows: Float[Tensor, "row d"]) -> tuple[Float[Tensor, "row d"], float]:
    """Rows less their mean, and the norm of their covariance; 0 where all rows are the same."""
    if bool((rows == rows[:1]).all()):
        return torch.zeros_like(rows, dtype=torch.float64), 0.0
    centred = rows.double() - rows.double().mean(0)
    return centred, float((centred.T @ centred).norm())


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
        CKA at every pair of block inputs, and the same with the texts paired at random; NaN where all rows are the same.
    """
    acts = [capture(m, list(texts), residual_sites(m), "last", progress=progress) for m in (first, second)]
    blocks = [[_centred(a[site].float()) for site in residual_sites(m)] for a, m in zip(acts, (first, second), strict=True)]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
    found = torch.full((2, len(blocks[0]), len(blocks[1])), float("nan"))
    pairs = itertools.product(enumerate(blocks[0]), enumerate(blocks[1]))
    bar = progress_bar("CKA", progress, items=pairs, total=found[0].numel())
    for (i, (x, size_x)), (j, (y, size_y)) in bar:
        if size_x * size_y > 0:  # at the first block all rows are the same where all prompts end in the same token
            for k, other in enumerate((y, y[order])):
                found[k, i, j] = (other.T @ x).norm() ** 2 / (size_x * size_y)
    return found[0], found[1]
