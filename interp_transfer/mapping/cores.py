"""What kinds of mappers differ in: the map between standardised rows."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def linear(d_source: int, d_target: int) -> nn.Module:
    """One matrix and a bias."""
    return nn.Linear(d_source, d_target)


def same(_d_source: int, _d_target: int) -> nn.Module:
    """No parameters: what a shift of the mean does is done by centring."""
    return nn.Identity()


def bottleneck(d_source: int, d_target: int, rank: int) -> nn.Module:
    """A matrix of low rank as the product of two, and a bias."""
    return nn.Sequential(nn.Linear(d_source, rank, bias=False), nn.Linear(rank, d_target))


def autoencoder(
    d_source: int, d_target: int, width: int | None = None, decoder_bias: bool = True, initial: str = "random"
) -> nn.Module:
    """The paper's mapper: linear, ReLU, linear.

    Args:
        d_source: width of source rows.
        d_target: width of target rows.
        width: hidden units; int(sqrt(d_source * d_target)) (the paper's Table 22) unless given.
        decoder_bias: the authors' code has one, the paper's formula has none.
        initial: "random" (torch's default), or "identity": each shared dimension goes through a pair of units, one for either
            sign, so that the map starts as the identity (cut or filled with zeros where the widths differ).

    Raises:
        ValueError: for a width that is too small.
    """
    width = int(math.sqrt(d_source * d_target)) if width is None else width
    shared = min(d_source, d_target)
    if width < 1:
        raise ValueError(f"width={width}: the hidden layer needs at least one unit")
    first, second = nn.Linear(d_source, width), nn.Linear(width, d_target, bias=decoder_bias)
    if initial == "identity":
        if width < 2 * shared:
            raise ValueError(f"width={width}: initial='identity' needs two units for each of the {shared} shared dimensions")
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
    """An affine map and, added to it, a small MLP whose last layer starts at zero."""

    def __init__(self, d_source: int, d_target: int, width: int) -> None:
        super().__init__()
        self.affine = nn.Linear(d_source, d_target)
        self.mlp = nn.Sequential(nn.Linear(d_source, width), nn.ReLU(), nn.Linear(width, d_target))
        for parameter in self.mlp[2].parameters():
            nn.init.zeros_(parameter)

    def forward(self, rows: Float[Tensor, "row d_source"]) -> Float[Tensor, "row d_target"]:
        """Both added."""
        return self.affine(rows) + self.mlp(rows)


def residual(d_source: int, d_target: int, width: int | None = None) -> nn.Module:
    """`Residual`, by default as wide as the paper's autoencoder."""
    width = int(math.sqrt(d_source * d_target)) if width is None else width
    if width < 1:
        raise ValueError(f"width={width}: the hidden layer needs at least one unit")
    return Residual(d_source, d_target, width)


CORES: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "mean_shift": same,
        "affine": linear,
        "procrustes": linear,
        "embeddings": linear,
        "low_rank": bottleneck,
        "autoencoder": autoencoder,
        "residual": residual,
        "untrained": autoencoder,
    }
)
"""By kind: from both widths and those of the kind's settings that shape it."""

SHAPED_BY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"low_rank": ("rank",), "autoencoder": ("width", "decoder_bias", "initial"), "residual": ("width",)}
)
"""Settings that a kind's core is made from."""


def make_core(kind: str, widths: tuple[int, int], settings: Mapping[str, Any]) -> nn.Module:
    """A core of a kind, as its settings shape it."""
    return CORES[kind](*widths, **{name: settings[name] for name in SHAPED_BY.get(kind, ()) if name in settings})
