"""Moving a vector through a map f from the source's activations to the target's.

For an affine map, f(x) = A x + b, there is one right answer, A v. A map that is not linear has no such answer: what it does
to a direction depends on where it stands. Four modes, from the most to the least that they ask of the vector:

- ``difference``: mean f(h+) - mean f(h-). Move both sides of the contrast and take the difference there. Needs a contrast.
- ``delta``: mean f(h + v) - f(h) over the evidence. What the map does to the steered activation. Needs activations.
- ``jacobian``: mean J_f(h) v, the derivative, exactly, by forward-mode products. Right for small steps only.
- ``raw``: f(v), the vector treated as if it were an activation, bias and all. What a literal reading of the paper gives; it
  asks the map about a point far from every activation it was fitted on.

``difference`` is the default. None of them keeps the vector's length: a map that is fitted to the least error is drawn to the
mean, the more so the less it can tell. So there are two norms to choose from: ``mapped`` leaves the length that comes out (the
default), and ``spread`` gives the vector the length at which it stands to the spread of its evidence as it did at home
(``at_spread``). Neither looks at a vector found in the target, which whoever moves one may not have.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.names import find
from interp_transfer.vectors.vector import Contrast, Evidence, Reference, SteeringVector

Map = Callable[[Float[Tensor, "n d_source"]], Float[Tensor, "n d_target"]]
Mode = Callable[[Map, SteeringVector], Float[Tensor, " d_target"]]
Norm = Callable[[SteeringVector, SteeringVector], SteeringVector]
"""Gives a moved vector its length; the second argument is the vector as it was at home."""

DEFAULT_MODE = "difference"
DEFAULT_NORM = "mapped"


def difference(f: Map, vector: SteeringVector) -> Float[Tensor, " d_target"]:
    """Sum over the vector's contrasts of weight * (mean f(h+) - mean f(h-)).

    Raises:
        ValueError: for a bare direction, which has no two sides.
    """
    if isinstance(vector.evidence, Reference) or not vector.evidence:
        raise ValueError("mode='difference' needs the two sides of a contrast, which this vector lacks: use mode='delta'")
    return torch.stack([_moved_contrast(f, contrast).difference() for contrast in vector.evidence]).sum(dim=0)


def delta(f: Map, vector: SteeringVector) -> Float[Tensor, " d_target"]:
    """Mean of f(h + v) - f(h) over the activations that the vector leads away from."""
    h = starting_points(vector.evidence)
    return (f(h + vector.direction.to(h.dtype)) - f(h)).mean(dim=0)


def jacobian(f: Map, vector: SteeringVector) -> Float[Tensor, " d_target"]:
    """Mean of J_f(h) v over the same activations, exact."""
    h = starting_points(vector.evidence)
    tangent = vector.direction.to(h.dtype).expand_as(h).contiguous()
    return torch.func.jvp(f, (h,), (tangent,))[1].mean(dim=0)


def raw(f: Map, vector: SteeringVector) -> Float[Tensor, " d_target"]:
    """f(v)."""
    return f(vector.direction[None])[0]


MODES: dict[str, Mode] = {"difference": difference, "delta": delta, "jacobian": jacobian, "raw": raw}


@torch.no_grad()
def move(f: Map, vector: SteeringVector, mode: str = DEFAULT_MODE) -> tuple[Float[Tensor, " d_target"], Evidence]:
    """Direction and evidence of a vector in the target's space.

    Raises:
        ValueError: for an unknown mode, or one that asks for more evidence than the vector has.
    """
    direction = find_mode(mode)(f, vector)
    if isinstance(vector.evidence, Reference):
        return direction, Reference(f(vector.evidence.activations))
    return direction, tuple(_moved_contrast(f, contrast) for contrast in vector.evidence)


def find_mode(mode: str) -> Mode:
    """A mode by name.

    Raises:
        ValueError: naming the closest.
    """
    return find(mode, MODES, "mode")


def as_mapped(moved: SteeringVector, vector: SteeringVector) -> SteeringVector:  # noqa: ARG001
    """A moved vector at the length that the map gave it."""
    return moved


def at_spread(moved: SteeringVector, vector: SteeringVector) -> SteeringVector:
    """A moved vector at the length that is to its evidence's spread what the vector's length is to its own evidence's.

    Args:
        moved: the vector in the target's space, its evidence moved by the same map.
        vector: as it was in the source's space.

    Raises:
        ValueError: for a vector without evidence, or evidence that does not spread.
    """
    at_home, there = spread(vector.evidence), spread(moved.evidence)
    if not at_home > 0 or not there > 0:
        raise ValueError(
            "the evidence is one and the same activation over and over, so lengths have no measure: give more texts"
        )
    return moved.normalized(vector.norm / at_home * there)


def spread(evidence: Evidence) -> float:
    """Root mean squared distance of the evidence from the mean of its own side of its contrast, in units of the activation.

    Raises:
        ValueError: when there is none.
    """
    if not evidence:
        raise ValueError("this vector has no evidence, so its length has no measure: give it evidence, or leave the length")
    sides = (
        [evidence.activations] if isinstance(evidence, Reference) else [s for c in evidence for s in (c.positive, c.negative)]
    )
    squares = torch.cat([(side.double() - side.double().mean(dim=0)).square().sum(dim=1) for side in sides])
    return float(squares.mean().sqrt())


NORMS: dict[str, Norm] = {"mapped": as_mapped, "spread": at_spread}


def find_norm(norm: str) -> Norm:
    """A norm by name.

    Raises:
        ValueError: naming the closest.
    """
    return find(norm, NORMS, "norm")


def starting_points(evidence: Evidence) -> Float[Tensor, "n d_source"]:
    """The activations that a vector is added to: the side of each contrast that it leads away from.

    Adding the difference to those gives points near the other side, where a map was fitted; adding it to the other side
    would lead out of the activations altogether.

    Raises:
        ValueError: when there are none.
    """
    if isinstance(evidence, Reference):
        return evidence.activations
    if not evidence:
        raise ValueError("this vector has no activations to be looked at: give it evidence, or use mode='raw'")
    return torch.cat([c.negative if c.weight >= 0 else c.positive for c in evidence])


def _moved_contrast(f: Map, contrast: Contrast) -> Contrast:
    return replace(contrast, positive=f(contrast.positive), negative=f(contrast.negative))
