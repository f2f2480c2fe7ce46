"""What is done to the activations that a hook selects.

A transform is called with the selected rows alone, ``transform(a)`` or ``transform(a, at)``, and returns rows of the same
shape; ``at`` says which text, position and token each row is. Any function of that form will do. These are the usual ones,
as frozen values.

Wherever a direction is taken, it is one vector for all rows (``"d_model"``) or one for each text (``"text d_model"``, picked
by ``at.row``); strengths likewise. So a batch can hold different interventions.
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_transfer.activations.positions import Layout
from interp_transfer.models.hooked_model import HookedModel

Direction = Float[Tensor, " d_model"] | Float[Tensor, "text d_model"]
Strength = float | int | Float[Tensor, " text"]


@dataclass(frozen=True)
class At:
    """Which tokens the selected rows are.

    Attributes:
        layout: everything read so far.
        index: row and column of each selected token in the layout.
    """

    layout: Layout
    index: tuple[Int[Tensor, " n"], Int[Tensor, " n"]]

    @cached_property
    def row(self) -> Int[Tensor, " n"]:
        """The text, counted over the whole call."""
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
    """Whether a transform wants to know which tokens its rows are."""
    try:
        parameters = inspect.signature(transform).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 and (positional[1].default is inspect.Parameter.empty or positional[1].name == "at")


@runtime_checkable
class Running(Protocol):
    """A transform that keeps something from step to step, such as the cache of a second model.

    What it keeps lives for one ``applied`` block: the transform itself stays a value, and two blocks share nothing.
    """

    def running(self, model: HookedModel) -> AbstractContextManager[Transform]:
        """Entered with the block, before any hook is added: gives the transform that ``model`` is hooked with inside it."""
        ...


def _fit(value: Tensor, a: Tensor, at: At | None, one: int) -> Tensor:
    """``value`` for each row of ``a``: itself, or the entry of the row's text where it has an axis of texts."""
    value = value.to(device=a.device, dtype=a.dtype)
    if value.ndim == one:
        return value
    if at is None:
        raise ValueError("one direction or strength for each text needs to know the texts: call it with at")
    if int(at.row.max()) >= len(value):
        raise ValueError(f"{len(value)} directions or strengths for text {int(at.row.max())}: give one for each text")
    return value[at.row.to(a.device)]


def fitted(strength: Strength, a: Float[Tensor, "n d_model"], at: At | None) -> Tensor | float:
    """A strength for rows: the number itself, or that of each row's text.

    Raises:
        ValueError: for one strength for each text, where it is not known which texts the rows are of, or there are more.
    """
    return _fit(strength, a, at, 0) if isinstance(strength, Tensor) else strength


def _scaled(strength: Strength, a: Tensor, at: At | None) -> Tensor | float:
    value = fitted(strength, a, at)
    return value[:, None] if isinstance(value, Tensor) and value.ndim else value


def _unit(direction: Tensor) -> Tensor:
    norm = direction.float().norm(dim=-1, keepdim=True)
    if (norm == 0).any():
        raise ValueError("a direction of norm zero cannot be ablated or clamped: use another vector")
    return direction.float() / norm


@dataclass(frozen=True)
class Add:
    """a + strength * direction. The direction is used as it is, not normalised: strength 1.0 adds it once."""

    direction: Direction
    strength: Strength = 1.0

    def __call__(self, a: Float[Tensor, "n d_model"], at: At | None = None) -> Float[Tensor, "n d_model"]:
        """The rows with the direction added."""
        return a + _scaled(self.strength, a, at) * _fit(self.direction, a, at, 1)


@dataclass(frozen=True)
class Ablate:
    """a - (a . v) v with v the unit direction: nothing of it is left (directional ablation, Arditi et al. 2024)."""

    direction: Direction

    def __call__(self, a: Float[Tensor, "n d_model"], at: At | None = None) -> Float[Tensor, "n d_model"]:
        """The rows, orthogonal to the direction."""
        return Clamp(self.direction, 0.0)(a, at)


@dataclass(frozen=True)
class Clamp:
    """Set the component along the unit direction to ``value``, in units of the activation; leave the rest."""

    direction: Direction
    value: Strength

    def __call__(self, a: Float[Tensor, "n d_model"], at: At | None = None) -> Float[Tensor, "n d_model"]:
        """The rows with that component."""
        v = _fit(_unit(self.direction), a, at, 1)
        return a + (_scaled(self.value, a, at) - (a * v).sum(dim=-1, keepdim=True)) * v


@dataclass(frozen=True)
class Replace:
    """Put a value in place of the activation, whatever it was."""

    value: Direction

    def __call__(self, a: Float[Tensor, "n d_model"], at: At | None = None) -> Float[Tensor, "n d_model"]:
        """The value, once for each row."""
        return _fit(self.value, a, at, 1).expand_as(a)


@dataclass(frozen=True)
class MeanAblate(Replace):
    """Replace by the mean activation over a reference set: what the site says on average, and nothing of this text."""


@dataclass(frozen=True)
class When:
    """Do something to the rows where a condition fires, and leave the others (conditional steering, Lee et al. 2024).

    Attributes:
        condition: a score for each row: a ``features.probes.Probe``, ``lambda a: a @ direction``, anything like it.
        transform: what is done.
        above: the score from which on.
    """

    condition: Callable[[Float[Tensor, "n d_model"]], Float[Tensor, " n"]]
    transform: Transform
    above: float = 0.0

    def __call__(self, a: Float[Tensor, "n d_model"], at: At) -> Float[Tensor, "n d_model"]:
        """The rows, changed where the condition fires."""
        score = self.condition(a)
        if score.shape != a.shape[:1]:
            raise ValueError(f"the condition returned {tuple(score.shape)} for {len(a)} rows: give a score for each row")
        fires = (score > self.above).nonzero()[:, 0]
        if not len(fires):
            return a
        part = At(at.layout, (at.index[0][fires], at.index[1][fires]))
        changed = self.transform(a[fires], part) if takes_at(self.transform) else self.transform(a[fires])
        return a.index_copy(0, fires, changed.to(a.dtype))


@dataclass(frozen=True)
class Noise:
    """Add Gaussian noise, or put it in place of the activation.

    The noise of a token depends on ``seed``, its text and its position alone, so it is the same with and without a KV cache
    and however the texts are batched.

    Attributes:
        scale: standard deviation of each coordinate, in units of the activation.
        seed: of the noise.
        replace: whether the activation is replaced (the paper's trigger noise) or added to.
    """

    scale: float
    seed: int = 0
    replace: bool = False

    def __call__(self, a: Float[Tensor, "n d_model"], at: At) -> Float[Tensor, "n d_model"]:
        """The rows with their noise."""
        key = _mixed(_mixed(_mixed(torch.full_like(at.row, self.seed)) + at.row) + at.position)
        bits = _mixed(key[:, None] + torch.arange(2 * a.shape[1], device=key.device))
        uniform = ((bits >> 11) & (2**53 - 1)).double().add(0.5) / 2**53
        radius, angle = uniform.chunk(2, dim=1)
        drawn = (-2 * radius.log()).sqrt() * (2 * torch.pi * angle).cos()  # Box and Muller 1958
        return self.scale * drawn.to(device=a.device, dtype=a.dtype) + (0 if self.replace else a)


def _mixed(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Bits of each number, well mixed: the finaliser of splitmix64 (Steele et al. 2014) in wrapping 64-bit arithmetic."""
    x = x + -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ ((x >> shift) & (2 ** (64 - shift) - 1))) * factor
    return x ^ ((x >> 31) & (2**33 - 1))
