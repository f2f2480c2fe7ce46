"""The networks of the mapper kinds: maps between standardised rows."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn


class LowRank(nn.Sequential):
    """A matrix of low rank, as the product of two, with a bias."""

    def __init__(self, d_source: int, d_target: int, rank: int) -> None:
        super().__init__(nn.Linear(d_source, rank, bias=False), nn.Linear(rank, d_target))


class Update(LowRank):
    """The row itself plus the output of a map of low rank."""

    def forward(self, input: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:  # noqa: A002 - torch's name
        """Return the sum."""
        return input + super().forward(input)


Width = int | Literal["paper"] | None
"""Number of hidden units; the paper's number for "paper", ``WIDER`` times the target's dimensions for None."""

WIDER = 4
"""The paper's hidden layer is no wider than its input and output, and loses much: see the figures in docs/mapper_kinds.md."""


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


def autoencoder(d_source: int, d_target: int, width: Width = None) -> nn.Module:
    """Return the paper's mapper: linear, ReLU, linear. The second layer has a bias, as in the authors' code.

    Raises:
        ValueError: for a width that ``hidden_units`` refuses.
    """
    units = hidden_units(width, d_source, d_target)
    return nn.Sequential(nn.Linear(d_source, units), nn.ReLU(), nn.Linear(units, d_target))


class Residual(nn.Module):
    """An affine map plus a small MLP whose last layer starts at zero; the width is that of an autoencoder."""

    def __init__(self, d_source: int, d_target: int, width: Width = None) -> None:
        super().__init__()
        units = hidden_units(width, d_source, d_target)
        self.affine = nn.Linear(d_source, d_target)
        self.mlp = nn.Sequential(nn.Linear(d_source, units), nn.ReLU(), nn.Linear(units, d_target))
        for parameter in self.mlp[2].parameters():
            nn.init.zeros_(parameter)

    def forward(self, rows: Float[Tensor, "row d_source"]) -> Float[Tensor, "row d_target"]:
        """Return the sum."""
        return self.affine(rows) + self.mlp(rows)


CORES: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "mean_shift": nn.Identity,  # centring shifts the mean
        "affine": nn.Linear,
        "procrustes": nn.Linear,
        "embeddings": nn.Linear,
        "low_rank": LowRank,
        "low_rank_update": Update,
        "autoencoder": autoencoder,
        "residual": Residual,
        "untrained": autoencoder,
    }
)
"""Function that makes a kind's network, from both widths and the settings in ``SHAPED_BY``."""

SHAPED_BY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "low_rank": ("rank",),
        "low_rank_update": ("rank",),
        "autoencoder": ("width",),
        "residual": ("width",),
    }
)
"""Settings that decide the shape of a kind's network."""


def make_core(kind: str, widths: tuple[int, int], settings: Mapping[str, Any]) -> nn.Module:
    """Return a new network of a kind."""
    return CORES[kind](*widths, **{name: settings[name] for name in SHAPED_BY.get(kind, ()) if name in settings})
