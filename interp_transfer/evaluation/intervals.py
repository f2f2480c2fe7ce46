"""How sure a mean is."""

import math
from collections.abc import Iterable

from scipy.stats import t

CONFIDENCE = 0.95


def mean_interval(values: Iterable[float]) -> tuple[float, float, float, int]:
    """The mean of independent values, Student's 95% interval of it, and how many there are.

    Of fewer than two values, and of values that are all the same, the interval is the value.

    Raises:
        ValueError: for no values.
    """
    given = [float(v) for v in values]
    if not given:
        raise ValueError("the mean of nothing: give at least one value")
    n, middle = len(given), math.fsum(given) / len(given)
    if n < 2:
        return middle, middle, middle, n
    spread = math.sqrt(math.fsum((v - middle) ** 2 for v in given) / (n - 1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * spread / math.sqrt(n)
    return middle, middle - half, middle + half, n
