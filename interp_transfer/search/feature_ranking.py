"""Rankings of an SAE's features by their relevance for a behaviour: cheap ones, and the causal one.

The model need not use a feature that differs between the two sides of a contrast: of the paper's thirty features of the largest
difference a single one had an effect, and it ranked 29th. So cheap rankings (`rank_features`) select candidates; `causal_rank`
steers with each candidate, or ablates it, and judges the answers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp_transfer.activations.positions import Positions
from interp_transfer.evaluation.evaluator import Evaluator
from interp_transfer.evaluation.task import Task
from interp_transfer.features.contrast import FeatureContrast, feature_contrast, feature_intervention
from interp_transfer.features.sae import Sae
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.names import did_you_mean
from interp_transfer.search.first_order import first_order
from interp_transfer.search.strengths import Steer, search_strengths
from interp_transfer.vectors.logistic import logistic

if TYPE_CHECKING:
    import pandas as pd

RANKINGS = ("difference", "probe", "attribution")


def rank_features(
    sae: Sae,
    model: HookedModel,
    task: Task,
    by: str = "difference",
    positions: Positions = "last",
    *,
    seen: FeatureContrast | None = None,
    n: int = 60,
    seed: int = 0,
) -> "pd.DataFrame":
    """Rank features by a cheap score.

    Args:
        sae: an SAE of the model.
        model: the model.
        task: features are read on its training contrast.
        by: "difference" of mean activations (the paper's); "probe", the weight of each feature in a logistic regression on the
            activations, times its spread; or "attribution", the difference times the first-order effect of adding the
            feature's decoder row on the answer's first token.
        positions: the tokens that features are read at.
        seen: the result of ``feature_contrast``, if it is known already.
        n: number of validation prompts, for "attribution".
        seed: draws the prompts.

    Returns:
        A row for each feature that differs, best first: ``feature``, ``score`` (larger is better), and the mean activation on
        the wanted and on the other side.

    Raises:
        ValueError: for an unknown ranking, or an SAE of another model.
    """
    import pandas as pd

    if by not in RANKINGS:
        raise ValueError(f"unknown ranking {by!r}: {did_you_mean(by, RANKINGS)}choose one of {', '.join(RANKINGS)}")
    if seen is None:
        seen = feature_contrast(sae, model, task.contrast("train"), positions)
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


def causal_rank(
    test: Evaluator,
    sae: Sae,
    seen: FeatureContrast,
    features: Sequence[int],
    *,
    way: str = "steer",
    scales: Sequence[float] | None = None,
    budget: float | None = None,
    positions: Positions = "all",
    progress: bool = True,
) -> "pd.DataFrame":
    """Push each feature to the wanted side, up to the clean-KL budget, and judge the answers.

    Args:
        test: prompts, judge and measure of clean KL; with validation prompts, if a feature is to be chosen.
        sae: an SAE of the evaluator's model.
        seen: the features' activations on both sides of the task's contrast.
        features: indices of the features.
        way: see ``feature_intervention``; "ablate" has one scale.
        scales: see ``feature_intervention``; unless given, those of the search of `strengths`, for each feature.
        budget: clean KL that a scale may cost, in nats per token; the task's unless given. Given scales are all judged.
        positions: the tokens.
        progress: show bars when it takes longer than two seconds.

    Returns:
        A row for each feature and scale: success, intact and clean KL with their intervals, n; most intact answers first, then
        most success, then least clean KL.

    Raises:
        ValueError: for features that do not differ or are out of range, and an SAE of another model.
    """
    import pandas as pd

    sae.check_model(test.model)
    options: dict[str, Any] = {"way": way, "positions": positions}

    def push(feature: int) -> Steer:
        return lambda scale: (feature_intervention(sae, feature, seen, scale, **options),)

    if scales is None and way != "ablate":
        searches = search_strengths(test, {str(f): push(f) for f in features}, budget=budget, progress=progress)
        found = [(f, c) for f in features for c in searches[str(f)].curve]
    else:
        tried = [(f, x) for f in features for x in (scales if scales is not None else (1.0,))]
        judged = test.judge_each([push(f)(x) for f, x in tried], [x for _, x in tried], progress=progress)
        found = [(f, c) for (f, _), c in zip(tried, judged, strict=True)]
    rows = [{"feature": f, "scale": c.strength, **c.columns()} for f, c in found]
    rows.sort(key=lambda row: (-row["intact"], -row["success"], row["clean_kl"]))
    return pd.DataFrame(rows)
