"""Every type of interval holds the truth about as often as it says, in simulations with a known truth."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit

from interp_transfer.stats import crossed_mean, crossed_rate

REPEATS = 1000


def logistic(mean: float, of_draws: float, of_prompts: float) -> Callable[[np.random.Generator], tuple[np.ndarray, float]]:
    """Outcomes whose log-odds vary between draws and between prompts."""
    truth = float(expit(mean + np.hypot(of_draws, of_prompts) * np.random.default_rng(1).normal(size=1_000_000)).mean())

    def sample(rng: np.random.Generator) -> tuple[np.ndarray, float]:
        odds = mean + of_draws * rng.normal(size=(20, 1)) + of_prompts * rng.normal(size=50)
        return rng.random((20, 50)) < expit(odds), truth

    return sample


def few_work(share: float, success: float) -> Callable[[np.random.Generator], tuple[np.ndarray, float]]:
    """Outcomes of directions of which a share works and the others do not at all."""

    def sample(rng: np.random.Generator) -> tuple[np.ndarray, float]:
        return rng.random((20, 50)) < np.where(rng.random((20, 1)) < share, success, 0.0), share * success

    return sample


def coverage(interval: Callable, sample: Callable) -> float:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(REPEATS):
        table, truth = sample(rng)
        found = interval(table.tolist())
        held += found.low <= truth <= found.high
    return held / REPEATS


@pytest.mark.parametrize(
    "sample",
    [logistic(-1, 1, 1), logistic(0, 3, 1), logistic(-2, 3, 1), logistic(0, 1, 2), few_work(0.1, 0.9), few_work(0.5, 0.97)],
    ids=["alike", "directions differ", "low", "prompts differ", "one in ten works", "half work"],
)
def test_shares_over_directions_and_prompts(sample: Callable) -> None:
    assert coverage(crossed_rate, sample) >= 0.93


def test_directions_that_hardly_work_are_covered_less_often() -> None:
    """A mean of 8% that is due to a few directions: most draws of twenty hold too few of them."""
    assert 0.88 <= coverage(crossed_rate, logistic(-4, 2, 1)) <= 0.97


@pytest.mark.parametrize(("of_draws", "of_prompts"), [(1.0, 1.0), (3.0, 0.5), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_means_over_directions_and_prompts(of_draws: float, of_prompts: float) -> None:
    def sample(rng: np.random.Generator) -> tuple[np.ndarray, float]:
        return of_draws * rng.normal(size=(20, 1)) + of_prompts * rng.normal(size=50) + rng.normal(size=(20, 50)), 0.0

    assert 0.93 <= coverage(crossed_mean, sample) <= 0.97
