"""How sure a mean is, and a ratio of sums."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from scipy.stats import t

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval and what it is measured on.

    Attributes:
        value: the number.
        low: lower end of the interval.
        high: upper end.
        n: prompts, texts, or trials.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] n={self.n}"

    def to_dict(self) -> dict[str, float | int]:
        """As JSON holds it."""
        return asdict(self)


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
