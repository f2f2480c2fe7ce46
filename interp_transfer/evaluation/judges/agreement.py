"""Judges judged: how far they agree with what is known to be right.

Where an exact oracle or people know which answers are valid, a judge can be measured before it is trusted elsewhere. Of one
that says yes or no: the share of completions on which it agrees, and of either sort the share that it recognises, with exact
intervals. Of scores: the area under the ROC curve, the chance that a valid completion scores better than an invalid one.

Missing opinions are left out of these and counted beside them: a judge that answers seldom is not a good one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from interp_transfer.evaluation.judges.opinion import Opinion
from interp_transfer.stats import CONFIDENCE, Estimate, rate

DRAWS = 2000
"""Of a bootstrap."""


@dataclass(frozen=True)
class Agreement:
    """A yes-or-no judge beside the truth.

    Attributes:
        agree: share of opinions that are right.
        sensitivity: of what is true, the share that was judged so; None if nothing is.
        specificity: of what is false, the share that was judged so; None if nothing is.
        missing: share without an opinion.
    """

    agree: Estimate
    sensitivity: Estimate | None
    specificity: Estimate | None
    missing: Estimate

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def agreement(said: Sequence[bool | None], truth: Sequence[bool]) -> Agreement:
    """How a judge's yes and no agree with the truth; None is a missing opinion.

    Raises:
        ValueError: for lists of different lengths, and when every opinion is missing.
    """
    _same_length(said, truth)
    both = [(bool(s), bool(t)) for s, t in zip(said, truth, strict=True) if s is not None]
    if not both:
        raise ValueError("every opinion is missing: there is nothing to agree with")
    yes, no = ([s == t for s, t in both if t is side] for side in (True, False))
    missing = rate([s is None for s in said])
    return Agreement(rate([s == t for s, t in both]), rate(yes) if yes else None, rate(no) if no else None, missing)


@dataclass(frozen=True)
class Separation:
    """A judge's scores beside the truth.

    Attributes:
        auroc: chance that what is true scores better than what is false; ties count half.
        low: lower end of its 95% interval.
        high: upper end.
        n_true: scores of what is true.
        n_false: scores of what is false.
        missing: share without a score.
    """

    auroc: float
    low: float
    high: float
    n_true: int
    n_false: int
    missing: Estimate

    def __str__(self) -> str:
        return f"{self.auroc:.3f} [{self.low:.3f}, {self.high:.3f}] n={self.n_true}+{self.n_false}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def separation(opinions: Sequence[Opinion], truth: Sequence[bool], *, high_is_true: bool = True) -> Separation:
    """How well a judge's scores tell true from false.

    Args:
        opinions: of independent completions; several of one prompt are not, and make the interval too narrow.
        truth: of the same completions.
        high_is_true: which end of the scale is for what is true.

    Raises:
        ValueError: for lists of different lengths, and when one side has no score.
    """
    from sklearn.metrics import roc_auc_score

    _same_length(opinions, truth)
    scored = [
        (o.score if high_is_true else -o.score, bool(t)) for o, t in zip(opinions, truth, strict=True) if o.score is not None
    ]
    n_true = sum(t for _, t in scored)
    n_false = len(scored) - n_true
    if not n_true or not n_false:
        raise ValueError(f"{n_true} scores of what is true and {n_false} of what is false: both sides are needed")
    area = float(roc_auc_score([t for _, t in scored], [s for s, _ in scored]))
    missing = rate([o.missing for o in opinions])
    return Separation(area, *auroc_interval(area, n_true, n_false), n_true, n_false, missing)


def auroc_interval(area: float, n: int, m: int) -> tuple[float, float]:
    """The 95% interval of an area under the ROC curve (Newcombe 2006, method 5).

    The areas from which the observed one is no further than 1.96 of their own standard errors (Hanley and McNeil 1982). A
    bootstrap, or the standard error of the observed area, gives an area of 1 an interval of no width; this does not.

    Args:
        area: 0 to 1.
        n: observations of one side.
        m: of the other.

    Raises:
        ValueError: for an area that is none, and for no observations.
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

    # At 1 itself the standard error is 0, so that it is a root, too, but not the end that is looked for.
    inside = min(area, 1 - 1e-12)
    low = float(brentq(too_far, 0.0, inside))  # type: ignore[arg-type]
    return low, 1.0 if area == 1 else float(brentq(too_far, area, 1.0))  # type: ignore[arg-type]


def mean_over_prompts(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """A mean and its 95% interval by the bootstrap over prompts, a value of each; for scales on which nothing is normal.

    Of values that are all the same the interval is the value, which says less than it seems to.

    Raises:
        ValueError: for no values.
    """
    if not len(values):
        raise ValueError("the mean of nothing: give at least one value")
    given = np.asarray(values, dtype=np.float64)
    picked = np.random.default_rng(seed).integers(len(given), size=(DRAWS, len(given)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(given[picked].mean(axis=1), [tail, 1 - tail])
    return float(given.mean()), float(low), float(high)


def _same_length(said: Sequence[Any], truth: Sequence[Any]) -> None:
    if len(said) != len(truth):
        raise ValueError(f"{len(said)} opinions and {len(truth)} truths: give one of each completion")
