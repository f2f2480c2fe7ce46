"""Linear probes: logistic regression on activations, and how well it separates held-out texts.

A probe that separates two kinds of text shows that the difference can be read from a site, not that the model uses it there;
and where texts differ by a trigger, almost any direction separates them somewhat. So every probe is scored with random
directions, and `search.sweep` tests what the model does.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import Activations, capture
from interp_transfer.activations.positions import Positions, describe
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import expand_sites
from interp_transfer.prompts.contrast import Pairs, sides
from interp_transfer.stats import Estimate, auroc_interval, rate
from interp_transfer.vectors.logistic import logistic

if TYPE_CHECKING:
    import pandas as pd

RANDOM_DIRECTIONS = 100
BINS = 10


@dataclass(frozen=True, repr=False, eq=False)
class Probe:
    """A direction and a threshold: ``rows @ direction + bias`` is the log-odds that a row is positive.

    Attributes:
        direction: log-odds per unit of the activation.
        bias: log-odds at zero.
        site: hook-point name.
        model: the model whose activations it reads.
        positions: the tokens that it was fitted on.
    """

    direction: Float[Tensor, " d_model"]
    bias: float
    site: str
    model: ModelIdentity
    positions: str = ""

    def __call__(self, rows: Float[Tensor, "n d_model"]) -> Float[Tensor, " n"]:
        """Return the log-odds of each row."""
        return rows.float() @ self.direction.to(rows.device).float() + self.bias

    def __repr__(self) -> str:
        return f"Probe(at {self.site} of {self.model.name}, d {len(self.direction)}, positions {self.positions or '-'})"


@dataclass(frozen=True)
class ProbeScore:
    """How well a probe separates held-out rows.

    Attributes:
        auroc: probability that a positive row scores above a negative one.
        auroc_low: lower end of its 95% interval (``stats.auroc_interval``), for independent rows: give one for each text.
        auroc_high: upper end.
        accuracy: share of rows on the right side of log-odds 0.
        brier: mean squared error of the probability; 0.25 for a constant probability of one half.
        calibration: expected calibration error in ten bins of probability.
        random_auroc: mean over random directions, each with the better sign.
        random_best: the best of them.
    """

    auroc: float
    auroc_low: float
    auroc_high: float
    accuracy: Estimate
    brier: float
    calibration: float
    random_auroc: float
    random_best: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON stores them."""
        return asdict(self)


def fit_probe(model: HookedModel, contrast: Pairs, site: str, positions: Positions = "last") -> Probe:
    """Fit a probe of the positive against the negative texts of a contrast.

    Args:
        model: any hooked model.
        contrast: pairs of texts, (positive, negative).
        site: hook-point name.
        positions: the tokens that are read; each is a row.
    """
    plus, minus = (capture(model, texts, site, positions)[site] for texts in sides(contrast))
    return Probe(*logistic(plus, minus), site, identity(model), describe(positions))


def score_probe(
    probe: Probe, positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"], seed: int = 0
) -> ProbeScore:
    """Score a probe on rows that it was not fitted on, with random directions for comparison.

    Raises:
        ValueError: for an empty side, or rows of another width.
    """
    from sklearn.metrics import brier_score_loss, roc_auc_score

    for rows in (positive, negative):
        if not len(rows) or rows.shape[1] != len(probe.direction):
            raise ValueError(
                f"rows of shape {tuple(rows.shape)} for a probe of {len(probe.direction)} dimensions: give some rows"
            )
    rows = torch.cat([positive, negative]).float()
    odds = torch.cat([probe(positive), probe(negative)])
    labels = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))])
    probability = odds.double().sigmoid()
    area = float(roc_auc_score(labels.numpy(), odds.numpy()))
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(len(probe.direction), RANDOM_DIRECTIONS, generator=generator)
    areas = [float(roc_auc_score(labels.numpy(), scores)) for scores in (rows @ directions).T.numpy()]
    random = [max(a, 1 - a) for a in areas]
    return ProbeScore(
        area,
        *auroc_interval(area, len(positive), len(negative)),
        rate(((odds > 0) == labels.bool()).tolist()),
        float(brier_score_loss(labels.numpy(), probability.numpy())),
        _calibration_error(probability, labels),
        sum(random) / len(random),
        max(random),
    )


def probe_sites(
    model: HookedModel,
    train: Pairs,
    test: Pairs,
    sites: str | Sequence[str] = "blocks.*.hook_resid_pre",
    positions: Sequence[Positions] = ("last",),
    *,
    seed: int = 0,
) -> "pd.DataFrame":
    """Fit and score a probe at every site and rule of positions.

    Args:
        model: any hooked model.
        train: pairs of texts, (positive, negative), that probes are fitted on.
        test: pairs of other texts, that they are scored on.
        sites: hook-point names; ``*`` stands for every block.
        positions: rules; a probe is fitted for each.
        seed: draws the random directions.

    Returns:
        A row for each site and rule, with the fields of `ProbeScore`.
    """
    import pandas as pd

    names, rows = expand_sites(model, sites), []
    for rule in positions:
        read: list[Activations] = [capture(model, texts, names, rule) for texts in (*sides(train), *sides(test))]
        for site in names:
            plus, minus, held_plus, held_minus = (acts[site] for acts in read)
            probe = Probe(*logistic(plus, minus), site, identity(model), describe(rule))
            score = score_probe(probe, held_plus, held_minus, seed)
            row = {"site": site, "positions": describe(rule), **vars(score)}
            rows.append(row | score.accuracy.columns("accuracy") | {"n": score.accuracy.n})
    return pd.DataFrame(rows)


def _calibration_error(probability: Tensor, labels: Tensor) -> float:
    """Distance between mean probability and share of positives, averaged over bins by their number of rows."""
    which = (probability * BINS).long().clamp(max=BINS - 1)
    error = 0.0
    for k in range(BINS):
        here = which == k
        if here.any():
            error += float(here.double().mean()) * abs(float(probability[here].mean() - labels[here].double().mean()))
    return error
