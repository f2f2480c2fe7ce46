"""Moments of blocks are those of all rows at once, wherever the blocks are cut and however large the means are."""

import pytest
import torch

from interp_transfer.mapping.moments import WORK_ROWS, Moments, RunningMoments


def made(rows: int = 500, offset: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 5, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 3.0, 0.1, 1.0]) + offset
    return x, x[:, :3] @ torch.randn(3, 4, generator=generator, dtype=torch.float64) - offset


def moments(x: torch.Tensor, y: torch.Tensor, cuts: tuple[int, ...]) -> Moments:
    running = RunningMoments(x.shape[1], y.shape[1])
    for a, b in zip(x.split(cuts), y.split(cuts), strict=True):
        running.update(a, b)
    return running.result()


def direct(x: torch.Tensor, y: torch.Tensor) -> Moments:
    a, b = x - x.mean(0), y - y.mean(0)
    return Moments(len(x), x.mean(0), y.mean(0), a.T @ a, a.T @ b, b.square().sum(0))


def assert_same(found: Moments, expected: Moments, rtol: float = 1e-10) -> None:
    assert found.rows == expected.rows
    for name in ("mean_x", "mean_y", "xx", "xy", "yy"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("cuts", [(500,), (1,) * 500, (0, 3, 200, 0, 297)])
def test_blocks_give_the_moments_of_all_rows(cuts: tuple[int, ...]) -> None:
    x, y = made()
    assert_same(moments(x, y, cuts), direct(x, y))


def test_large_means_cost_no_digits() -> None:
    x, y = made(offset=1e6)
    exact = direct(*(rows - rows.mean(0) for rows in (x, y)))
    found = moments(x, y, (50,) * 10)
    torch.testing.assert_close(found.xx, exact.xx, rtol=1e-8, atol=1e-6)
    torch.testing.assert_close(found.xy, exact.xy, rtol=1e-8, atol=1e-6)


def test_a_block_that_is_larger_than_the_workspace_is_taken_in_pieces() -> None:
    x, y = made(2 * WORK_ROWS + 7, offset=1e3)
    assert_same(moments(x, y, (len(x),)), direct(x, y))


def test_what_was_handed_out_does_not_change_with_further_rows() -> None:
    x, y = made()
    running = RunningMoments(5, 4)
    running.update(x[:300], y[:300])
    found = running.result()
    running.update(x[300:], y[300:])
    assert_same(found, direct(x[:300], y[:300]))
    assert_same(running.result(), direct(x, y))


def test_scaled_moments_are_those_of_scaled_rows() -> None:
    x, y = made()
    shift, scale, low, unit = x.mean(0) + 1, x.std(0), y.mean(0) - 2, torch.tensor(3.0, dtype=torch.float64)
    assert_same(direct(x, y).scaled(shift, scale, low, unit), direct((x - shift) / scale, (y - low) / unit))
    torch.testing.assert_close(direct(x, y).spread_x(), x.std(0))


def test_the_error_of_a_map_needs_no_rows() -> None:
    x, y = made()
    weight, bias = torch.randn(5, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    expected = (x @ weight + bias - y).square().sum(1).mean()
    assert direct(x, y).squared_error(weight, bias) == pytest.approx(float(expected), rel=1e-10)


def test_no_error_of_an_exact_map_is_negative():
    """Rounding makes some of these sums negative."""
    exact = torch.eye(16, dtype=torch.float64), torch.zeros(16, dtype=torch.float64)
    for seed in range(6):
        drawn = torch.randn(216, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        x = drawn[:200] @ drawn[200:] + 3
        assert 0 <= direct(x, x.clone()).squared_error(*exact) < 1e-12
