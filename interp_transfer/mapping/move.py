"""Move a vector v through a map f from the source's activations to the target's.

An affine map, f(x) = A x + b, moves a vector to A v. A nonlinear map has no single answer, because its effect on a direction
depends on the activation. There are four modes, ordered by the evidence that they need:

- ``difference``: mean f(h+) - mean f(h-), the difference between the two mapped sides of the contrast. Needs a contrast whose
  difference in means is the vector; a probe's direction or a principal component is moved by ``delta`` instead.
- ``delta``: mean of f(h + v) - f(h) over the evidence, the effect of f on the steered activations. Needs activations.
- ``jacobian``: mean of J_f(h) v, with the exact derivative by forward-mode products. Accurate for small steps only.
- ``raw``: f(v), the vector treated as an activation, bias included, as a literal reading of the paper has it. It evaluates f
  far from all activations that f was fitted on.

The default is ``difference``. No mode preserves the vector's length: a map that minimises squared error shrinks towards the
mean, and more so the less it explains. There are two norms. ``mapped`` (the default) keeps the length that results. ``spread``
keeps the ratio of the vector's length to the spread of its evidence (``at_spread``). Neither needs a native vector of the
target.
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
"""Sets the length of a moved vector (first argument), given the source's vector (second argument)."""

DEFAULT_MODE = "difference"
EXACT = 1e-3
"""Relative error up to which a direction is its evidence's difference."""
MEANS = {"difference_in_means", "mean_centring"}
"""Methods whose direction is a difference in means."""
DEFAULT_NORM = "mapped"


def difference(f: Map, vector: SteeringVector) -> Float[Tensor, " d_target"]:
    """Return the sum over the vector's contrasts of weight * (mean f(h+) - mean f(h-)).

    Raises:
        ValueError: for a vector without a contrast.
    """
    if isinstance(vector.evidence, Reference) or not vector.evidence:
        raise ValueError("mode='difference' needs the two sides of a contrast, which this vector lacks: use mode='delta'")
    return torch.stack([_moved_contrast(f, contrast).difference() for contrast in vector.evidence]).sum(dim=0)


def delta(f: Map, vector: SteeringVector) -> Float[Tensor, " d_target"]:
    """Return the mean of f(h + v) - f(h) over the starting points that f does not set apart."""
    h = ordinary_rows(f, starting_points(vector.evidence))
    return (f(h + vector.direction.to(h.dtype)) - f(h)).mean(dim=0)


def jacobian(f: Map, vector: SteeringVector) -> Float[Tensor, " d_target"]:
    """Return the mean of J_f(h) v over the same starting points, with the exact derivative."""
    h = ordinary_rows(f, starting_points(vector.evidence))
    tangent = vector.direction.to(h.dtype).expand_as(h).contiguous()
    return torch.func.jvp(f, (h,), (tangent,))[1].mean(dim=0)


def raw(f: Map, vector: SteeringVector) -> Float[Tensor, " d_target"]:
    """Return f(v)."""
    return f(vector.direction[None])[0]


MODES: dict[str, Mode] = {"difference": difference, "delta": delta, "jacobian": jacobian, "raw": raw}


def ordinary_rows(f: Map, rows: Float[Tensor, "n d_source"]) -> Float[Tensor, "m d_source"]:
    """The rows that a map does not set apart as massive: a mapper sends those to one row, so it has no derivative there.

    Raises:
        ValueError: if it sets all of them apart.
    """
    is_massive = getattr(f, "is_massive", None)
    kept = rows if is_massive is None else rows[~is_massive(rows)]
    if not len(kept):
        raise ValueError(f"all {len(rows)} activations are massive for this mapper, which maps those to one row: give others")
    return kept


