"""Estimates with 95% intervals: shares, means, ratios, areas under the ROC curve, and differences of paired shares.

That two conditions are equivalent is not shown by the absence of a significant difference, which few prompts never show, but by
an interval of the difference within a margin that was fixed before (two one-sided tests, Schuirmann 1987). Intervals of a
difference between paired shares are Newcombe's (1998, "Improved confidence intervals for the difference between binomial
proportions based on paired data", method 10). A bootstrap over prompts would have an interval of no width where no prompt
differs, which is common for shares near 0 and 1.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, binomtest, norm, t

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A share, a mean or a ratio with its 95% interval.

    Attributes:
        value: the number.
        low: lower end of the interval.
        high: upper end.
        n: number of prompts, texts or trials; of repeated trials of the same prompts, all of them.
    """

    value: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        """Format the three numbers by ``spec``, such as ".2f"."""
        value, low, high = (format(number, spec or ".3f") for number in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}] n={self.n}"

    def __str__(self) -> str:
        return format(self, "")

    def to_dict(self) -> dict[str, float | int]:
        """Return the fields as JSON stores them."""
        return asdict(self)

    def columns(self, name: str) -> dict[str, float]:
        """Return the columns of a table: ``name``, ``name_low`` and ``name_high``."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def share_to_dict(share: Estimate) -> dict[str, float | int]:
    """Return a share as result.json stores it, its value under "rate"."""
    return {"rate": share.value, "low": share.low, "high": share.high, "n": share.n}


def mean_interval(values: Iterable[float]) -> Estimate:
    """Return the mean of independent values with Student's 95% interval.

    Of fewer than two values, and of equal values, the interval is the value.

    Raises:
        ValueError: for no values.
    """
    numbers = [float(v) for v in values]
    if not numbers:
        raise ValueError("the mean of nothing: give at least one value")
    n, mean = len(numbers), math.fsum(numbers) / len(numbers)
    return _student(mean, [v - mean for v in numbers], n)


def ratio_interval(over: Sequence[float], under: Sequence[float]) -> Estimate:
    """Return the ratio of two sums over independent texts, with a 95% interval.

    A mean over tokens is such a ratio, because the tokens of a text are not independent of each other: the sum over a text's
    tokens, over their number. The interval is Student's, of the linearised ratio (Cochran 1977, Sampling Techniques,
    chapter 6). Of fewer than two texts it is the value.

    Args:
        over: what each text adds to the numerator.
        under: what it adds to the denominator.

    Raises:
        ValueError: for no texts, lists of different lengths, or a denominator that is not above zero.
    """
    if not over or len(over) != len(under):
        raise ValueError(f"{len(over)} texts above and {len(under)} below: give as many of each, at least one")
    below = math.fsum(under)
    if not below > 0:
        raise ValueError(f"the sum below is {below:.4g}: give one above zero")
    ratio = math.fsum(over) / below
    return _student(ratio, [a - ratio * b for a, b in zip(over, under, strict=True)], below)


def student(freedom: float | int) -> float:
    """Return how many standard errors a 95% interval reaches to each side, by Student's distribution."""
    return float(t.ppf((1 + CONFIDENCE) / 2, freedom))


def _student(value: float, residuals: Sequence[float], divisor: float | int) -> Estimate:
    """A sum over texts that is divided by ``divisor``, from the residual of each text."""
    n = len(residuals)
    if n < 2:
        return Estimate(value, value, value, n)
    spread = math.sqrt(math.fsum(r**2 for r in residuals) / (n - 1))
    half = student(n - 1) * spread * math.sqrt(n) / divisor
    return Estimate(value, value - half, value + half, n)


