"""The networks of the mapper kinds: maps between standardised rows."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


def linear(d_source: int, d_target: int) -> nn.Module:
    """Return a matrix with a bias."""
    return nn.Linear(d_source, d_target)


def same(_d_source: int, _d_target: int) -> nn.Module:
    """Return the identity: centring shifts the mean."""
    return nn.Identity()


def bottleneck(d_source: int, d_target: int, rank: int) -> nn.Module:
    """Return a matrix of low rank, as the product of two, with a bias."""
    return nn.Sequential(nn.Linear(d_source, rank, bias=False), nn.Linear(rank, d_target))


class Update(nn.Sequential):
    """The row itself plus the output of a ``bottleneck``."""

    def forward(self, input: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:  # noqa: A002 - torch's name
        """Return the sum."""
        return input + super().forward(input)


def update(d_source: int, d_target: int, rank: int) -> nn.Module:
    """Return an `Update` of this rank."""
    return Update(*bottleneck(d_source, d_target, rank).children())


Width = int | Literal["paper"] | None
"""Number of hidden units; the paper's number for "paper", ``WIDER`` times the target's dimensions for None."""

WIDER = 4
"""The paper's hidden layer is no wider than its input and output, and loses much: see the figures in docs/mapping.md."""


def hidden_units(width: Width, d_source: int, d_target: int) -> int:
    """Return the number of hidden units; "paper" is int(sqrt(d_source * d_target)), the paper's Table 22.

    Raises:
        ValueError: for a width below 1, or another word.
    """
    if width is None:
        return WIDER * d_target
    if width == "paper":
        return int(math.sqrt(d_source * d_target))
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"width={width!r}: give a number of hidden units above zero, or 'paper'")
    return width


def autoencoder(
    d_source: int, d_target: int, width: Width = None, decoder_bias: bool = True, initial: str = "random"
) -> nn.Module:
    """Return the paper's mapper: linear, ReLU, linear.

    Args:
        d_source: width of source rows.
        d_target: width of target rows.
        width: see ``hidden_units``.
        decoder_bias: the authors' code has one, the paper's formula has none.
        initial: "random" (torch's default), or "identity": each shared dimension passes through a pair of units, one for each
            sign, so that the map starts as the identity (truncated or zero-padded if the widths differ).

    Raises:
        ValueError: for a width that is too small.
    """
    units, shared = hidden_units(width, d_source, d_target), min(d_source, d_target)
    first, second = nn.Linear(d_source, units), nn.Linear(units, d_target, bias=decoder_bias)
    if initial == "identity":
        if units < 2 * shared:
            raise ValueError(f"width={units}: initial='identity' needs two units for each of the {shared} shared dimensions")
        with torch.no_grad():
            for parameter in (first.bias, *second.parameters()):
                parameter.zero_()
            first.weight[: 2 * shared].zero_()
            index = torch.arange(shared)
            for sign, unit in ((1.0, 2 * index), (-1.0, 2 * index + 1)):
                first.weight[unit, index] = sign
                second.weight[index, unit] = sign
    elif initial != "random":
        raise ValueError(f"initial={initial!r}: choose 'random' or 'identity'")
    return nn.Sequential(first, nn.ReLU(), second)


class Residual(nn.Module):
    """An affine map plus a small MLP whose last layer starts at zero."""

    def __init__(self, d_source: int, d_target: int, width: int) -> None:
        super().__init__()
        self.affine = nn.Linear(d_source, d_target)
        self.mlp = nn.Sequential(nn.Linear(d_source, width), nn.ReLU(), nn.Linear(width, d_target))
        for parameter in self.mlp[2].parameters():
            nn.init.zeros_(parameter)

    def forward(self, rows: Float[Tensor, "row d_source"]) -> Float[Tensor, "row d_target"]:
        """Return the sum."""
        return self.affine(rows) + self.mlp(rows)


def residual(d_source: int, d_target: int, width: Width = None) -> nn.Module:
    """Return a `Residual`, as wide as an autoencoder."""
    return Residual(d_source, d_target, hidden_units(width, d_source, d_target))


CORES: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "mean_shift": same,
        "affine": linear,
        "procrustes": linear,
        "embeddings": linear,
        "low_rank": bottleneck,
        "low_rank_update": update,
        "autoencoder": autoencoder,
        "residual": residual,
        "untrained": autoencoder,
    }
)
"""Function that makes a kind's network, from both widths and the settings in ``SHAPED_BY``."""

SHAPED_BY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "low_rank": ("rank",),
        "low_rank_update": ("rank",),
        "autoencoder": ("width", "decoder_bias", "initial"),
        "residual": ("width",),
    }
)
"""Settings that decide the shape of a kind's network."""


def make_core(kind: str, widths: tuple[int, int], settings: Mapping[str, Any]) -> nn.Module:
    """Return a new network of a kind."""
    return CORES[kind](*widths, **{name: settings[name] for name in SHAPED_BY.get(kind, ()) if name in settings})
