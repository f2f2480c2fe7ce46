"""Figures with their intervals: shares, means, ratios, and differences between two conditions on the same prompts.

"The moved vector is as good as the native one" is not the absence of a difference, which few prompts always show, but a small
difference that is shown: its interval lies within a margin that was named before (two one-sided tests, Schuirmann 1987).
Intervals of a difference between paired shares are Newcombe's (1998, "Improved confidence intervals for the difference between
binomial proportions based on paired data", method 10). A bootstrap over prompts has an interval of no width where no prompt
differs, and shares near 0 and 1, where that happens, are the rule here.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import beta, norm, t

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
    """The mean of independent values with Student's 95% interval.

    Of fewer than two values, and of values that are all the same, the interval is the value.

    Raises:
        ValueError: for no values.
    """
    given = [float(v) for v in values]
    if not given:
        raise ValueError("the mean of nothing: give at least one value")
    n, middle = len(given), math.fsum(given) / len(given)
    if n < 2:
        return Estimate(middle, middle, middle, n)
    spread = math.sqrt(math.fsum((v - middle) ** 2 for v in given) / (n - 1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * spread / math.sqrt(n)
    return Estimate(middle, middle - half, middle + half, n)


def ratio_interval(over: Sequence[float], under: Sequence[float]) -> Estimate:
    """One sum over another, of independent texts that each add to both, with a 95% interval.

    A mean over tokens is such a ratio, because tokens of one text are not independent of each other: what a text's tokens sum
    to, over how many it has. The interval is Student's, of the linearised ratio (Cochran 1977, Sampling Techniques, chapter 6).
    Of fewer than two texts it is the value.

    Args:
        over: what each text adds to the sum above.
        under: what it adds to the sum below.

    Raises:
        ValueError: for no texts, not as many of each, or a sum below that is not above zero.
    """
    if not over or len(over) != len(under):
        raise ValueError(f"{len(over)} texts above and {len(under)} below: give as many of each, at least one")
    below = math.fsum(under)
    if not below > 0:
        raise ValueError(f"the sum below is {below:.4g}: give one above zero")
    n, ratio = len(over), math.fsum(over) / below
    if n < 2:
        return Estimate(ratio, ratio, ratio, n)
    spread = math.sqrt(math.fsum((a - ratio * b) ** 2 for a, b in zip(over, under, strict=True)) / (n - 1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * spread * math.sqrt(n) / below
    return Estimate(ratio, ratio - half, ratio + half, n)


def rate(outcomes: Sequence[bool]) -> Estimate:
    """Share of true outcomes with its Clopper-Pearson interval.

    Raises:
        ValueError: when there are no outcomes.
    """
    if not len(outcomes):
        raise ValueError("a rate of no outcomes: give at least one")
    hits = sum(map(bool, outcomes))
    return Estimate(hits / len(outcomes), *_clopper_pearson(hits, len(outcomes)), len(outcomes))


def clustered_rate(outcomes: Sequence[Sequence[bool]]) -> Estimate:
    """Share of true outcomes when each prompt was tried several times.

    Trials of one prompt resemble each other, so the interval is that of an effective sample size: the number of trials that
    would have the observed variance between prompts (Korn and Graubard 1998). It lies between the number of prompts and the
    number of trials, and is the number of prompts when they do not vary at all.

    Args:
        outcomes: for each prompt, the outcomes of its trials.
    """
    if not len(outcomes) or not len(outcomes[0]):
        raise ValueError("a rate of no outcomes: give at least one prompt with one trial")
    by_prompt = np.array([[float(x) for x in trials] for trials in outcomes])
    prompts, trials = by_prompt.shape
    share = float(by_prompt.mean())
    variance = float(by_prompt.mean(axis=1).var(ddof=1)) / prompts if prompts > 1 else 0.0
    effective = prompts if variance == 0 else share * (1 - share) / variance
    effective = min(max(effective, prompts), prompts * trials)
    return Estimate(share, *_clopper_pearson(share * effective, effective), prompts * trials)


def _clopper_pearson(hits: float | int, n: float | int) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if hits <= 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits >= n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high


MARGIN = 0.05
"""Of a share: what two conditions may differ by and still be called as good as each other."""


@dataclass(frozen=True)
class Difference:
    """A share under one condition less that under another, on the same prompts.

    Attributes:
        difference: of the shares, -1 to 1.
        low: lower end of its 95% interval.
        high: upper end.
        n: prompts.
        margin: within which the two count as equivalent.
        equivalent: True if the difference is shown to be within the margin (its 90% interval is, so either one-sided test has
            a level of 5%); False if it is shown to be outside (its 95% interval is); None where n does not decide.
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
        """As JSON holds it."""
        return asdict(self)


def paired_difference(one: Sequence[bool], other: Sequence[bool], margin: float | int = MARGIN) -> Difference:
    """Share of true outcomes of one condition less that of another, with its interval and a word on equivalence.

    Args:
        one: outcomes by prompt.
        other: outcomes of the same prompts in the same order.
        margin: within which the two count as equivalent, above 0.

    Raises:
        ValueError: for sequences of different length, none, or a margin that is none.
    """
    if len(one) != len(other) or not len(one):
        raise ValueError(f"{len(one)} and {len(other)} outcomes: give one of each prompt under both conditions, at least one")
    if not 0 < margin < 1:
        raise ValueError(f"margin={margin}: give a share between 0 and 1, such as 0.05")
    pairs = [(bool(a), bool(b)) for a, b in zip(one, other, strict=True)]
    counts = tuple(pairs.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False)))
    low, high = _newcombe(counts, CONFIDENCE)
    inner = _newcombe(counts, 2 * CONFIDENCE - 1)
    within = -margin < inner[0] and inner[1] < margin
    outside = low > margin or high < -margin
    share = (counts[1] - counts[2]) / len(pairs)
    return Difference(share, low, high, len(pairs), float(margin), True if within else False if outside else None)


def _newcombe(counts: tuple[int, ...], confidence: float) -> tuple[float, float]:
    """Interval of (a + b) / n - (a + c) / n; counts are of both, the one alone, the other alone, neither."""
    a, b, c, d = counts
    n = a + b + c + d
    first, second = (a + b) / n, (a + c) / n
    (low_1, high_1), (low_2, high_2) = (_wilson(share, n, confidence) for share in (first, second))
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    together = a * d - b * c
    if together > 0:  # continuity, as Newcombe has it
        together = max(together - n / 2, 0)
    phi = together / margins**0.5 if margins else 0.0
    down = (first - low_1) ** 2 - 2 * phi * (first - low_1) * (high_2 - second) + (high_2 - second) ** 2
    up = (high_1 - first) ** 2 - 2 * phi * (high_1 - first) * (second - low_2) + (second - low_2) ** 2
    share = first - second
    return max(-1.0, share - max(down, 0.0) ** 0.5), min(1.0, share + max(up, 0.0) ** 0.5)


def _wilson(share: float, n: int, confidence: float) -> tuple[float, float]:
    z = float(norm.ppf((1 + confidence) / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return middle - half, middle + half