def auroc_interval(area: float, n: int, m: int) -> tuple[float, float]:
    """Return the 95% interval of an area under the ROC curve (Newcombe 2006, method 5).

    It holds the areas from which the observed one is no further than 1.96 of their own standard errors (Hanley and McNeil
    1982). A bootstrap, or the standard error of the observed area, gives an area of 1 an interval of no width; this does not.

    Args:
        area: 0 to 1.
        n: number of observations of one class.
        m: of the other.

    Raises:
        ValueError: for an area outside 0 to 1, and for no observations.
    """
    if not 0 <= area <= 1 or n < 1 or m < 1:
        raise ValueError(f"an area of {area} from {n} and {m} observations: give one from 0 to 1, and some of either side")
    if area < 0.5:  # the mirror image, so that one end is always inside
        low, high = auroc_interval(1 - area, n, m)
        return 1 - high, 1 - low
    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    mean = (n + m) / 2 - 1

    def too_far(true: float) -> float:
        spread = 1 + mean * (1 - true) / (2 - true) + mean * true / (1 + true)
        return abs(area - true) - z * (true * (1 - true) * spread / (n * m)) ** 0.5

    # At an area of 1 the standard error is 0, so 1 is a root as well, but not the lower end.
    low = float(brentq(too_far, 0.0, min(area, 1 - 1e-12)))  # type: ignore[arg-type]
    return low, 1.0 if area == 1 else float(brentq(too_far, area, 1.0))  # type: ignore[arg-type]


def rate(outcomes: Sequence[bool]) -> Estimate:
    """Return the share of true outcomes with its exact (Clopper-Pearson) interval.

    Raises:
        ValueError: when there are no outcomes.
    """
    if not len(outcomes):
        raise ValueError("a rate of no outcomes: give at least one")
    hits = sum(map(bool, outcomes))
    return Estimate(hits / len(outcomes), *_clopper_pearson(hits, len(outcomes)), len(outcomes))


def crossed_rate(outcomes: Sequence[Sequence[bool]]) -> Estimate:
    """Return the share of true outcomes over random draws and prompts, with an interval that counts both.

    Each draw, such as a random direction, was tried on the same prompts. Trials of one draw resemble each other, and so do
    trials of one prompt, so the interval is the exact one of an effective sample size (Korn and Graubard 1998): the number of
    independent trials that would have the variance of `crossed_mean`, corrected for its degrees of freedom. If all outcomes are
    equal, it is the number of draws or of prompts, whichever is smaller. A single draw counts as one trial, because nothing is
    known of how draws differ. A bootstrap over draws and prompts covers 85% instead of 95% where few of twenty directions work;
    this covers 91 to 99% in the same simulations (``tests/test_coverage.py``).

    Args:
        outcomes: for each draw, the outcomes of the prompts.

    Raises:
        ValueError: for no outcomes, or draws with different numbers of prompts.
    """
    table = _table(outcomes)
    draws, prompts = table.shape
    if prompts == 1:
        return rate(table.astype(bool).ravel().tolist())
    share = float(table.mean())
    variance, freedom = _crossed_variance(table)
    effective = float(min(draws, prompts))
    if variance > 0 and draws > 1:
        correction = (student(table.size) / student(freedom)) ** 2
        effective = min(max(share * (1 - share) / variance * correction, 1.0), table.size)
    return Estimate(share, *_clopper_pearson(share * effective, effective), table.size)


def crossed_mean(values: Sequence[Sequence[float | int]]) -> Estimate:
    """Return the mean over random draws and prompts, with Student's 95% interval that counts both as random.

    The variance is that of the two-way layout without interaction terms, the degrees of freedom are Satterthwaite's (1946).
    Of a single draw it is `mean_interval` over prompts.

    Args:
        values: for each draw, the values of the prompts.

    Raises:
        ValueError: for no values, or draws with different numbers of prompts.
    """
    table = _table(values)
    if min(table.shape) == 1:
        return mean_interval(table.ravel().tolist())
    mean = float(table.mean())
    variance, freedom = _crossed_variance(table)
    half = student(freedom) * variance**0.5
    return Estimate(mean, mean - half, mean + half, table.size)


def _table(values: Sequence[Sequence[float | int]]) -> np.ndarray:
    if not len(values) or not len(values[0]) or len({len(row) for row in values}) > 1:
        raise ValueError("give at least one draw with one prompt, and as many prompts for every draw")
    return np.array(values, dtype=np.float64)


