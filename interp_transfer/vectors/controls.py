"""Control vectors: what a steering vector is compared with.

A vector's effect says something about its direction only if other directions of the same cost lack it. Isotropic random
directions are the weakest control, because most of them lie outside the few dimensions that activations use. Directions in the
span of the leading components of the vector's own evidence lie inside. The difference of two halves of one side of the contrast
is a difference of means that shows no behaviour.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.prompts.chats import PromptLike
from interp_transfer.prompts.contrast import Pairs, sides
from interp_transfer.vectors.vector import SteeringVector, evidence_rows

COMPONENTS = 10
"""Number of leading components that span the directions of ``span_vectors``."""


def random_directions(
    n: int, width: int, seed: int, basis: Float[Tensor, "component width"] | None = None
) -> list[Float[Tensor, " width"]]:
    """Draw random directions of length 1: isotropic ones, or isotropic in the span of an orthonormal basis."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(width if basis is None else len(basis), generator=generator) for _ in range(n)]
    inside = drawn if basis is None else [coordinates @ basis for coordinates in drawn]
    return [direction / direction.norm() for direction in inside]


def random_vectors(like: SteeringVector, n: int, seed: int = 0) -> list[SteeringVector]:
    """Return vectors in isotropic random directions, of the length of another vector.

    Args:
        like: the vector whose length, site and model they have.
        n: number of vectors.
        seed: draws the directions.
    """
    return _with_directions(like, random_directions(n, len(like.direction), seed), "random")


def span_vectors(like: SteeringVector, n: int, seed: int = 0, components: int = COMPONENTS) -> list[SteeringVector]:
    """Return vectors in random directions of the span of the leading principal components of a vector's evidence.

    Args:
        like: the vector, with evidence, whose length, site and model they have.
        n: number of vectors.
        seed: draws the directions.
        components: number of components; fewer if the evidence has fewer.

    Raises:
        ValueError: for a vector without evidence.
    """
    rows = evidence_rows(like.evidence)
    if len(rows) < 2:
        raise ValueError(f"{like!r} has no evidence whose components could span directions: use random_vectors")
    centred = rows.float() - rows.float().mean(dim=0)
    basis = torch.linalg.svd(centred, full_matrices=False).Vh[: min(components, len(rows) - 1)]
    return _with_directions(like, random_directions(n, len(like.direction), seed, basis), "random in span")


def same_side(contrast: Pairs, seed: int = 0) -> list[tuple[PromptLike, PromptLike]]:
    """Return a contrast of two random halves of the positive side, which differ in no behaviour.

    Raises:
        ValueError: for fewer than two pairs.
    """
    positive, _ = sides(contrast)
    if len(positive) < 2:
        raise ValueError("a contrast of one pair has no two halves: give at least two pairs")
    order = torch.randperm(len(positive), generator=torch.Generator().manual_seed(seed)).tolist()
    half = len(positive) // 2
    return [(positive[i], positive[j]) for i, j in zip(order[:half], order[half : 2 * half], strict=True)]


def _with_directions(like: SteeringVector, directions: Sequence[Tensor], method: str) -> list[SteeringVector]:
    scaled = [(direction * like.norm).to(like.direction.dtype) for direction in directions]
    return [replace(like, direction=direction, evidence=(), method=method) for direction in scaled]
