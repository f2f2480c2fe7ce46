"""Ridge regression from moments that were gathered block by block, against solvers that are given all rows at once."""

import torch
from sklearn.linear_model import Ridge
from torch import Tensor

import interp_transfer as it
from benchmarks.measure import Result, ratio
from benchmarks.pairs import made, moments
from interp_transfer.mapping.closed_form import ridge
from interp_transfer.mapping.row_blocks import BLOCK_ROWS

ROWS, WIDTHS, PENALTY = 22_220, (896, 1536), 1e-3  # a tenth of the texts is held out: 20,000 rows are fitted
FITTED = 30_000


def run() -> list[Result]:
    pairs = made(ROWS, WIDTHS)
    fitted, _ = pairs.split(0.1, 0)
    (_, source, target) = pairs.rows()
    x, y = source[fitted].double(), target[fitted].double()
    standard = (x - x.mean(dim=0)) / x.std(dim=0)
    alpha = PENALTY * (len(x) - 1)  # a share of the mean variance, summed over rows, where every variance is one

    blocks = zip(standard.split(BLOCK_ROWS), y.split(BLOCK_ROWS), strict=True)
    weight, bias = ridge(moments(blocks, WIDTHS), PENALTY)
    by_rows = least_squares(standard, y, alpha)
    sklearn = Ridge(alpha=alpha).fit(standard.numpy(), y.numpy())
    by_sklearn = torch.from_numpy(sklearn.coef_.T)
    mapper = it.fit(pairs, "affine", ridge=PENALTY, progress=False)
    predicted = mapper(source[fitted]).double()
    theirs = torch.from_numpy(sklearn.predict(standard.numpy()))

    intercept = relative(bias, torch.from_numpy(sklearn.intercept_))
    how = f"largest difference over largest value, {len(x):,} rows, {WIDTHS[0]} to {WIDTHS[1]} dimensions, ridge {PENALTY:g}"
    return [
        Result("streaming ridge, difference from torch.linalg.lstsq", relative(weight, by_rows), 1e-5, 1, f"weights, {how}"),
        Result(
            "streaming ridge, difference from scikit-learn's Ridge",
            max(relative(weight, by_sklearn), intercept),
            1e-5,
            1,
            f"weights and bias, {how}",
        ),
        Result(
            'fit(pairs, "affine"), difference from scikit-learn\'s Ridge',
            relative(predicted, theirs),
            1e-5,
            1,
            f"what float32 rows are mapped to, {how}",
        ),
        time_of_fit(),
    ]


def time_of_fit(n: int = 3) -> Result:
    """Against the float64 products that any solution by normal equations needs."""
    pairs = made(FITTED * 10 // 9, WIDTHS)
    fitted, _ = pairs.split(0.1, 0)
    _, x, y = pairs.rows()
    x, y = x[fitted], y[fitted]

    def products() -> tuple[Tensor, Tensor]:
        a, b = x.double(), y.double()
        return a.T @ a, a.T @ b

    value, times = ratio(lambda: it.fit(pairs, "affine", progress=False), products, n)
    return Result(
        f"affine fit, {WIDTHS[0]} to {WIDTHS[1]} dimensions, over its float64 products",
        value,
        3.0,
        n,
        f"{len(x):,} rows; {times}",
    )


def least_squares(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    """The penalty as rows of its own below the centred ones."""
    below = alpha**0.5 * torch.eye(x.shape[1], dtype=x.dtype)
    rows = torch.cat([x - x.mean(dim=0), below])
    values = torch.cat([y - y.mean(dim=0), torch.zeros(len(below), y.shape[1], dtype=y.dtype)])
    return torch.linalg.lstsq(rows, values).solution


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())
