"""Activations of an SAE's features on both sides of a contrast, and interventions that push one to the wanted side."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions
from interp_transfer.features.sae import Sae
from interp_transfer.features.use import set_feature
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.names import did_you_mean
from interp_transfer.prompts.contrast import Pairs, sides

WAYS = ("steer", "set", "ablate")


@dataclass(frozen=True, eq=False)
class FeatureContrast:
    """Activations of every feature on both sides of a contrast.

    Attributes:
        wanted: mean over the positive side.
        other: mean over the negative side.
        at_wanted: activations of the positive side, a row for each token that was read.
        at_other: the same of the negative side.
    """

    wanted: Float[Tensor, " feature"]
    other: Float[Tensor, " feature"]
    at_wanted: Float[Tensor, "n feature"]
    at_other: Float[Tensor, "m feature"]

    @property
    def difference(self) -> Float[Tensor, " feature"]:
        """Mean of the positive side minus that of the negative one."""
        return self.wanted - self.other


def feature_contrast(sae: Sae, model: HookedModel, contrast: Pairs, positions: Positions = "last") -> FeatureContrast:
    """Encode both sides of a contrast.

    Raises:
        ValueError: for an SAE of another model.
    """
    sae.check_model(model)
    plus, minus = (sae.encode(capture(model, texts, sae.site, positions)[sae.site]) for texts in sides(contrast))
    return FeatureContrast(plus.mean(dim=0), minus.mean(dim=0), plus, minus)


def feature_intervention(
    sae: Sae,
    index: int,
    seen: FeatureContrast,
    scale: float | int = 1.0,
    way: str = "steer",
    positions: Positions = "all",
    *,
    keep_error: bool = True,
) -> Intervention:
    """Return an intervention that pushes a feature to the wanted side of a contrast.

    Args:
        sae: the SAE.
        index: of the feature.
        seen: the features' activations on both sides.
        scale: 1 is the contrast's own difference in this feature; 2 is twice the difference.
        way: "steer" adds scale times the difference along the decoder row; "set" clamps the activation to the other side's mean
            plus scale times the difference; "ablate" sets it to 0.
        positions: the tokens.
        keep_error: for "set" and "ablate", keep the SAE's reconstruction error.

    Raises:
        ValueError: for an unknown way, an index out of range, or a feature that does not differ (for "steer").
    """
    if way not in WAYS:
        raise ValueError(f"unknown way {way!r}: {did_you_mean(way, WAYS)}choose one of {', '.join(WAYS)}")
    sae.check_index(index)
    step = float(seen.difference[index])
    if way == "steer":
        return add(sae.feature(index, size=step), scale, positions)
    value = 0.0 if way == "ablate" else float(seen.other[index]) + scale * step
    return set_feature(sae, index, value, positions, keep_error=keep_error)
