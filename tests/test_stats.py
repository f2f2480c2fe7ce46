"""Intervals of means and of ratios of sums: equal to what they are in simple cases, and true as often as they say."""

import numpy as np
import pytest

from interp_transfer.stats import mean_interval, ratio_interval


def test_a_ratio_over_ones_is_a_mean() -> None:
    values = [0.2, 0.9, 0.4, 0.7, 0.1]
    ratio, mean = ratio_interval(values, [1.0] * 5), mean_interval(values)
    assert (ratio.value, ratio.low, ratio.high, ratio.n) == pytest.approx((mean.value, mean.low, mean.high, mean.n))


def test_a_ratio_that_is_the_same_in_every_text_is_sure() -> None:
    found = ratio_interval([0.3, 0.6, 1.5], [1.0, 2.0, 5.0])
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0.3, 0.3))


def test_the_interval_holds_the_ratio_as_often_as_it_says() -> None:
    """Texts of different lengths whose tokens are alike: rows taken for independent would hold it in far fewer."""
    draw, held = np.random.default_rng(0), 0
    for _ in range(1000):
        length = draw.integers(5, 40, size=60)
        mean_of_text = draw.normal(0.4, 0.1, size=60)
        found = ratio_interval((length * mean_of_text).tolist(), length.astype(float).tolist())
        held += found.low <= 0.4 <= found.high
    assert 0.93 <= held / 1000 <= 0.97


def test_one_text_is_its_own_interval_and_bad_input_is_refused() -> None:
    one = ratio_interval([1.0], [4.0])
    assert (one.value, one.low, one.high, one.n) == (0.25, 0.25, 0.25, 1)
    with pytest.raises(ValueError, match="as many of each"):
        ratio_interval([1.0], [])
    with pytest.raises(ValueError, match="above zero"):
        ratio_interval([1.0, 2.0], [0.0, 0.0])
