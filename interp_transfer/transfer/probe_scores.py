"""How well a moved probe detects a behaviour in the other model, with the baselines that it must beat."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions, describe
from interp_transfer.features.probes import Probe, score_probe
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.stats import auroc_interval, rate
from interp_transfer.transfer.probe_maps import Maps
from interp_transfer.transfer.probes import FALSE_ALARMS, ProbeThrough, back, fit_through, forward, recalibrated
from interp_transfer.vectors.logistic import logistic
from interp_transfer.vectors.vector import check_same

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class DetectionTexts:
    """Texts that a detector should tell apart: with the unwanted behaviour (alarm) and without it (quiet).

    Attributes:
        name: of the behaviour.
        train: (alarm, quiet) texts that probes are fitted on.
        test: (alarm, quiet) texts that they are tested on; no probe or mapper is fitted on any of them.
        clean: prompts without the behaviour that thresholds are set by; not in train or test.
        texts: prompts of both sorts, unlabelled, that mappers are fitted on.
    """

    name: str
    train: tuple[Sequence[str], Sequence[str]]
    test: tuple[Sequence[str], Sequence[str]]
    clean: Sequence[str] = field(repr=False)
    texts: Sequence[str] = field(repr=False)


def moved_scores(
    source: HookedModel,
    target: HookedModel,
    texts: DetectionTexts,
    maps: Maps,
    positions: Positions = "last",
    *,
    false_alarms: float | int = FALSE_ALARMS,
    seed: int = 0,
) -> "pd.DataFrame":
    """Score a probe of the source on the target, moved in every way, with the baselines.

    All are scored on the test texts' rows at ``positions``, one row for each text if these name one token.

    Args:
        source: the model that the probe is fitted on.
        target: the model that it is moved to.
        texts: texts with the behaviour and without it; of a task, ``evaluation.detection.detection_texts(task)``.
        maps: mappers between the two (``fit_maps``), at the sites that are read.
        positions: which tokens are read.
        false_alarms: share of clean rows that a recalibrated probe may take for the behaviour.
        seed: draws the random directions.

    Returns:
        By name: ``home`` (the probe on its own model), ``native`` (a probe fitted on the target), ``back``, ``forward``,
        ``fitted on moved rows`` (``fit_through``), ``shuffled back``, ``shuffled forward``, and ``random, home`` and ``random``
        (mean and ``best`` AUROC of 100 random directions in either space, each with the better sign). Columns: ``auroc`` with
        its interval, ``accuracy`` at log-odds 0 and ``recalibrated`` with theirs, the shares of alarm rows (``caught``) and of
        quiet rows (``false_alarms``) above the recalibrated threshold, ``n``.

    Raises:
        ValueError: for maps between other models.
    """
    for model, space, side in ((source, maps.there.source, "source"), (target, maps.there.target, "target")):
        check_same(identity(model), space.model, f"the {side} given and that of the maps are")
    sets = [*texts.train, *texts.test, texts.clean]
    at_source, at_target = (
        [capture(model, part, space.site, positions, progress=False)[space.site] for part in sets]
        for model, space in ((source, maps.there.source), (target, maps.there.target))
    )
    return score_rows(at_source, at_target, maps, positions, false_alarms=false_alarms, seed=seed)


def score_rows(
    at_source: list[Tensor],
    at_target: list[Tensor],
    maps: Maps,
    positions: Positions = "last",
    *,
    false_alarms: float | int = FALSE_ALARMS,
    seed: int = 0,
) -> "pd.DataFrame":
    """Score a probe as `moved_scores` does, on activations.

    Args:
        at_source: what the source holds of the alarm and quiet texts of training, those of the test, and the clean ones;
            each ``Float[Tensor, "row d_model"]``.
        at_target: what the target holds of the same.
        maps: see `moved_scores`.
        positions: of the rows.
        false_alarms: see `moved_scores`.
        seed: see `moved_scores`.
    """
    import pandas as pd

    home, native = (
        Probe(*logistic(rows[0], rows[1]), space.site, space.model, describe(positions))
        for rows, space in ((at_source, maps.there.source), (at_target, maps.there.target))
    )
    reference = torch.cat(at_source[:2])
    probes: dict[str, tuple[Probe | ProbeThrough, list[Tensor]]] = {
        "home": (home, at_source),
        "native": (native, at_target),
        "back": (back(home, maps.back), at_target),
        "forward": (forward(home, maps.there, reference), at_target),
        "fitted on moved rows": (fit_through(maps.there, at_source[0], at_source[1], describe(positions)), at_target),
        "shuffled back": (back(home, maps.shuffled_back), at_target),
        "shuffled forward": (forward(home, maps.shuffled_there, reference), at_target),
    }
    scores = {name: _scored(probe, rows, false_alarms) for name, (probe, rows) in probes.items()}
    for name, probe, rows in (("random, home", home, at_source), ("random", native, at_target)):
        drawn = score_probe(probe, rows[2], rows[3], seed)
        scores[name] = {"auroc": drawn.random_auroc, "best": drawn.random_best, "n": drawn.accuracy.n}
    return pd.DataFrame(scores).T.astype({"n": int})


def _scored(probe: Probe | ProbeThrough, rows: Sequence[Tensor], false_alarms: float) -> dict[str, float]:
    """Figures of a probe; the last three of the rows are alarm, quiet and clean, and the clean ones set its threshold."""
    from sklearn.metrics import roc_auc_score

    alarm, quiet, clean = rows[2:]
    odds = torch.cat([probe(alarm), probe(quiet)])
    labels = torch.cat([torch.ones(len(alarm)), torch.zeros(len(quiet))]).bool()
    area = float(roc_auc_score(labels.numpy(), odds.numpy()))
    low, high = auroc_interval(area, len(alarm), len(quiet))
    shifted = recalibrated(probe, clean, false_alarms)
    above = torch.cat([shifted(alarm), shifted(quiet)]) > 0
    return {
        "auroc": area,
        "auroc_low": low,
        "auroc_high": high,
        **rate(((odds > 0) == labels).tolist()).columns("accuracy"),
        **rate((above == labels).tolist()).columns("recalibrated"),
        "caught": float(above[labels].float().mean()),
        "false_alarms": float(above[~labels].float().mean()),
        "n": len(labels),
    }
