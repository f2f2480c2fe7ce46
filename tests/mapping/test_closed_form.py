"""Closed-form maps against planted ones, against scikit-learn and scipy, and against what they must never be worse than."""

import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import LinearRegression, Ridge

from interp_transfer.mapping.closed_form import low_rank, procrustes, ridge
from interp_transfer.mapping.moments import Moments, RunningMoments


def rows(d_source: int, d_target: int, *, noise: float = 0.1, n: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d_source, generator=generator, dtype=torch.float64) + 2
    matrix = torch.randn(d_source, d_target, generator=generator, dtype=torch.float64)
    return x, x @ matrix + 1 + noise * torch.randn(n, d_target, generator=generator, dtype=torch.float64)


def of(x: torch.Tensor, y: torch.Tensor, block: int = 97) -> Moments:
    running = RunningMoments(x.shape[1], y.shape[1])
    for a, b in zip(x.split(block), y.split(block), strict=True):
        running.update(a, b)
    return running.result()


def error(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> float:
    return float((x @ weight + bias - y).square().sum(1).mean())


def test_ridge_is_that_of_scikit_learn() -> None:
    x, y = rows(6, 4)
    m = of(x, y)
    weight, bias = ridge(m, 0.3)
    theirs = Ridge(alpha=0.3 * float(m.xx.diagonal().mean())).fit(x.numpy(), y.numpy())
    torch.testing.assert_close(weight, torch.from_numpy(theirs.coef_.T), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(bias, torch.from_numpy(theirs.intercept_), rtol=1e-8, atol=1e-8)


def test_no_penalty_is_least_squares_even_where_a_dimension_is_constant() -> None:
    x, y = rows(6, 4)
    x[:, 2] = 5.0
    weight, bias = ridge(of(x, y), 0.0)
    theirs = LinearRegression().fit(x.numpy(), y.numpy())
    guess = torch.from_numpy(theirs.predict(x.numpy()))
    torch.testing.assert_close(x @ weight + bias, guess, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_ridge_streamed_over_many_float32_rows_is_that_of_solvers_that_see_them_all(penalty: float) -> None:
    x, y = (side.float() for side in rows(48, 32, n=20_000))
    m = of(x, y, 1777)
    weight, bias = ridge(m, penalty)
    x, y = x.double(), y.double()
    a, b = x - x.mean(0), y - y.mean(0)
    alpha = penalty * float(a.square().sum(0).mean())
    below = alpha**0.5 * torch.eye(48, dtype=torch.float64)
    by_rows = torch.linalg.lstsq(torch.cat([a, below]), torch.cat([b, torch.zeros(48, 32, dtype=torch.float64)])).solution
    torch.testing.assert_close(weight, by_rows, rtol=1e-9, atol=1e-9)
    theirs = Ridge(alpha=alpha).fit(x.numpy(), y.numpy())
    torch.testing.assert_close(weight, torch.from_numpy(theirs.coef_.T), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(bias, torch.from_numpy(theirs.intercept_), rtol=1e-9, atol=1e-9)


def test_procrustes_is_that_of_scipy() -> None:
    x, y = rows(5, 5)
    weight, _ = procrustes(of(x, y))
    a, b = x - x.mean(0), y - y.mean(0)
    rotation, size = orthogonal_procrustes(a.numpy(), b.numpy())
    torch.testing.assert_close(weight, torch.from_numpy(rotation) * size / float(a.square().sum()), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("d_source", "d_target"), [(3, 7), (7, 3), (4, 4)])
def test_procrustes_recovers_a_planted_rotation_with_its_scale_and_is_orthogonal(d_source: int, d_target: int) -> None:
    x, _ = rows(d_source, d_target)
    full = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))).Q
    planted = full[:d_source, :d_target] if d_source <= d_target else full[:, :d_target][:d_source]
    planted = torch.linalg.qr(planted.T).Q.T if d_source <= d_target else torch.linalg.qr(planted).Q
    weight, bias = procrustes(of(x, 2.5 * x @ planted + 1))
    product = weight @ weight.T if d_source <= d_target else weight.T @ weight
    eye = torch.eye(min(d_source, d_target), dtype=torch.float64)
    torch.testing.assert_close(product, product[0, 0] * eye, rtol=1e-8, atol=1e-8)
    if d_source <= d_target:
        torch.testing.assert_close(weight, 2.5 * planted, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(bias, torch.ones(d_target, dtype=torch.float64), rtol=1e-7, atol=1e-7)


def test_the_scale_of_procrustes_is_the_best_one() -> None:
    for d_source, d_target in ((6, 3), (3, 6)):
        x, y = rows(d_source, d_target)
        m = of(x, y)
        weight, _ = procrustes(m)
        errors = [m.squared_error(weight * s, m.mean_y - m.mean_x @ (weight * s)) for s in (0.99, 1.0, 1.01)]
        assert min(errors) == errors[1]


def test_low_rank_has_its_rank_recovers_a_planted_one_and_is_best_at_full_rank() -> None:
    x, y = rows(8, 6)
    m = of(x, y)
    errors = []
    for rank in range(1, 7):
        weight, bias = low_rank(m, rank, 0.0)
        assert int(torch.linalg.matrix_rank(weight)) == rank
        errors.append(error(x, y, weight, bias))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == pytest.approx(error(x, y, *ridge(m, 0.0)), rel=1e-8)
    planted = torch.randn(8, 2, dtype=torch.float64) @ torch.randn(2, 6, dtype=torch.float64)
    weight, _ = low_rank(of(x, x @ planted), 2, 0.0)
    torch.testing.assert_close(weight, planted, rtol=1e-6, atol=1e-6)


def test_low_rank_beats_cutting_the_matrix() -> None:
    """The singular vectors of W know nothing of the rows; those of its predictions do."""
    x, y = rows(8, 6)
    x = x * torch.tensor([9.0, 1, 1, 1, 1, 1, 1, 0.1], dtype=torch.float64)
    m = of(x, y)
    full, _ = ridge(m, 0.0)
    u, s, vt = torch.linalg.svd(full, full_matrices=False)
    cut = (u[:, :2] * s[:2]) @ vt[:2]
    assert error(x, y, *low_rank(m, 2, 0.0)) < error(x, y, cut, m.mean_y - m.mean_x @ cut)


@pytest.mark.parametrize("rank", [0, 5])
def test_ranks_that_cannot_be_are_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank={rank}: choose one from 1 to 4"):
        low_rank(of(*rows(6, 4)), rank, 0.0)
