"""Intervals: equal to independent computations, and with the coverage that they claim."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm, sem, t

from interp_transfer.stats import (
    Estimate,
    auroc_interval,
    crossed_mean,
    crossed_rate,
    mean_interval,
    rate,
    ratio_interval,
    share_to_dict,
)


def test_a_ratio_over_ones_is_a_mean() -> None:
    values = [0.2, 0.9, 0.4, 0.7, 0.1]
    ratio, mean = ratio_interval(values, [1.0] * 5), mean_interval(values)
    assert (ratio.value, ratio.low, ratio.high, ratio.n) == pytest.approx((mean.value, mean.low, mean.high, mean.n))


def test_the_interval_of_a_mean_is_students() -> None:
    values = [0.2, 0.9, 0.4, 0.7, 0.1]
    low, high = t.interval(0.95, len(values) - 1, np.mean(values), sem(values))
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)


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


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (3, 7), (113, 200), (1, 200)])
def test_rate_has_the_exact_interval(hits: int, n: int) -> None:
    exact = binomtest(hits, n).proportion_ci(0.95, method="exact")
    found = rate([True] * hits + [False] * (n - hits))
    assert (found.value, found.n) == (hits / n, n)
    assert found.low == pytest.approx(exact.low, abs=1e-9) and found.high == pytest.approx(exact.high, abs=1e-9)
    assert share_to_dict(found) == {"rate": found.value, "low": found.low, "high": found.high, "n": n}


def test_rate_of_nothing() -> None:
    with pytest.raises(ValueError, match="no outcomes"):
        rate([])
    for nothing in ([], [[]], [[True], [True, False]]):
        with pytest.raises(ValueError, match="at least one draw"):
            crossed_rate(nothing)


def test_crossed_rate_counts_draws_and_prompts() -> None:
    outcomes = [[k % 2 == 0 for k in range(40)]] * 5
    by_prompt = crossed_rate(outcomes)  # the draws all agree, so that they are worth one
    assert by_prompt.value == 0.5 and by_prompt.n == 200
    alone = rate(outcomes[0])
    assert by_prompt.high - by_prompt.low == pytest.approx(alone.high - alone.low, rel=0.06)
    by_draw = crossed_rate([[k % 2 == 0] * 200 for k in range(10)])  # the prompts all agree
    few = rate([k % 2 == 0 for k in range(10)])
    assert by_draw.high - by_draw.low == pytest.approx(few.high - few.low, rel=0.2)
    assert crossed_rate([[False] * 200] * 20).high == pytest.approx(rate([False] * 20).high)
    once = crossed_rate([[True, False, True]])
    assert (once.value, once.n) == (2 / 3, 3) and once.high - once.low > 0.95, "one draw says little about others"
    assert crossed_rate([[False] * 200]).high == pytest.approx(rate([False]).high)
    assert crossed_rate([[True], [False], [True]]) == rate([True, False, True])


def test_crossed_mean_of_one_draw_is_over_prompts() -> None:
    assert crossed_mean([[1.0, 2.0, 4.0]]) == mean_interval([1.0, 2.0, 4.0])
    assert crossed_mean([[2.0, 2.0], [2.0, 2.0]]) == Estimate(2.0, 2.0, 2.0, 4)


def test_a_share_of_one_mixed_draw_is_one_trial() -> None:
    assert crossed_rate([[True] + [False] * 15]).high > 0.95, "prompts do not make up for draws"


def test_a_perfect_area_is_not_certain() -> None:
    low, high = auroc_interval(1.0, 20, 20)
    assert (0.8 < low < 0.95, high) == (True, 1.0)
    assert auroc_interval(0.0, 20, 20) == pytest.approx((0.0, 1 - low))
    lows = [auroc_interval(1.0, n, n)[0] for n in (5, 20, 100, 1000)]
    assert lows == sorted(lows)
    assert lows[-1] < 1
    for bad in ((1.1, 5, 5), (0.5, 0, 5)):
        with pytest.raises(ValueError, match="an area of"):
            auroc_interval(*bad)


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    n, m, shift = 30, 40, 1.2
    true = float(norm.cdf(shift / 2**0.5))
    hits = []
    for _ in range(600):
        one, other = generator.normal(shift, 1, n), generator.normal(0, 1, m)
        area = float((one[:, None] > other[None]).mean())
        low, high = auroc_interval(area, n, m)
        hits.append(low <= true <= high)
    assert 0.93 < np.mean(hits) <= 0.985


def test_large_samples_have_the_usual_interval() -> None:
    area, n = 0.8, 5000
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    half = 1.96 * ((area * (1 - area) + (n - 1) * (q1 + q2 - 2 * area**2)) / n**2) ** 0.5
    assert auroc_interval(area, n, n) == pytest.approx((area - half, area + half), abs=5e-4)


def test_an_estimate_is_formatted_and_tabulated() -> None:
    found = Estimate(0.25, 0.125, 0.5, 8)
    assert (str(found), f"{found:.1f}") == ("0.250 [0.125, 0.500] n=8", "0.2 [0.1, 0.5] n=8")
    assert found.columns("share") == {"share": 0.25, "share_low": 0.125, "share_high": 0.5}
    assert found.to_dict() == {"value": 0.25, "low": 0.125, "high": 0.5, "n": 8}
