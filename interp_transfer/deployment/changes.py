"""What of interventions weights can express: removing directions everywhere, and adding vectors at all tokens.

Directional ablation everywhere is a projection of whatever is written to the residual stream, so it can be made to the weights
that write (Arditi et al. 2024, section 4.1). An addition at all tokens is a bias of the projection that writes last before the
site. Everything else depends on the token, or on the residual stream itself, which a block reads through a norm alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.interventions.intervention import Intervention, check_intervention
from interp_transfer.interventions.transforms import Ablate, Add
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.sites import RESIDUAL_WRITES, check_site, hook_points

PARALLEL = 1e-5
"""Cosine up to which two directions are orthogonal, in float32."""


@dataclass(frozen=True)
class Removal:
    """Remove a unit direction, in float64, from all that is written to the residual stream."""

    unit: Float[Tensor, " d_model"]


@dataclass(frozen=True)
class Addition:
    """Add a vector, which is ``strength`` times another, at a site, at all tokens."""

    vector: Float[Tensor, " d_model"]
    site: str
    strength: float


Change = Removal | Addition


def changes_of(model: HookedModel, interventions: Sequence[Intervention]) -> list[Change]:
    """The changes that interventions, applied in their order, make to whatever a model reads.

    Raises:
        ValueError: for none, those of another model, and those that weights cannot express, with the reason and what to do.
    """
    if not interventions:
        raise ValueError("there is nothing to bake: give at least one intervention, such as vector.add(1.0)")
    changes = [change for each in interventions for change in _changes(model, check_intervention(model, each))]
    for k, change in enumerate(changes):
        for later in changes[k + 1 :]:
            _check_pair(change, later)
    return changes


def _changes(model: HookedModel, intervention: Intervention) -> list[Change]:
    transform = intervention.transform
    if not isinstance(intervention.positions, str) or intervention.positions != "all":
        raise ValueError(
            f"{intervention} cannot be baked: weights are the same at every token; use .at('all'), or steer with hooks"
        )
    points = hook_points(model, intervention.site, edit=True)
    if isinstance(transform, Ablate):
        if intervention.site != RESIDUAL_WRITES:
            raise ValueError(
                f"{intervention} cannot be baked: what a block reads also comes around that site, by the residual stream, "
                "which passes through no weight; use vector.ablate(everywhere=True), or steer with hooks"
            )
        direction = _direction(model, transform.direction)
        if not direction.any():
            raise ValueError("a direction of norm zero cannot be ablated: use another vector")
        return [Removal(direction / direction.norm())]
    if not isinstance(transform, Add):
        raise ValueError(
            f"{intervention} cannot be baked: it is a function of the residual stream, which blocks read through a norm, so no "
            "weight sees it as it is; bake vector.add(strength) or vector.ablate(everywhere=True), or steer with hooks"
        )
    strength = transform.strength
    if isinstance(strength, Tensor) and strength.ndim:
        raise ValueError(f"{len(strength)} strengths, one for each text: weights are the same for every text, give one number")
    if not math.isfinite(number := float(strength)):
        raise ValueError(f"a strength of {number} cannot be baked: give a finite number")
    vector = number * _direction(model, transform.direction)
    return [Addition(vector, check_site(model, site), number) for site in points]


def _direction(model: HookedModel, direction: Tensor) -> Float[Tensor, " d_model"]:
    """A direction of the residual stream, in float64 on the CPU."""
    if direction.ndim != 1:
        raise ValueError(f"{len(direction)} directions, one for each text: weights are the same for all texts, give one vector")
    if len(direction) != int(model.cfg.d_model):
        raise ValueError(f"a vector of {len(direction)} numbers does not fit d_model {model.cfg.d_model}: use another vector")
    if not torch.isfinite(direction).all():
        raise ValueError("the vector holds NaN or infinity: extract it again")
    return direction.detach().double().cpu()


def _check_pair(first: Change, second: Change) -> None:
    """Check that two changes are the same one by one, as weights make them, as at every site again, as hooks do."""
    removal = next((change for change in (first, second) if isinstance(change, Removal)), None)
    other = second if removal is first else first
    if removal is None:
        return
    vector = other.unit if isinstance(other, Removal) else other.vector
    cosine = float(removal.unit @ vector) / max(float(vector.norm()), torch.finfo(torch.float64).tiny)
    if abs(cosine) <= PARALLEL:
        return
    if isinstance(other, Removal):
        raise ValueError(
            f"two ablated directions with a cosine of {cosine:.2g} cannot be baked: hooks remove them in turn at every site; "
            "subtract from the second its component along the first, which removes the same plane"
        )
    if second is other or other.site.endswith("hook_resid_post"):
        raise ValueError(
            f"the vector at {other.site!r} has a cosine of {cosine:.2g} with the ablated direction, and hooks would remove "
            "that part at later sites alone: give the addition before the ablation, and at the input of a block"
        )
