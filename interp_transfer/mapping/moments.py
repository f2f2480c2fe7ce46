"""Means and scatter matrices of paired rows, in one pass over however many rows there are.

Every closed-form map is solved from these, so that neither the number of rows nor where they lie costs memory. All sums are
in float64. Each block is centred by its own mean before its products are taken, and blocks are merged by the pairwise update
of Chan, Golub and LeVeque (1983): means that are large beside the spread, as in residual streams, cost no digits.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Block = tuple[Float[Tensor, "_ d_source"], Float[Tensor, "_ d_target"]]
"""Source rows with their target rows."""


@dataclass(frozen=True)
class Moments:
    """First and second moments of paired rows, in float64.

    Attributes:
        rows: how many.
        mean_x: of the source.
        mean_y: of the target.
        xx: sum over rows of the outer product of the centred source row with itself.
        xy: of the centred source row with the centred target row.
        yy: sum over rows of the squared centred target row, dimension by dimension.
    """

    rows: int
    mean_x: Float[Tensor, " d_source"]
    mean_y: Float[Tensor, " d_target"]
    xx: Float[Tensor, "d_source d_source"]
    xy: Float[Tensor, "d_source d_target"]
    yy: Float[Tensor, " d_target"]

    def spread_x(self) -> Float[Tensor, " d_source"]:
        """Standard deviation of each source dimension (of the rows, not of a population)."""
        return (self.xx.diagonal() / max(self.rows - 1, 1)).sqrt()

    def scaled(
        self, shift_x: Float[Tensor, " d_source"], scale_x: Float[Tensor, " d_source"], shift_y: Tensor, scale_y: Tensor
    ) -> "Moments":
        """The moments of (x - shift_x) / scale_x and (y - shift_y) / scale_y."""
        sx, sy = scale_x.double(), scale_y.double()
        return Moments(
            self.rows,
            (self.mean_x - shift_x) / sx,
            (self.mean_y - shift_y) / sy,
            self.xx / sx[:, None] / sx,
            self.xy / sx[:, None] / sy,
            self.yy / sy**2,
        )

    def squared_error(self, weight: Float[Tensor, "d_source d_target"], bias: Float[Tensor, " d_target"]) -> float:
        """Mean over rows of |x W + b - y|^2, exactly, without the rows."""
        off = self.mean_x @ weight + bias - self.mean_y
        about_means = (weight * (self.xx @ weight)).sum() - 2 * (weight * self.xy).sum() + self.yy.sum()
        return float(about_means / self.rows + off @ off)


class RunningMoments:
    """Moments of the rows so far.

    Args:
        d_source: width of source rows.
        d_target: width of target rows.
        device: where the sums lie.
    """

    def __init__(self, d_source: int, d_target: int, device: torch.device | str = "cpu") -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self._rows = 0
        self._mean = (zeros(d_source), zeros(d_target))
        self._xx, self._xy, self._yy = zeros(d_source, d_source), zeros(d_source, d_target), zeros(d_target)

    def update(self, x: Float[Tensor, "row d_source"], y: Float[Tensor, "row d_target"]) -> None:
        """Add rows."""
        if not len(x):
            return
        x, y = (rows.to(self._xx) for rows in (x, y))
        self._merge(len(x), x.mean(dim=0), y.mean(dim=0))
        x, y = x - x.mean(dim=0), y - y.mean(dim=0)
        self._xx.addmm_(x.T, x)
        self._xy.addmm_(x.T, y)
        self._yy += y.square().sum(dim=0)

    def add(self, other: Moments) -> None:
        """Add the rows that another's moments were taken of, as from another process."""
        if not other.rows:
            return
        self._merge(other.rows, other.mean_x.to(self._xx), other.mean_y.to(self._xx))
        self._xx += other.xx.to(self._xx)
        self._xy += other.xy.to(self._xx)
        self._yy += other.yy.to(self._xx)

    def result(self) -> Moments:
        """What has been gathered; a copy."""
        x, y = self._mean
        return Moments(self._rows, x.clone(), y.clone(), self._xx.clone(), self._xy.clone(), self._yy.clone())

    def _merge(self, rows: int, mean_x: Tensor, mean_y: Tensor) -> None:
        """Move the means, and add what the distance between the two groups' means contributes."""
        total = self._rows + rows
        dx, dy = mean_x - self._mean[0], mean_y - self._mean[1]
        weight = self._rows * rows / total
        self._xx.addr_(dx, dx, alpha=weight)
        self._xy.addr_(dx, dy, alpha=weight)
        self._yy += weight * dy.square()
        self._mean = (self._mean[0] + dx * (rows / total), self._mean[1] + dy * (rows / total))
        self._rows = total


def merged(one: Moments, other: Moments) -> Moments:
    """The moments of the rows of both."""
    running = RunningMoments(len(one.mean_x), len(one.mean_y), one.xx.device)
    running.add(one)
    running.add(other)
    return running.result()


def moments(blocks: Iterable[Block]) -> Moments:
    """Moments of all rows of some blocks.

    Raises:
        ValueError: for no rows.
    """
    running: RunningMoments | None = None
    for x, y in blocks:
        running = running or RunningMoments(x.shape[1], y.shape[1], x.device)
        running.update(x, y)
    found = running.result() if running is not None else None
    if found is None or not found.rows:
        raise ValueError("no rows to take moments of: give at least one block with rows in it")
    return found
