"""Which features of an SAE matter for a behaviour: cheap rankings, and the causal one.

A feature that differs between the two sides of a contrast need not be used by the model: of the paper's thirty features of the
largest difference one alone did anything, and it ranked 29th. So cheap rankings (``rank_features``) only say what to try;
``causal_rank`` steers with each, or ablates it, and measures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions
from interp_transfer.evaluation.evaluator import Condition, Evaluator
from interp_transfer.evaluation.task import Task
from interp_transfer.features.probes import logistic
from interp_transfer.features.sae import Sae
from interp_transfer.features.use import set_feature
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.names import meant
from interp_transfer.prompts.contrast import Pairs, sides
from interp_transfer.search.first_order import first_order

if TYPE_CHECKING:
    import pandas as pd

RANKINGS = ("difference", "probe", "attribution")
WAYS = ("steer", "set", "ablate")
SCALES = (1.0, 2.0, 3.0, 5.0)


@dataclass(frozen=True, eq=False)
class FeatureContrast:
    """Mean activation of every feature on both sides of a contrast.

    Attributes:
        wanted: on the positive side.
        other: on the negative side.
        at_wanted: activations of the positive side, ``Float[Tensor, "row feature"]``, a row for each token that was read.
        at_other: likewise.
    """

    wanted: Float[Tensor, " feature"]
    other: Float[Tensor, " feature"]
    at_wanted: Float[Tensor, "n feature"]
    at_other: Float[Tensor, "m feature"]

    @property
    def difference(self) -> Float[Tensor, " feature"]:
        """Mean on the positive side less that on the negative one."""
        return self.wanted - self.other


def feature_contrast(sae: Sae, model: HookedModel, contrast: Pairs, positions: Positions = "last") -> FeatureContrast:
    """What the features hold on both sides of a contrast.

    Raises:
        ValueError: for an SAE of another model.
    """
    sae.check_model(model)
    plus, minus = (sae.encode(capture(model, texts, sae.site, positions)[sae.site]) for texts in sides(contrast))
    return FeatureContrast(plus.mean(dim=0), minus.mean(dim=0), plus, minus)


def rank_features(
    sae: Sae,
    model: HookedModel,
    task: Task,
    by: str = "difference",
    positions: Positions = "last",
    *,
    found: FeatureContrast | None = None,
    n: int = 60,
    seed: int = 0,
) -> "pd.DataFrame":
    """Features in the order in which they are worth trying.

    Args:
        sae: of the model.
        model: that is looked at.
        task: its training contrast is what features are read on.
        by: "difference", of mean activations (the paper's); "probe", the weight of each feature in a logistic regression on
            them, times its spread; or "attribution": difference times what adding the feature's decoder row would do to the
            answer's first token, to first order.
        positions: which tokens features are read at.
        found: what ``feature_contrast`` found at them, if that is known already.
        n: validation prompts, for "attribution".
        seed: draws them.

    Returns:
        A row for each feature that differs, best first: ``feature``, ``score`` (larger is better), and the mean activation on
        the wanted and on the other side.

    Raises:
        ValueError: for an unknown ranking, or an SAE of another model.
    """
    import pandas as pd

    if by not in RANKINGS:
        raise ValueError(f"unknown ranking {by!r}: {meant(by, RANKINGS)}choose one of {', '.join(RANKINGS)}")
    seen = feature_contrast(sae, model, task.contrast("train"), positions) if found is None else found
    if by == "difference":
        score = seen.difference.abs()
    elif by == "probe":
        weights, _ = logistic(seen.at_wanted, seen.at_other)
        score = (weights * torch.cat([seen.at_wanted, seen.at_other]).std(dim=0)).abs()
    else:
        slope = first_order(model, task, [sae.site], n, seed)[sae.site]
        score = seen.difference * (sae.decoder.cpu().float() @ slope)
    order: Int[Tensor, " feature"] = score.argsort(descending=True, stable=True)
    order = order[seen.difference[order] != 0]
    columns = {"feature": order, "score": score[order], "wanted": seen.wanted[order], "other": seen.other[order]}
    return pd.DataFrame({name: values.tolist() for name, values in columns.items()})


def feature_intervention(
    sae: Sae,
    index: int,
    seen: FeatureContrast,
    scale: float | int = 1.0,
    way: str = "steer",
    positions: Positions = "all",
    *,
    keep_error: bool = True,
) -> Intervention:
    """What a feature is pushed to the wanted side of a contrast with.

    Args:
        sae: whose feature.
        index: which.
        seen: what features hold on both sides.
        scale: 1 is the contrast's own difference in this feature; 2 overshoots by as much.
        way: "steer" adds scale times the difference along the decoder row; "set" clamps the activation to the other side's mean
            plus scale times the difference, whatever it was; "ablate" sets it to 0.
        positions: which tokens.
        keep_error: for "set" and "ablate", keep what the SAE does not reconstruct.

    Raises:
        ValueError: for an unknown way, an index out of range, or a feature that does not differ (for "steer").
    """
    if way not in WAYS:
        raise ValueError(f"unknown way {way!r}: {meant(way, WAYS)}choose one of {', '.join(WAYS)}")
    sae.check_index(index)
    step = float(seen.difference[index])
    if way == "steer":
        return add(sae.feature(index, size=step), scale, positions)
    value = 0.0 if way == "ablate" else float(seen.other[index]) + scale * step
    return set_feature(sae, index, value, positions, keep_error=keep_error)


def causal_rank(
    test: Evaluator,
    sae: Sae,
    seen: FeatureContrast,
    features: Sequence[int],
    *,
    way: str = "steer",
    scales: Sequence[float] = SCALES,
    positions: Positions = "all",
    keep_error: bool = True,
    progress: bool = True,
) -> "pd.DataFrame":
    """Push each of some features to the wanted side, at several scales, and measure what the model says.

    Args:
        test: prompts, judge and measure of clean KL; of validation prompts, if a feature is to be chosen by it.
        sae: of the evaluator's model.
        seen: what features hold on both sides of the task's contrast.
        features: which.
        way: see ``feature_intervention``; "ablate" has one scale.
        scales: at which.
        positions: which tokens.
        keep_error: see ``feature_intervention``.
        progress: show bars when it takes longer than two seconds.

    Returns:
        A row for each feature and scale: success, intact, each with its interval, clean KL, n; the largest sum of success and
        intact first, the cheaper of equals first.

    Raises:
        ValueError: for features that do not differ or are out of range, and an SAE of another model.
    """
    import pandas as pd

    sae.check_model(test.model)
    tried = [(f, x) for f in features for x in (scales if way != "ablate" else (1.0,))]
    options = {"way": way, "positions": positions, "keep_error": keep_error}
    draws = [[(feature_intervention(sae, f, seen, x, **options),)] for f, x in tried]  # type: ignore[arg-type]
    judged = test.judge_each(draws, [x for _, x in tried], progress=progress) if tried else []
    rows = [{"feature": f, "scale": x, **flat(c)} for (f, x), c in zip(tried, judged, strict=True)]
    rows.sort(key=lambda row: (-row["success"] - row["intact"], row["clean_kl"]))
    return pd.DataFrame(rows)


def flat(judged: Condition) -> dict[str, float | int]:
    """The figures of a condition, as columns."""
    found: dict[str, float | int] = {}
    for name in ("success", "intact"):
        share = getattr(judged, name)
        found |= {name: share.value, f"{name}_low": share.low, f"{name}_high": share.high}
    return {**found, "clean_kl": judged.clean_kl, "n": judged.success.n}
