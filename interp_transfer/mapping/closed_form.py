"""Maps in closed form, solved in float64 from the moments of the paired rows (`moments`).

Rows are standardised: the source to unit spread in each dimension, the target by one scale for all. Each solver returns a
matrix and a bias for row vectors, y = x W + b.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.mapping.moments import Moments

Affine = tuple[Float[Tensor, "d_source d_target"], Float[Tensor, " d_target"]]
"""W and b."""


def ridge(m: Moments, penalty: float) -> Affine:
    """Return the least-squares map with a penalty on the matrix, not on the bias.

    Args:
        m: moments of the rows to fit.
        penalty: as a share of the mean variance of the source's dimensions, so that it does not depend on the number of rows or
            their scale.
    """
    gram = m.xx + penalty * m.xx.diagonal().mean() * torch.eye(len(m.xx), dtype=m.xx.dtype, device=m.xx.device)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if penalty > 0 and not failed:
        weight = torch.cholesky_solve(m.xy, factor)
    else:  # constant dimensions make the matrix singular when there is no penalty; gelsd is not on GPUs
        driver = "gelsd" if gram.device.type == "cpu" else None
        weight = torch.linalg.lstsq(gram, m.xy, driver=driver).solution
    return weight, m.mean_y - m.mean_x @ weight


def procrustes(m: Moments) -> Affine:
    """Return the best rotation with one scale, after centring: W = s U V^T (Schoenemann 1966).

    U S V^T is the singular value decomposition of the cross-covariance, and s = tr(S) / tr(U^T xx U) is the scale with the
    least error. Into a wider space W has orthonormal rows and keeps all angles. Into a narrower one it has orthonormal columns
    and drops directions; the rotation then maximises the agreement and does not minimise the error.
    """
    u, s, vt = torch.linalg.svd(m.xy, full_matrices=False)
    size = (u * (m.xx @ u)).sum()
    weight = (s.sum() / size.clamp(min=torch.finfo(size.dtype).tiny)) * (u @ vt)  # a constant source has size zero
    return weight, m.mean_y - m.mean_x @ weight


def low_rank(m: Moments, rank: int, penalty: float) -> Affine:
    """Return the best map whose matrix has this rank: reduced-rank regression (Izenman 1975).

    It is the ridge solution, projected on the target directions in which its predictions vary most.

    Raises:
        ValueError: for a rank below one or above the smaller width.
    """
    widest = min(m.xy.shape)
    if not 1 <= rank <= widest:
        raise ValueError(f"rank={rank}: choose one from 1 to {widest}, the smaller of the two widths")
    weight, _ = ridge(m, penalty)
    predicted = weight.T @ m.xx @ weight
    _, directions = torch.linalg.eigh(predicted)
    top = directions[:, -rank:]
    weight = weight @ top @ top.T
    return weight, m.mean_y - m.mean_x @ weight
