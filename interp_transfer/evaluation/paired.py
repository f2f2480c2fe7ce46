"""Two conditions on the same prompts: how far apart, and whether as good as each other.

"The moved vector is as good as the native one" is no absent difference, which few prompts always show, but a small one that is
shown: the interval of the difference lies within a margin that was named before (two one-sided tests, Schuirmann 1987).

Intervals of a difference between paired shares are Newcombe's (1998, "Improved confidence intervals for the difference between
binomial proportions based on paired data", method 10). A bootstrap over prompts, which is the more usual choice, gives an
interval of no width where no prompt differs, and shares near 0 and 1, where that happens, are the rule here.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import norm

MARGIN = 0.05
"""Of a share: what two conditions may differ by and still be called as good as each other."""
CONFIDENCE = 0.95


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