def _crossed_variance(table: np.ndarray) -> tuple[float, float]:
    """Variance of the mean of a (draw, prompt) table with both as random effects, and its degrees of freedom.

    It is at least that of draws alone and of prompts alone.
    """
    draws, prompts = table.shape
    mean, by_draw, by_prompt = table.mean(), table.mean(axis=1), table.mean(axis=0)
    squares = [float(np.square(by_draw - mean).sum() * prompts), float(np.square(by_prompt - mean).sum() * draws)]
    squares.append(float(np.square(table - by_draw[:, None] - by_prompt + mean).sum()))
    freedoms = [max(draws - 1, 1), max(prompts - 1, 1), max((draws - 1) * (prompts - 1), 1)]
    of_draws, of_prompts, rest = (square / freedom for square, freedom in zip(squares, freedoms, strict=True))
    total = max(of_draws + of_prompts - rest, of_draws, of_prompts)
    spread = sum(s**2 / f for s, f in zip((of_draws, of_prompts, rest), freedoms, strict=True))
    return total / table.size, max(total**2 / spread, 1.0) if spread > 0 else float(freedoms[2])


def _clopper_pearson(hits: float | int, n: float | int) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if hits <= 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits >= n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high


MARGIN = 0.05
"""Difference between two shares up to which the conditions count as equivalent."""


@dataclass(frozen=True)
class Difference:
    """The share under one condition minus that under another, on the same prompts.

    Attributes:
        difference: of the shares, -1 to 1.
        low: lower end of its 95% interval.
        high: upper end.
        n: number of prompts.
        margin: difference up to which the conditions count as equivalent.
        equivalent: True if the 90% interval lies within the margin (each one-sided test then has a level of 5%); False if the
            95% interval lies outside; None if n does not decide.
    """

    difference: float
    low: float
    high: float
    n: int
    margin: float
    equivalent: bool | None

    def __str__(self) -> str:
        words = {True: "equivalent", False: "not equivalent", None: "not decided at this n"}[self.equivalent]
        return f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}] n={self.n}: {words} within {self.margin:g}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON stores them."""
        return asdict(self)


def paired_difference(one: Sequence[bool], other: Sequence[bool], margin: float | int = MARGIN) -> Difference:
    """Return the share of true outcomes of one condition minus that of another, and whether the two are equivalent.

    Args:
        one: outcomes by prompt.
        other: outcomes of the same prompts in the same order.
        margin: difference up to which the conditions count as equivalent, between 0 and 1.

    Raises:
        ValueError: for sequences of different lengths, no outcomes, or a margin out of range.
    """
    if len(one) != len(other) or not len(one):
        raise ValueError(f"{len(one)} and {len(other)} outcomes: give one of each prompt under both conditions, at least one")
    if not 0 < margin < 1:
        raise ValueError(f"margin={margin}: give a share between 0 and 1, such as 0.05")
    pairs = [(bool(x), bool(y)) for x, y in zip(one, other, strict=True)]
    a, b, c, d = (pairs.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False)))
    together = a * d - b * c
    if together > 0:  # Newcombe's continuity correction
        together = max(together - len(pairs) / 2, 0)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    return _newcombe(one, other, margin, together / margins**0.5 if margins else 0.0)


def unpaired_difference(one: Sequence[bool], other: Sequence[bool], margin: float | int = MARGIN) -> Difference:
    """Return the share of true outcomes of one minus that of another on other prompts; n is the smaller number of prompts.

    The interval is Newcombe's (1998, "Interval estimation for the difference between independent proportions", method 10).
    """
    return _newcombe(one, other, margin, 0.0)


def _newcombe(one: Sequence[bool], other: Sequence[bool], margin: float | int, phi: float) -> Difference:
    """The difference of two shares whose outcomes have the correlation ``phi``: Wilson's intervals, squared and added."""
    shares = sum(map(bool, one)) / len(one), sum(map(bool, other)) / len(other)
    between = shares[0] - shares[1]

    def interval(confidence: float) -> tuple[float, float]:
        (low_1, high_1), (low_2, high_2) = (
            binomtest(sum(map(bool, side)), len(side)).proportion_ci(confidence, method="wilson") for side in (one, other)
        )
        below, above = (shares[0] - low_1, high_2 - shares[1]), (high_1 - shares[0], shares[1] - low_2)
        down, up = (max(x**2 - 2 * phi * x * y + y**2, 0.0) ** 0.5 for x, y in (below, above))
        return max(-1.0, between - down), min(1.0, between + up)

    (low, high), inner = interval(CONFIDENCE), interval(2 * CONFIDENCE - 1)
    within = -margin < inner[0] and inner[1] < margin
    outside = low > margin or high < -margin
    equivalent = True if within else False if outside else None
    return Difference(between, low, high, min(len(one), len(other)), float(margin), equivalent)
