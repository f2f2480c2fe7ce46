"""Both sides of a contrast in two dimensions, in the source's space and in the target's: the data of the picture of a transfer.

A plane contains a vector (x) and the direction orthogonal to it along which the activations vary most (y), in units of the
activation. Its origin is the mean of the negative side, so a vector begins there. A vector that is not in the plane is shown by
its projection, and the share of its length that is in the plane is stored.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.vectors.vector import Contrast, SteeringVector

POINTS = 100
"""Activations of each side that are shown, evenly spaced."""

Sides = dict[str, Tensor]
Arrow = tuple[SteeringVector, str]
"""A vector, and the negative side that its arrow starts from."""


def transfer_planes(
    vector: SteeringVector,
    moved: SteeringVector,
    native: SteeringVector | None = None,
    texts: tuple[Sequence[str], Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Project the evidence of a vector, of what it was moved to, and of the target's own vector, onto planes.

    Args:
        vector: the source's vector; its evidence is a contrast.
        moved: the same vector in the target's space, from ``Mapper.transfer``; its evidence is the mapped contrast.
        native: the target's own vector of the same contrast. Without it the target's plane contains the moved vector.
        texts: prompts of the positive and of the negative side, in the order of the evidence; left out if their numbers are not
            those of its rows (several tokens of each prompt were read).

    Returns:
        Plain data: ``source`` and ``target``, each with model, site, points by side (``[x, y]``) and arrows; and ``texts``.

    Raises:
        ValueError: for a vector whose evidence is no single contrast.
    """
    of_source = {"source, positive": _contrast(vector).positive, "source, negative": _contrast(vector).negative}
    of_target = {"moved, positive": _contrast(moved).positive, "moved, negative": _contrast(moved).negative}
    arrows = {"moved": (moved, "moved, negative")}
    if native is not None:
        of_target |= {"native, positive": _contrast(native).positive, "native, negative": _contrast(native).negative}
        arrows["native"] = (native, "native, negative")
    sizes = (len(_contrast(vector).positive), len(_contrast(vector).negative))
    positive, negative = texts if texts is not None and tuple(map(len, texts)) == sizes else ((), ())
    return {
        "source": _plane(vector, of_source, {"source": (vector, "source, negative")}),
        "target": _plane(moved if native is None else native, of_target, arrows),
        "texts": {"positive": _chosen(positive), "negative": _chosen(negative)},
    }


def _plane(axis: SteeringVector, sides: Sides, arrows: dict[str, Arrow]) -> dict[str, Any]:
    """Points and arrows in the plane of a vector and the leading orthogonal component of all rows."""
    rows = {name: side[_spaced(len(side))].double() for name, side in sides.items()}
    means = {name: side.double().mean(dim=0) for name, side in sides.items()}
    x = axis.direction.double() / axis.direction.double().norm()
    every = torch.cat(list(rows.values()))
    left = every - every.mean(dim=0)
    left -= torch.outer(left @ x, x)
    y = torch.linalg.svd(left, full_matrices=False).Vh[0]
    y = y * y[y.abs().argmax()].sign()  # either sign would do: the same on every machine
    y = y - (y @ x) * x  # of rows that all lie along x, nothing but rounding is left
    basis = torch.stack([x, y / y.norm().clamp(min=torch.finfo(y.dtype).tiny)], dim=1)
    origin = means[arrows["native" if "native" in arrows else next(iter(arrows))][1]]

    def placed(points: Float[Tensor, "n d_model"]) -> list[list[float]]:
        return [[round(float(number), 4) for number in point] for point in (points - origin) @ basis]

    drawn = {}
    for name, (vector, start) in arrows.items():
        direction = vector.direction.double()
        begin, end = placed(torch.stack([means[start], means[start] + direction]))
        drawn[name] = {"from": begin, "to": end, "in_plane": float((direction @ basis).norm() / direction.norm())}
    points = {name: placed(side) for name, side in rows.items()}
    return {"model": axis.model.name, "site": axis.site, "points": points, "arrows": drawn}


def _contrast(vector: SteeringVector) -> Contrast:
    if not isinstance(vector.evidence, tuple) or len(vector.evidence) != 1:
        raise ValueError(
            f"{vector!r} has no single contrast as its evidence, whose two sides could be shown: take a vector of extract(...)"
        )
    return vector.evidence[0]


def _chosen(texts: Sequence[str]) -> list[str]:
    return [texts[i] for i in _spaced(len(texts))]


def _spaced(n: int) -> list[int]:
    """Indices of at most ``POINTS`` of n rows, evenly spaced."""
    return sorted({round(i) for i in torch.linspace(0, n - 1, min(n, POINTS)).tolist()})