def is_difference(vector: SteeringVector) -> bool:
    """Whether a vector's direction is the difference of its evidence's means, so that moving both sides moves the vector.

    A difference in means is of all rows, its evidence a sample of them: it may deviate by three standard errors.
    """
    if isinstance(vector.evidence, Reference) or not vector.evidence:
        return False
    error = float((torch.stack([c.difference() for c in vector.evidence]).sum(dim=0) - vector.direction).float().norm())
    allowed = EXACT * vector.norm
    if set(vector.method.split("+")) <= MEANS:
        squares = [
            c.weight**2 * float(side.float().var(dim=0).sum()) / len(side)
            for c in vector.evidence
            for side in (c.positive, c.negative)
            if len(side) > 1
        ]
        allowed = max(allowed, 3 * sum(squares) ** 0.5)
    return error <= allowed


def applicable_mode(vector: SteeringVector, mode: str) -> str:
    """The mode, or ``delta`` instead of ``difference`` for a vector that is not its evidence's difference in means.

    Without evidence the mode stays, and the error names what is missing.
    """
    return "delta" if mode == "difference" and vector.evidence and not is_difference(vector) else mode


@torch.no_grad()
def move(f: Map, vector: SteeringVector, mode: str = DEFAULT_MODE) -> tuple[Float[Tensor, " d_target"], Evidence]:
    """Return the direction and the evidence of a vector in the target's space, by exactly this mode.

    Raises:
        ValueError: for an unknown mode, or a vector without the evidence that the mode needs.
    """
    direction = find(mode, MODES, "mode")(f, vector)
    if isinstance(vector.evidence, Reference):
        return direction, Reference(f(vector.evidence.activations))
    return direction, tuple(_moved_contrast(f, contrast) for contrast in vector.evidence)


def as_mapped(moved: SteeringVector, vector: SteeringVector) -> SteeringVector:  # noqa: ARG001
    """Return the moved vector with the length that results from the map."""
    return moved


def at_spread(moved: SteeringVector, vector: SteeringVector) -> SteeringVector:
    """Return the moved vector, scaled so that the ratio of its length to the spread of its evidence is that of the source.

    Args:
        moved: the vector in the target's space, with evidence that was moved by the same map.
        vector: the vector in the source's space.

    Raises:
        ValueError: for a vector without evidence, or with evidence of spread zero.
    """
    source_spread, target_spread = spread(vector.evidence), spread(moved.evidence)
    if not source_spread > 0 or not target_spread > 0:
        raise ValueError("all activations of the evidence are the same, so lengths have no scale: give more texts")
    return moved.normalized(vector.norm / source_spread * target_spread)


def spread(evidence: Evidence) -> float:
    """Return the root mean squared distance of each activation from the mean of its side, in units of the activation.

    Raises:
        ValueError: for no evidence.
    """
    if not evidence:
        raise ValueError("this vector has no evidence, so its length has no scale: give it evidence, or use norm='mapped'")
    sides = (
        [evidence.activations] if isinstance(evidence, Reference) else [s for c in evidence for s in (c.positive, c.negative)]
    )
    squares = torch.cat([(side.double() - side.double().mean(dim=0)).square().sum(dim=1) for side in sides])
    return float(squares.mean().sqrt())


NORMS: dict[str, Norm] = {"mapped": as_mapped, "spread": at_spread}


def starting_points(evidence: Evidence) -> Float[Tensor, "n d_source"]:
    """Return the starting points: the activations to which a vector is added, the negative side of each contrast.

    It is the positive side for a contrast of negative weight. The difference, added to this side, reaches the other side, where
    the map was fitted; added to the other side, it would reach points far from all activations.

    Raises:
        ValueError: for no evidence.
    """
    if isinstance(evidence, Reference):
        return evidence.activations
    if not evidence:
        raise ValueError("this vector has no evidence to start from: give it evidence, or use mode='raw'")
    return torch.cat([c.negative if c.weight >= 0 else c.positive for c in evidence])


def _moved_contrast(f: Map, contrast: Contrast) -> Contrast:
    return replace(contrast, positive=f(contrast.positive), negative=f(contrast.negative))
