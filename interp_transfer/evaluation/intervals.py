"""How sure a mean is."""

import math
from collections.abc import Iterable
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
