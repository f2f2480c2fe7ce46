r"""Move probes: use a detector that was trained on one model for another model.

A probe is a hyperplane, ``rows @ direction + bias``. There are two ways to move it. ``back`` maps the other model's activations
to the probe's model and applies the probe there, which is exact for any map. ``forward`` maps the hyperplane to the other
model, which is not exact: a map acts on points, and the weights of a probe are a linear form. Under an affine map,
h -> A h + b, they would move by the inverse transpose of A, which does not exist between spaces of different width. So
``forward`` maps points: the step that raises the log-odds by one, and the boundary.

Neither needs an example of the behaviour from the target. The error of a mapper may shift all log-odds without changing their
order; ``recalibrated`` sets the threshold on harmless prompts of the target. ``probe_scores`` compares them with baselines.

Source: section 7 of Oozeer et al. 2025, who tried to move probes on SAE features and report that it failed.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.features.probes import Probe, ProbeScore, score_probe
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.move import delta
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.vectors.logistic import logistic
from interp_transfer.vectors.vector import Reference, SteeringVector

FALSE_ALARMS = 0.05


@dataclass(frozen=True, repr=False, eq=False)
class ProbeThrough:
    """A probe of one model that reads another's activations through a mapper from there.

    It scores the rows of ``model`` at ``site``, so it is a condition: ``it.add(vector).when(probe)``.

    Attributes:
        probe: the probe, of the mapper's target.
        mapper: mapper from the monitored model to the probe's model.
        threshold: log-odds of the probe that count as zero; above 0 if the map raises the score of harmless rows.
    """

    probe: Probe
    mapper: Mapper
    threshold: float = 0.0

    @property
    def site(self) -> str:
        """Hook-point name in the monitored model."""
        return self.mapper.source.site

    @property
    def model(self) -> ModelIdentity:
        """The monitored model."""
        return self.mapper.source.model

    def __call__(self, rows: Float[Tensor, "n d_watched"]) -> Float[Tensor, " n"]:
        """Return the log-odds of each row of the monitored model, minus the threshold.

        Raises:
            ValueError: for rows of another width.
        """
        here = rows.float().to(self.mapper.shift_in.device)
        return (self.probe(self.mapper(here)) - self.threshold).to(rows.device)

    def __repr__(self) -> str:
        return f"ProbeThrough({self.probe!r}, watches {self.site} of {self.model.name}, threshold {self.threshold:.3g})"


Detector = TypeVar("Detector", bound=Probe | ProbeThrough)


def back(probe: Probe, mapper: Mapper) -> ProbeThrough:
    """Return the probe applied through a mapper from another model. It is exact for every kind of mapper.

    Args:
        probe: probe of the mapper's target model and site.
        mapper: mapper from the model to monitor.

    Raises:
        ValueError: for a mapper to another model, site or width.
    """
    _check_ends(probe, mapper.target, "leads to", "collect with the two models exchanged, and fit that")
    return ProbeThrough(probe, mapper)


@torch.no_grad()
def forward(probe: Probe, mapper: Mapper, reference_rows: Float[Tensor, "n d_source"]) -> Probe:
    """Return the probe as a hyperplane in the space of the mapper's target.

    With w the probe's weights, ``u = w / |w|^2`` is the shortest step that raises the log-odds by one. The new weights are
    ``w' = u' / |u'|^2``, where u' is the mean over the reference of f(h + u) - f(h) (``move.delta``), so the step from f(h) to
    f(h + u) raises the mean log-odds by one. The new bias sets the mean log-odds of the boundary to 0: of f(h), for each h of
    the reference, moved along u to log-odds 0.

    This is exact if f preserves angles and ratios of lengths. Other maps change the angle between the boundary and its normal.
    The new plane is normal to the mapped step and not parallel to the mapped boundary, so images of points on the boundary lie
    on both sides of it. ``back`` has no such error.

    Args:
        probe: probe of the mapper's source model and site.
        mapper: mapper to the model to monitor.
        reference_rows: activations of the source, such as those that the probe was fitted on.

    Raises:
        ValueError: for a mapper from another model or site, rows of another width or none, a probe without a direction, or a
            map that maps the step to zero.
    """
    _check_ends(probe, mapper.source, "leads from", "fit one from the probe's model and site, or use back")
    if not len(reference_rows) or reference_rows.shape[1] != len(probe.direction):
        raise ValueError(
            f"reference rows of shape {tuple(reference_rows.shape)} for a probe of {len(probe.direction)} dimensions: give "
            "some of the source's activations at the probe's site"
        )
    weights, rows = probe.direction.float(), reference_rows.float()
    if not weights.norm() > 0:
        raise ValueError("the probe's direction has length 0, so there is nothing to move: fit it on texts that differ")
    step = weights / weights.square().sum()
    moved = delta(mapper, SteeringVector(step, probe.site, probe.model, Reference(rows)))
    if not moved.norm() > 1e-12 * step.norm():
        raise ValueError(
            f"the mapper takes the probe's step of length {float(step.norm()):.3g} to one of {float(moved.norm()):.3g}: it has "
            "lost the direction; fit another kind, or use back"
        )
    direction = moved / moved.square().sum()
    boundary = mapper(rows - probe(rows)[:, None] * step)
    bias = -float((boundary @ direction).mean())
    return Probe(direction, bias, mapper.target.site, mapper.target.model, probe.positions)


@torch.no_grad()
def fit_through(
    mapper: Mapper, positive: Float[Tensor, "n d_source"], negative: Float[Tensor, "m d_source"], positions: str = ""
) -> Probe:
    """Return a probe that is fitted on mapped rows of the source, if the rows of the original probe are available.

    Only points are mapped, so angles do not matter. But mapped rows lack the variance of the target's rows that the map does
    not explain, and the probe has not learnt to ignore it.

    Args:
        mapper: mapper to the model to monitor.
        positive: activations of the mapper's source on texts with the behaviour.
        negative: activations on texts without it.
        positions: description of the tokens, for display.
    """
    return Probe(*logistic(mapper(positive), mapper(negative)), mapper.target.site, mapper.target.model, positions)


@torch.no_grad()
def recalibrated(
    probe: Detector, clean_rows: Float[Tensor, "n d_watched"], false_alarms: float | int = FALSE_ALARMS
) -> Detector:
    """Return the same probe with a threshold above which at most this share of clean rows scores.

    If no two scores are equal, as many rows as the share allows are above it; the threshold is half way between the lowest of
    them and the next. No example of the behaviour in the target is needed.

    Args:
        probe: a ``Probe``, whose bias changes, or a ``ProbeThrough``, whose threshold changes.
        clean_rows: activations of the monitored model on prompts without the behaviour.
        false_alarms: share of clean rows that may score above the threshold, from 0 to below 1.

    Raises:
        ValueError: for no rows, or a share outside of that range.
    """
    if not 0 <= false_alarms < 1:
        raise ValueError(f"false_alarms={false_alarms}: give a share of the clean rows, from 0 to below 1, such as 0.05")
    if not len(clean_rows):
        raise ValueError("0 clean rows set no threshold: give activations of prompts on which nothing is wrong")
    scores = probe(clean_rows).double().sort(descending=True).values
    allowed = math.floor(false_alarms * len(scores) + 1e-9)  # 0.07 * 100 is 7.000000000000001, and 0.29 * 100 is below 29
    shift = float(scores[0]) if not allowed else float(scores[allowed - 1] + scores[allowed]) / 2
    if isinstance(probe, Probe):
        return replace(probe, bias=probe.bias - shift)
    return replace(probe, threshold=probe.threshold + shift)


def score_through(
    probe: Probe | ProbeThrough, positive: Float[Tensor, "n d_watched"], negative: Float[Tensor, "m d_watched"], seed: int = 0
) -> ProbeScore:
    """Score a probe or a moved probe by ``score_probe``; random directions are of the space in which it was fitted."""
    if isinstance(probe, Probe):
        return score_probe(probe, positive, negative, seed)
    own = replace(probe.probe, bias=probe.probe.bias - probe.threshold)
    return score_probe(own, probe.mapper(positive), probe.mapper(negative), seed)


def _check_ends(probe: Probe, space: Any, leads: str, remedy: str) -> None:
    if probe.model.fingerprint != space.model.fingerprint:
        raise ValueError(f"this mapper {leads} {space.model}, and the probe is of {probe.model}: {remedy}")
    if probe.site != space.site:
        raise ValueError(f"this mapper {leads} {space.site!r}, and the probe reads {probe.site!r}: {remedy}")
    if len(probe.direction) != space.d:
        raise ValueError(
            f"a probe of {len(probe.direction)} dimensions at a site that has {space.d}: it was not fitted on this model's rows"
        )
