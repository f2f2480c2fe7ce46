"""Interventions: a transform at a site and at positions.

An intervention is a value; ``hooks.applied`` puts it into a model. It knows nothing of steering vectors but that they have a
direction, a site and a model.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.positions import Positions, check_positions, describe
from interp_transfer.escape import visible
from interp_transfer.interventions.transforms import Ablate, Add, Clamp, Running, Strength, Transform, When
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity, identity, wrapper_check
from interp_transfer.models.sites import BLOCK, RESIDUAL_WRITES
from interp_transfer.names import misplaced
from interp_transfer.plots.cards import blocks, card

LEFT_AT_MOST = 0.01
"""Share of a direction that ablation everywhere may leave, by rounding in 16 bits."""


@runtime_checkable
class Vector(Protocol):
    """A direction at a site of a model, such as a ``SteeringVector``."""

    @property
    def direction(self) -> Float[Tensor, " d_model"]:
        """The vector, in units of the activation."""
        ...

    @property
    def site(self) -> str:
        """Hook-point name."""
        ...

    @property
    def model(self) -> ModelIdentity:
        """The model that it belongs to."""
        ...


@dataclass(frozen=True, repr=False)
class Intervention:
    """Apply ``transform`` to the activations at ``site`` of the tokens at ``positions``.

    Attributes:
        site: hook-point name, or several; ``*`` stands for every block.
        transform: called with the selected rows, ``transform(a)`` or ``transform(a, at)``; returns rows of the same shape.
        positions: which tokens, see ``activations.positions``.
        model: the model that it was made for, or None; other models refuse it.
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
        """Return the same intervention at other positions."""
        return replace(self, positions=positions)

    def when(self, condition: Callable[[Tensor], Tensor] | Vector, above: float = 0.0) -> "Intervention":
        """Return the same intervention, only on rows whose score is above a threshold.

        Args:
            condition: rows ``Float[Tensor, "n d_model"]`` to scores ``Float[Tensor, " n"]``; a probe of the same site; or a
                vector, whose score is the dot product with its direction.
            above: the threshold.

        Raises:
            ValueError: for a probe or vector of another site or model, or a transform with a state (``follow``).
        """
        site, model = getattr(condition, "site", self.site), getattr(condition, "model", None)
        if site != self.site or (model is not None and self.model is not None and model.fingerprint != self.model.fingerprint):
            raise ValueError(f"the condition {condition!r} is of another site or model than {self}: it would score other rows")
        if isinstance(self.transform, Running):
            raise ValueError(f"{type(self.transform).__name__} keeps a state from step to step: it cannot skip rows")
        score = condition if callable(condition) else _dot_product(condition.direction.float())
        return replace(self, transform=When(score, self.transform, above))

    def __repr__(self) -> str:
        transform = getattr(self.transform, "__name__", "") or repr(self.transform)
        site = self.site if isinstance(self.site, str) else " + ".join(self.site)
        of = "" if self.model is None else f", for {self.model.name}"
        return visible(f"Intervention({transform} at {site}, positions {describe(self.positions)}{of})")

    def _repr_html_(self) -> str:
        found = [BLOCK.match(site) for site in ((self.site,) if isinstance(self.site, str) else self.site)]
        marked = [int(each[1]) for each in found if each is not None and each[1] != "*"]
        return card(repr(self), blocks(max(marked) + 1, marked, more=True) if marked else "")

    def __str__(self) -> str:
        site = self.site if isinstance(self.site, str) else " + ".join(self.site)
        return f"{type(self.transform).__name__} at {site}, positions {describe(self.positions)}"


def _dot_product(direction: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda rows: rows.float() @ direction.to(rows.device)


def add(vector: Vector, strength: Strength = 1.0, positions: Positions = "all") -> Intervention:
    """Add ``strength`` times the vector at its site; strength 1.0 is the contrast's own difference.

    ``strength`` may hold one number for each text, ``Float[Tensor, " text"]``.

    Raises:
        ValueError: for a bare direction, or a strength that is no number.
    """
    _check_vector(vector)
    if not isinstance(strength, Tensor | float | int):
        raise misplaced(strength, "a strength", "give a number, or a tensor with one for each text")
    return Intervention(vector.site, Add(vector.direction, strength), positions, model=vector.model)


def ablate(vector: Vector, positions: Positions = "all", *, everywhere: bool = False) -> Intervention:
    """Remove the component along the vector (directional ablation, Arditi et al. 2024).

    Args:
        vector: its direction is removed; its length does not matter.
        positions: which tokens.
        everywhere: at every block's input, attention output and MLP output, instead of the vector's site alone.
    """
    _check_vector(vector)
    site = RESIDUAL_WRITES if everywhere else vector.site
    return Intervention(site, Ablate(vector.direction), positions, model=vector.model)


def clamp(vector: Vector, value: Strength, positions: Positions = "all") -> Intervention:
    """Set the component along the vector's unit direction to ``value``, in units of the activation."""
    _check_vector(vector)
    return Intervention(vector.site, Clamp(vector.direction, value), positions, model=vector.model)


def _check_vector(vector: Any) -> None:
    if not isinstance(vector, Vector):
        remedy = "a bare direction needs its place, it.SteeringVector(direction, site, it.identity(model))"
        raise misplaced(vector, "a steering vector", remedy)


def check_intervention(model: HookedModel, intervention: Any) -> Intervention:
    """Return ``intervention`` if it can be applied to ``model``.

    Raises:
        ValueError: for anything that is no intervention, or one that was made for another model.
    """
    if not isinstance(intervention, Intervention):
        raise ValueError(
            f"not an intervention but a {type(intervention).__name__}: make one with vector.add(strength), vector.ablate(), "
            "vector.clamp(value) or Intervention(site, transform, positions)"
        )
    here = identity(model)
    if intervention.model is not None and intervention.model.fingerprint != here.fingerprint:
        raise ValueError(
            f"this intervention was made for {intervention.model}, not for {here}: move its vector with "
            "mapper.transfer(vector), or rebind it on purpose with vector.for_model(model)"
        )
    left = wrapper_check(model).left
    if left > LEFT_AT_MOST and intervention.site == RESIDUAL_WRITES and isinstance(intervention.transform, Ablate):
        raise ValueError(
            f"ablation everywhere would leave {left:.0%} of a direction in {here.name}, whose blocks write more than attention "
            "and MLP: ablate at ('blocks.*.hook_resid_pre', 'blocks.*.hook_resid_post'), Intervention(sites, Ablate(direction))"
        )
    return intervention
