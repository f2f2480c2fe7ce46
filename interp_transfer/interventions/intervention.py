"""An intervention: a transform at a site and at positions."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from interp_transfer.activations.positions import Positions, check_positions, describe
from interp_transfer.interventions.transforms import Ablate, Add, Clamp, Running, Strength, Transform, When
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import RESIDUAL_WRITES
from interp_transfer.vectors.vector import SteeringVector


@dataclass(frozen=True)
class Intervention:
    """Do ``transform`` to the activations at ``site`` of the tokens at ``positions``.

    Attributes:
        site: hook-point name, or several; ``*`` stands for every block.
        transform: called with the selected rows, ``transform(a)`` or ``transform(a, at)``; returns rows of the same shape.
        positions: which tokens, see ``activations.positions``.
        model: the model that it is meant for, if it is meant for one; others refuse it.
    """

    site: str | tuple[str, ...]
    transform: Transform
    positions: Positions = "all"
    model: ModelIdentity | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not callable(self.transform):
            raise ValueError(f"transform is a {type(self.transform).__name__}, not callable: give a function of the rows")
        check_positions(self.positions)

    def at(self, positions: Positions) -> "Intervention":
        """The same intervention at other positions."""
        return replace(self, positions=positions)

    def when(self, condition: "Callable[[Tensor], Tensor] | SteeringVector", above: float = 0.0) -> "Intervention":
        """The same only on rows whose score is above a threshold.

        Args:
            condition: rows ``Float[Tensor, "n d_model"]`` to scores ``Float[Tensor, " n"]``; a probe of the same site; or a
                vector, whose score is the dot product with its direction.
            above: the threshold.

        Raises:
            ValueError: for a probe or vector of another site or model, or a transform that keeps something from step to step
                (``follow``).
        """
        site, model = getattr(condition, "site", self.site), getattr(condition, "model", None)
        if site != self.site or (model is not None and self.model is not None and model.fingerprint != self.model.fingerprint):
            raise ValueError(f"the condition {condition!r} is of another site or model than {self}: it would score other rows")
        if isinstance(condition, SteeringVector):
            direction = condition.direction.float()
            condition = lambda a: a.float() @ direction.to(a.device)  # noqa: E731
        if isinstance(self.transform, Running):
            raise ValueError(f"{type(self.transform).__name__} reads along at every step: it cannot be left out at some rows")
        return replace(self, transform=When(condition, self.transform, above))

    def __str__(self) -> str:
        site = self.site if isinstance(self.site, str) else " + ".join(self.site)
        return f"{type(self.transform).__name__} at {site}, positions {describe(self.positions)}"


def add(vector: SteeringVector, strength: Strength = 1.0, positions: Positions = "all") -> Intervention:
    """Add ``strength`` times the vector at its site; strength 1.0 is the contrast's own difference.

    ``strength`` may hold one number for each text, ``Float[Tensor, " text"]``.
    """
    return Intervention(vector.site, Add(vector.direction, strength), positions, model=vector.model)


def ablate(vector: SteeringVector, positions: Positions = "all", *, everywhere: bool = False) -> Intervention:
    """Remove the component along the vector (directional ablation, Arditi et al. 2024).

    Args:
        vector: its direction is what is removed; its length does not matter.
        positions: which tokens.
        everywhere: at every block's input, attention output and MLP output, and not at the vector's site alone.
    """
    site = RESIDUAL_WRITES if everywhere else vector.site
    return Intervention(site, Ablate(vector.direction), positions, model=vector.model)


def clamp(vector: SteeringVector, value: Strength, positions: Positions = "all") -> Intervention:
    """Set the component along the vector's unit direction to ``value``, in units of the activation."""
    return Intervention(vector.site, Clamp(vector.direction, value), positions, model=vector.model)


def _checked(model: HookedModel) -> Any:
    def check(intervention: Any) -> Intervention:
        if not isinstance(intervention, Intervention):
            raise ValueError(
                f"not an intervention but a {type(intervention).__name__}: make one with add(vector, strength), "
                "ablate(vector), clamp(vector, value) or Intervention(site, transform, positions)"
            )
        here = identity(model)
        if intervention.model is not None and intervention.model.fingerprint != here.fingerprint:
            raise ValueError(
                f"this intervention was made for {intervention.model}, not for {here}: move its vector with "
                "mapper.transfer(vector), or rebind it on purpose with vector.for_model(model)"
            )
        return intervention

    return check
