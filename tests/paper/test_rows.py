"""Numbers of a reproduction: kept in JSON and read back, told in few digits."""

import json
import math

import pytest

from interp_transfer.paper.rows import estimate_of, from_json, grade, mean_and_range, three_decimals, to_json, value_of
from interp_transfer.stats import Estimate, mean_interval


def test_a_row_survives_json() -> None:
    row = {"who": "moved", "success": Estimate(0.5, 0.25, 0.75, 200), "KL": 0.125, "none": None, "layer": 3}
    assert from_json(json.loads(json.dumps(to_json(row)))) == row


def test_a_number_that_is_none_becomes_null() -> None:
    assert to_json({"KL": math.nan, "ratio": math.inf}) == {"KL": None, "ratio": None}


def test_the_interval_of_a_mean_is_students() -> None:
    scipy = pytest.importorskip("scipy.stats")
    values = [0.1, 0.4, 0.35, 0.9, 0.2]
    found = mean_interval(values)
    expected = scipy.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.value, found.n) == (pytest.approx(0.39), 5)


def test_the_mean_of_one_value_is_that_value_and_of_none_an_error() -> None:
    assert mean_interval([2.0]) == Estimate(2.0, 2.0, 2.0, 1)
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


@pytest.mark.parametrize(
    ("number", "told"), [(0.5, "0.500"), (0.0, "0.000"), (0.00012, "1.2e-04"), (123.4, "123"), (math.nan, "-")]
)
def test_short_numbers(number: float, told: str) -> None:
    assert three_decimals(number) == told


def test_seeds_are_told_as_mean_and_range() -> None:
    assert mean_and_range([0.2, 0.4, 0.9]) == "0.500 (0.200 to 0.900)"


def test_columns_without_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="'who'"):
        value_of({"who": "moved"}, "who")
    with pytest.raises(ValueError, match="'KL'"):
        estimate_of({"KL": 0.5}, "KL")


@pytest.mark.parametrize(("good", "word"), [(0, "no"), (1, "in part"), (3, "yes")])
def test_grades(good: int, word: str) -> None:
    assert grade(good, 3) == word
