"""Transforms: functions of the activations that a hook selects.

A transform is called with the selected rows alone, ``transform(a)`` or ``transform(a, at)``, and returns rows of the same
shape; ``at`` holds the text, position and token of each row. Any function of that form can be one. Those of this module are
frozen values.

A direction is one vector for all rows (``"d_model"``) or one for each text (``"text d_model"``, selected by ``at.row``); the
same holds for strengths. So one batch can hold different interventions.
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_transfer.activations.positions import Layout
from interp_transfer.models.hooked_model import HookedModel

Direction = Float[Tensor, " d_model"] | Float[Tensor, "text d_model"]
Strength = float | int | Float[Tensor, " text"]


@dataclass(frozen=True)
class At:
    """The tokens of the selected rows.

    Attributes:
        layout: all tokens that were read so far.
        index: row and column of each selected token in the layout.
    """

    layout: Layout
    index: tuple[Int[Tensor, " n"], Int[Tensor, " n"]]

    @cached_property
    def row(self) -> Int[Tensor, " n"]:
        """Index of the text in the whole call, not in its batch."""
        return self.layout.rows[self.index[0]]

    @cached_property
    def position(self) -> Int[Tensor, " n"]:
        """Index of the token in its text, from 0, padding not counted."""
        return self.layout.position[self.index]

    @cached_property
    def token(self) -> Int[Tensor, " n"]:
        """Token id."""
        return self.layout.tokens[self.index]


Transform = Callable[..., Float[Tensor, "n d_model"]]


def takes_at(transform: Transform) -> bool:
    """Return whether a transform has a second parameter ``at``."""
    try:
        parameters = inspect.signature(transform).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 and (positional[1].default is inspect.Parameter.empty or positional[1].name == "at")


@runtime_checkable
class Running(Protocol):
    """A transform with a state from step to step, such as the cache of a second model.

    The state lives for one ``applied`` block: the transform itself stays a value, and two blocks share nothing.
    """

    def running(self, model: HookedModel) -> AbstractContextManager[Transform]:
        """Return a context manager, entered before any hook is added, that yields the transform for one block on ``model``."""
        ...


def _per_row(value: Tensor, a: Tensor, at: At | None, ndim: int) -> Tensor:
    """``value`` for each row of ``a``: unchanged if it has ``ndim`` axes, or the entry of the row's text if it has one more."""
    value = value.to(device=a.device, dtype=a.dtype)
    if value.ndim == ndim:
        return value
    if at is None:
        raise ValueError("a direction or strength for each text needs to know the texts: call the transform with at")
    if int(at.row.max()) >= len(value):
        raise ValueError(f"{len(value)} directions or strengths for text {int(at.row.max())}: give one for each text")
    return value[at.row.to(a.device)]


def strength_per_row(strength: Strength, a: Float[Tensor, "n d_model"], at: At | None) -> Tensor | float | int:
    """Return the strength for rows: one number, or ``Float[Tensor, "n 1"]`` where each text has its own.

    Raises:
        ValueError: for a strength for each text, if ``at`` is missing or there are more texts than strengths.
    """
    if not isinstance(strength, Tensor):
        return strength
    value = _per_row(strength, a, at, 0)
    return value[:, None] if value.ndim else value


def _unit(direction: Tensor) -> Tensor:
    norm = direction.float().norm(dim=-1, keepdim=True)
    if (norm == 0).any():
        raise ValueError("a direction of norm zero cannot be ablated or clamped: use another vector")
    return direction.float() / norm


class _Short:
    """A transform that prints its tensors as their shapes and lengths."""

    def __repr__(self) -> str:
        shown = (f"{one.name} {_described(getattr(self, one.name))}" for one in fields(self))  # pyright: ignore[reportArgumentType]
        return f"{type(self).__name__}({', '.join(shown)})"


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return getattr(value, "__name__", "") or repr(value)
    shape = " x ".join(map(str, value.shape))
    return f"({shape}) of norm {float(value.float().norm()):.3g}" if value.ndim == 1 else f"({shape})"


@dataclass(frozen=True, repr=False)
class Add(_Short):
    """a + strength * direction. The direction is used as it is, not normalised: strength 1.0 adds it once."""

    direction: Direction
    strength: Strength = 1.0

    def __call__(self, a: Float[Tensor, "n d_model"], at: At | None = None) -> Float[Tensor, "n d_model"]:
        """Return the rows with the direction added."""
        return a + strength_per_row(self.strength, a, at) * _per_row(self.direction, a, at, 1)


