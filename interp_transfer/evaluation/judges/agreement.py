"""How well a judge agrees with a known truth.

A judge can be measured on completions whose validity is known before it is trusted on others. For yes-or-no judges: the share
of completions on which the judge is right, over all and within either class, with exact intervals. For scores: the area under
the ROC curve, the probability that a valid completion scores better than an invalid one. For labels that people gave: Cohen's
kappa, the agreement beyond that of two judges who label at random with the same shares. Missing opinions are left out of these
figures and reported with them, because a judge that seldom answers is not a good one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp_transfer.evaluation.judges.opinion import Opinion
from interp_transfer.stats import Estimate, auroc_interval, rate


@dataclass(frozen=True)
class Agreement:
    """Agreement of a yes-or-no judge with the truth.

    Attributes:
        agree: share of opinions that are right.
        sensitivity: share of the true completions that were judged true; None if there is none.
        specificity: share of the false completions that were judged false; None if there is none.
        missing: share without an opinion.
    """

    agree: Estimate
    sensitivity: Estimate | None
    specificity: Estimate | None
    missing: Estimate


def agreement(verdicts: Sequence[bool | None], truth: Sequence[bool]) -> Agreement:
    """Return how well yes-or-no verdicts agree with the truth; None is a missing verdict.

    Raises:
        ValueError: for lists of different lengths, and when every verdict is missing.
    """
    _same_length(verdicts, truth)
    both = [(bool(v), bool(t)) for v, t in zip(verdicts, truth, strict=True) if v is not None]
    if not both:
        raise ValueError("every opinion is missing: there is nothing to agree with")
    yes, no = ([v == t for v, t in both if t is side] for side in (True, False))
    missing = rate([v is None for v in verdicts])
    return Agreement(rate([v == t for v, t in both]), rate(yes) if yes else None, rate(no) if no else None, missing)


@dataclass(frozen=True)
class Separation:
    """How well a judge's scores separate true from false completions.

    Attributes:
        auroc: probability that a true completion scores better than a false one; ties count half.
        low: lower end of its 95% interval.
        high: upper end.
        n_true: number of scores of true completions.
        n_false: number of scores of false completions.
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


def separation(opinions: Sequence[Opinion], truth: Sequence[bool], *, high_is_true: bool = True) -> Separation:
    """Return how well a judge's scores separate true from false completions.

    Args:
        opinions: of independent completions; several completions of one prompt make the interval too narrow.
        truth: of the same completions.
        high_is_true: whether high scores stand for true.

    Raises:
        ValueError: for lists of different lengths, and when one class has no score.
    """
    from sklearn.metrics import roc_auc_score

    _same_length(opinions, truth)
    sign = 1 if high_is_true else -1
    scored = [(sign * o.score, bool(t)) for o, t in zip(opinions, truth, strict=True) if o.score is not None]
    n_true = sum(t for _, t in scored)
    n_false = len(scored) - n_true
    if not n_true or not n_false:
        raise ValueError(f"{n_true} scores of what is true and {n_false} of what is false: both sides are needed")
    area = float(roc_auc_score([t for _, t in scored], [s for s, _ in scored]))
    missing = rate([o.missing for o in opinions])
    return Separation(area, *auroc_interval(area, n_true, n_false), n_true, n_false, missing)


def _same_length(opinions: Sequence[Any], truth: Sequence[Any]) -> None:
    if len(opinions) != len(truth):
        raise ValueError(f"{len(opinions)} opinions and {len(truth)} truths: give one of each completion")


def kappa(one: Sequence[Any], other: Sequence[Any], groups: Sequence[Any], *, draws: int = 2000, seed: int = 0) -> Estimate:
    """Return Cohen's kappa of two lists of labels, with a 95% interval by resampling groups.

    Args:
        one: labels by one judge.
        other: labels of the same completions by another.
        groups: the prompt of each completion; completions of one prompt are drawn together, as they are not independent.
        draws: number of bootstrap samples.
        seed: of the samples.

    Returns:
        The estimate, whose n is the number of completions. Where all labels are one, kappa is not defined, and NaN.

    Raises:
        ValueError: for lists of different lengths or without labels.
    """
    _same_length(one, other)
    _same_length(one, groups)
    if not len(one):
        raise ValueError("the agreement of no labels: give at least one")
    names = list(dict.fromkeys([*one, *other]))
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    tables = np.zeros((len(places), len(names), len(names)))
    for a, b, group in zip(one, other, groups, strict=True):
        tables[places[group], names.index(a), names.index(b)] += 1
    chosen = np.random.default_rng(seed).integers(len(places), size=(draws, len(places)))
    counts = np.stack([np.bincount(draw, minlength=len(places)) for draw in chosen])
    samples = _kappas(np.tensordot(counts.astype(float), tables, axes=1))
    low, high = np.nanquantile(samples, [0.025, 0.975]) if np.isfinite(samples).any() else (np.nan, np.nan)
    return Estimate(float(_kappas(tables.sum(axis=0)[None])[0]), float(low), float(high), len(one))


def _kappas(tables: np.ndarray) -> np.ndarray:
    """Cohen's kappa of tables of counts."""
    total = tables.sum(axis=(1, 2))
    observed = tables.trace(axis1=1, axis2=2) / total
    expected = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / total**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return (observed - expected) / (1 - expected)
