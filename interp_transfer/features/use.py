"""What is done to a model with the features of an SAE: reconstruct, set, ablate, steer.

Setting a feature keeps what the SAE does not reconstruct (``keep_error=True``), so that nothing changes but this feature; or it
replaces the activation by its reconstruction with the feature set, as the paper did, which changes whatever the SAE misses as
well. What the reconstruction does alone is ``reconstructed(sae)``, the baseline of the latter.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.positions import Positions
from interp_transfer.features.sae import Sae
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.transforms import At, Strength, strength_per_row


@dataclass(frozen=True, eq=False)
class SetFeature:
    """Set a feature's activation, whatever it was.

    Attributes:
        sae: whose feature.
        index: which.
        value: in units of the feature's activation; one for all rows, or ``Float[Tensor, " text"]``, one for each text.
        keep_error: keep what the SAE does not reconstruct.
    """

    sae: Sae
    index: int
    value: Strength
    keep_error: bool = True

    def __call__(self, a: Float[Tensor, "n d_model"], at: At | None = None) -> Float[Tensor, "n d_model"]:
        """The rows with that feature."""
        value = strength_per_row(self.value, a, at)

        def edit(features: Float[Tensor, "n feature"]) -> Float[Tensor, "n feature"]:
            out = features.to_dense() if features.is_sparse else features.clone()
            out[:, self.index, None] = value.to(out) if isinstance(value, Tensor) else value
            return out

        return self.sae.reconstruct(a, edit, keep_error=self.keep_error)


@dataclass(frozen=True, eq=False)
class Reconstruct:
    """Put the SAE's reconstruction in place of the activation."""

    sae: Sae

    def __call__(self, a: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """The reconstructed rows."""
        return self.sae.reconstruct(a)


def set_feature(
    sae: Sae, index: int, value: Strength, positions: Positions = "all", *, keep_error: bool = True
) -> Intervention:
    """Set one feature's activation to ``value`` (clamping); 0 ablates it.

    Args:
        sae: whose feature.
        index: which.
        value: in units of the feature's activation; a number, or one for each text, ``Float[Tensor, " text"]``.
        positions: which tokens.
        keep_error: keep what the SAE does not reconstruct; without it, rows are replaced by their reconstruction.

    Raises:
        ValueError: for an index out of range.
    """
    sae.check_index(index)
    return Intervention(sae.site, SetFeature(sae, index, value, keep_error), positions, model=sae.model)


def reconstructed(sae: Sae, positions: Positions = "all") -> Intervention:
    """Put the SAE's reconstruction in place of the activation, its features as they are: what splicing it in costs."""
    return Intervention(sae.site, Reconstruct(sae), positions, model=sae.model)
