"""Means and scatter matrices of paired rows, in one pass over any number of rows.

Every closed-form map is solved from these, so memory does not grow with the rows. All sums are in float64. Each block is
centred by its own mean before its products are taken, and blocks are merged by the pairwise update of Chan, Golub and LeVeque
(1983), so means that are large compared with the spread, as in residual streams, cost no digits.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.mapping.distributed import rank_and_size, summed

Block = tuple[Float[Tensor, "_ d_source"], Float[Tensor, "_ d_target"]]
"""Source rows with their target rows."""

WORK_ROWS = 1024


@dataclass(frozen=True)
class Moments:
    """First and second moments of paired rows, in float64.

    Attributes:
        rows: number of rows.
        mean_x: mean of the source rows.
        mean_y: mean of the target rows.
        xx: sum over rows of the outer product of the centred source row with itself.
        xy: the same of the centred source row with the centred target row.
        yy: sum over rows of the squared centred target row, for each dimension.
    """

    rows: int
    mean_x: Float[Tensor, " d_source"]
    mean_y: Float[Tensor, " d_target"]
    xx: Float[Tensor, "d_source d_source"]
    xy: Float[Tensor, "d_source d_target"]
    yy: Float[Tensor, " d_target"]

    def spread_x(self) -> Float[Tensor, " d_source"]:
        """Return the standard deviation of each source dimension (with n - 1)."""
        return (self.xx.diagonal() / max(self.rows - 1, 1)).sqrt()

    def scaled(
        self, shift_x: Float[Tensor, " d_source"], scale_x: Float[Tensor, " d_source"], shift_y: Tensor, scale_y: Tensor
    ) -> "Moments":
        """Return the moments of (x - shift_x) / scale_x and (y - shift_y) / scale_y."""
        sx, sy = scale_x.double(), scale_y.double()
        return Moments(
            self.rows,
            (self.mean_x - shift_x) / sx,
            (self.mean_y - shift_y) / sy,
            self.xx / sx[:, None] / sx,
            self.xy / sx[:, None] / sy,
            self.yy / sy**2,
        )

    def of_change(self) -> "Moments":
        """Return the moments of (x, y - x); both sides are equally wide."""
        return Moments(
            self.rows,
            self.mean_x,
            self.mean_y - self.mean_x,
            self.xx,
            self.xy - self.xx,
            self.yy - 2 * self.xy.diagonal() + self.xx.diagonal(),
        )

    def squared_error(self, weight: Float[Tensor, "d_source d_target"], bias: Float[Tensor, " d_target"]) -> float:
        """Return the mean over rows of |x W + b - y|^2, exactly, without the rows."""
        off = self.mean_x @ weight + bias - self.mean_y
        about_means = (weight * (self.xx @ weight)).sum() - 2 * (weight * self.xy).sum() + self.yy.sum()
        return max(0.0, float(about_means / self.rows + off @ off))  # rounding makes an exact fit negative


class RunningMoments:
    """Moments of the rows so far.

    Source and target rows are concatenated in a workspace that fits into the processor's caches: so converting and centring
    cost little compared with the products, which are one matrix multiplication, and memory never grows.

    Args:
        d_source: width of source rows.
        d_target: width of target rows.
    """

    def __init__(self, d_source: int, d_target: int) -> None:
        both = d_source + d_target
        self._rows, self._d = 0, d_source
        self._mean = torch.zeros(both, dtype=torch.float64)
        self._products = torch.zeros(d_source, both, dtype=torch.float64)  # xx, and xy to its right
        self._yy = torch.zeros(d_target, dtype=torch.float64)
        self._work = torch.empty(WORK_ROWS, both, dtype=torch.float64)

    def update(self, x: Float[Tensor, "row d_source"], y: Float[Tensor, "row d_target"]) -> None:
        """Add rows."""
        for start in range(0, len(x), WORK_ROWS):
            self._update(x[start : start + WORK_ROWS], y[start : start + WORK_ROWS])

    def result(self) -> Moments:
        """Return a copy of the moments so far."""
        parts = (
            *(self._mean[: self._d], self._mean[self._d :]),
            *(self._products[:, : self._d], self._products[:, self._d :]),
            self._yy,
        )
        return Moments(self._rows, *(part.clone(memory_format=torch.contiguous_format) for part in parts))

    def _update(self, x: Tensor, y: Tensor) -> None:
        work = self._work[: len(x)]
        left, right = work[:, : self._d], work[:, self._d :]
        left.copy_(x)
        right.copy_(y)
        mean = work.mean(dim=0)
        self._merge(len(x), mean)
        work -= mean
        self._products.addmm_(left.T, work)
        self._yy += right.square_().sum(dim=0)  # in place: the workspace is not needed any more

    def _merge(self, rows: int, mean: Tensor) -> None:
        """Update the means, and add the contribution of the distance between the two groups' means."""
        total = self._rows + rows
        apart = mean - self._mean
        weight = self._rows * rows / total
        self._products.addr_(apart[: self._d], apart, alpha=weight)
        self._yy += weight * apart[self._d :].square()
        self._mean += apart * (rows / total)
        self._rows = total


def all_reduced(own: Moments) -> Moments:
    """Return the moments of the rows of all ranks, given those of this rank's rows."""
    if rank_and_size()[1] == 1:
        return own
    rows = int(summed(torch.tensor(own.rows)))
    mean_x, mean_y = (summed(own.rows * mean) / max(rows, 1) for mean in (own.mean_x, own.mean_y))
    off_x, off_y = own.mean_x - mean_x, own.mean_y - mean_y  # each rank's sums are about its own means
    return Moments(
        rows,
        mean_x,
        mean_y,
        summed(own.xx + own.rows * off_x[:, None] * off_x),
        summed(own.xy + own.rows * off_x[:, None] * off_y),
        summed(own.yy + own.rows * off_y.square()),
    )