@dataclass(frozen=True, repr=False)
class Ablate(_Short):
    """a - (a . v) v with v the unit direction (directional ablation, Arditi et al. 2024)."""

    direction: Direction

    def __call__(self, a: Float[Tensor, "n d_model"], at: At | None = None) -> Float[Tensor, "n d_model"]:
        """Return the rows, projected onto the complement of the direction."""
        return Clamp(self.direction, 0.0)(a, at)


@dataclass(frozen=True, repr=False)
class Clamp(_Short):
    """Set the component along the unit direction to ``value``, in units of the activation; the rest stays."""

    direction: Direction
    value: Strength

    def __call__(self, a: Float[Tensor, "n d_model"], at: At | None = None) -> Float[Tensor, "n d_model"]:
        """Return the rows with their component set."""
        v = _per_row(_unit(self.direction), a, at, 1)
        return a + (strength_per_row(self.value, a, at) - (a * v).sum(dim=-1, keepdim=True)) * v


@dataclass(frozen=True, repr=False)
class MeanAblate(_Short):
    """Replace the activation by its mean over a reference set, which removes everything specific to the text."""

    mean: Direction

    def __call__(self, a: Float[Tensor, "n d_model"], at: At | None = None) -> Float[Tensor, "n d_model"]:
        """Return the mean, repeated for each row."""
        return _per_row(self.mean, a, at, 1).expand_as(a)


@dataclass(frozen=True, repr=False)
class When(_Short):
    """Transform the rows whose score is above a threshold (conditional steering, Lee et al. 2024).

    Attributes:
        condition: scores the rows: a ``features.probes.Probe``, ``lambda a: a @ direction``, or any such function.
        transform: applied to the rows that score higher than the threshold.
        above: the threshold.
    """

    condition: Callable[[Float[Tensor, "n d_model"]], Float[Tensor, " n"]]
    transform: Transform
    above: float = 0.0

    def __call__(self, a: Float[Tensor, "n d_model"], at: At) -> Float[Tensor, "n d_model"]:
        """Return the rows, transformed where the score is above the threshold."""
        score = self.condition(a)
        if score.shape != a.shape[:1]:
            raise ValueError(f"the condition returned {tuple(score.shape)} for {len(a)} rows: give a score for each row")
        chosen = (score > self.above).nonzero()[:, 0]
        if not len(chosen):
            return a
        row, column = (index[chosen.to(index.device)] for index in at.index)
        part = At(at.layout, (row, column))
        changed = self.transform(a[chosen], part) if takes_at(self.transform) else self.transform(a[chosen])
        return a.index_copy(0, chosen, changed.to(a.dtype))


@dataclass(frozen=True)
class Noise:
    """Add Gaussian noise to the activation, or replace the activation by it.

    The noise of a token depends on ``seed``, its text and its position alone, so it is the same with and without a KV cache
    and for every batch size.

    Attributes:
        scale: standard deviation of each coordinate, in units of the activation.
        seed: of the noise.
        replace: replace the activation (the paper's trigger noise) instead of adding to it.
    """

    scale: float
    seed: int = 0
    replace: bool = False

    def __call__(self, a: Float[Tensor, "n d_model"], at: At) -> Float[Tensor, "n d_model"]:
        """Return the rows with their noise."""
        key = _hash(_hash(_hash(torch.full_like(at.row, self.seed)) + at.row) + at.position)
        bits = _hash(key[:, None] + torch.arange(2 * a.shape[1], device=key.device))
        uniform = ((bits >> 11) & (2**53 - 1)).double().add(0.5) / 2**53
        radius, angle = uniform.chunk(2, dim=1)
        drawn = (-2 * radius.log()).sqrt() * (2 * torch.pi * angle).cos()  # Box and Muller 1958
        return self.scale * drawn.to(device=a.device, dtype=a.dtype) + (0 if self.replace else a)


def _hash(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Hash each number: the finaliser of splitmix64 (Steele et al. 2014) in wrapping 64-bit arithmetic."""
    x = x + -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ ((x >> shift) & (2 ** (64 - shift) - 1))) * factor
    return x ^ ((x >> 31) & (2**33 - 1))
