"""Linear probes: logistic regression on activations, and how well it tells held-out texts apart.

A probe that tells two sorts of text apart says that the difference can be read off a site, not that the model uses it there;
and where texts differ by a trigger, almost any direction tells them apart somewhat. So random directions stand beside every
probe, and ``search.sweep`` asks what the model does.
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
from interp_transfer.stats import Estimate, rate
from interp_transfer.vectors.logistic import logistic

if TYPE_CHECKING:
    import pandas as pd

RANDOM_DIRECTIONS = 100
BINS = 10


@dataclass(frozen=True, repr=False, eq=False)
class Probe:
    """A direction and a threshold: ``rows @ direction + bias`` is the log-odds that a row is of the positive sort.

    Attributes:
        direction: log-odds per unit of the activation.
        bias: log-odds at zero.
        site: hook-point name.
        model: the model whose activations it reads.
        positions: which tokens it was fitted on.
    """

    direction: Float[Tensor, " d_model"]
    bias: float
    site: str
    model: ModelIdentity
    positions: str = ""

    def __call__(self, rows: Float[Tensor, "n d_model"]) -> Float[Tensor, " n"]:
        """Log-odds of each row."""
        return rows.float() @ self.direction.to(rows.device).float() + self.bias

    def __repr__(self) -> str:
        return f"Probe(at {self.site} of {self.model.name}, d {len(self.direction)}, positions {self.positions or '-'})"


@dataclass(frozen=True)
class ProbeScore:
    """How well a probe tells held-out rows apart.

    Attributes:
        auroc: chance that a positive row scores above a negative one.
        auroc_low: lower end of its 95% interval (Hanley and McNeil 1982), rows taken as independent; so give one for each text.
        auroc_high: upper end.
        accuracy: share of rows on the right side of log-odds 0.
        brier: mean squared error of the probability; 0.25 is a coin.
        calibration: expected calibration error in ten bins of probability: mean distance from the probability to the share.
        random_auroc: mean over random directions, each the better way round.
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
        """As JSON holds it."""
        return asdict(self)


def fit_probe(model: HookedModel, contrast: Pairs, site: str, positions: Positions = "last") -> Probe:
    """A probe at one site for the positive texts of a contrast against the negative ones.

    Args:
        model: any hooked model.
        contrast: pairs of texts, (positive, negative).
        site: hook-point name.
        positions: which tokens are read; each is a row.
    """
    plus, minus = (capture(model, texts, site, positions)[site] for texts in sides(contrast))
    return Probe(*logistic(plus, minus), site, identity(model), describe(positions))


def score_probe(
    probe: Probe, positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"], seed: int = 0
) -> ProbeScore:
    """How well a probe tells rows apart that it was not fitted on, beside random directions.

    Raises:
        ValueError: for an empty side, or rows of another width.
    """
    from sklearn.metrics import brier_score_loss, roc_auc_score

    for rows in (positive, negative):
        if not len(rows) or rows.shape[1] != len(probe.direction):
            raise ValueError(
                f"rows of shape {tuple(rows.shape)} for a probe of {len(probe.direction)} dimensions: give some rows"
            )
    odds = torch.cat([probe(positive), probe(negative)])
    labels = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))])
    chance = odds.double().sigmoid()
    found = float(roc_auc_score(labels.numpy(), odds.numpy()))
    spread = auroc_error(found, len(positive), len(negative))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(len(probe.direction), RANDOM_DIRECTIONS, generator=generator)
    areas = [
        float(roc_auc_score(labels.numpy(), scores)) for scores in (torch.cat([positive, negative]).float() @ drawn).T.numpy()
    ]
    random = [max(area, 1 - area) for area in areas]
    return ProbeScore(
        found,
        max(0.0, found - spread),
        min(1.0, found + spread),
        rate(((odds > 0) == labels.bool()).tolist()),
        float(brier_score_loss(labels.numpy(), chance.numpy())),
        _calibration_error(chance, labels),
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
    """A probe at every site and rule of positions, scored on other texts.

    Args:
        model: any hooked model.
        train: pairs of texts, (positive, negative), that probes are fitted on.
        test: others, that they are scored on.
        sites: hook-point names; ``*`` stands for every block.
        positions: rules; a probe is fitted for each.
        seed: draws the random directions.

    Returns:
        A row for each site and rule, with the figures of ``ProbeScore``.
    """
    import pandas as pd

    names, rows = expand_sites(model, sites), []
    for rule in positions:
        read: list[Activations] = [capture(model, texts, names, rule) for texts in (*sides(train), *sides(test))]
        for site in names:
            plus, minus, held_plus, held_minus = (acts[site] for acts in read)
            probe = Probe(*logistic(plus, minus), site, identity(model), describe(rule))
            found = score_probe(probe, held_plus, held_minus, seed).to_dict()
            accuracy = found.pop("accuracy")
            more = {"accuracy": accuracy["value"], "accuracy_low": accuracy["low"], "accuracy_high": accuracy["high"]}
            rows.append({"site": site, "positions": describe(rule), **found, **more, "n": accuracy["n"]})
    return pd.DataFrame(rows)


def auroc_error(area: float, n: int, m: int) -> float:
    """Half of the 95% interval (Hanley and McNeil 1982)."""
    area = min(area, 1 - 1 / (2 * n * m))  # all in order says no more than that
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (n - 1) * (one - area**2) + (m - 1) * (two - area**2)) / (n * m)
    return 1.96 * max(variance, 0.0) ** 0.5


def _calibration_error(chance: Tensor, labels: Tensor) -> float:
    """Distance from mean probability to share of positives, averaged over bins by how many rows they hold."""
    which = (chance * BINS).long().clamp(max=BINS - 1)
    error = 0.0
    for k in range(BINS):
        here = which == k
        if here.any():
            error += float(here.double().mean()) * abs(float(chance[here].mean() - labels[here].double().mean()))
    return error
