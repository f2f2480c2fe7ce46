"""Similarity of two models' activations on the same texts.

Linear centred kernel alignment (Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", equation 3 in
its feature-space form): 1 if one set of rows is a rotation and a rescaling of the other, near 0 if they are unrelated.
Widths and tokenizers may differ, because one row of each text is compared.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.sites import residual_sites


def cka(first: Float[Tensor, "row d_first"], second: Float[Tensor, "other_row d_second"]) -> float:
    """Return the linear CKA of two sets of paired rows, in [0, 1].

    With few rows it is biased upwards (two independent Gaussian sets of n rows and width d give about d / (n + d)), so use many
    more rows than dimensions, and compare with `shuffled_cka`.

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
    """Return the CKA of randomly paired rows, the bias that the number of rows causes."""
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
    tables = [[[_or_nan(measure, x, y) for y in rows[1]] for x in rows[0]] for measure in (cka, shuffled_cka)]
    return torch.tensor(tables[0]), torch.tensor(tables[1])


def _or_nan(measure: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor) -> float:
    """A similarity, or NaN where all rows are the same: at the first block, where all prompts end in the same token."""
    constant = any(bool((rows == rows[:1]).all()) for rows in (x, y))
    return float("nan") if constant else measure(x, y)
