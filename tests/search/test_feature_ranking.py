"""Rankings of features: what each cheap one computes, and the causal one against each feature judged alone."""

import pytest
import torch

from interp_transfer.evaluation.evaluator import evaluator
from interp_transfer.features.contrast import feature_contrast, feature_intervention
from interp_transfer.search.feature_ranking import RANKINGS, causal_rank, rank_features
from interp_transfer.search.first_order import first_order
from tests.tiny_sae import SITE


@pytest.fixture(scope="module")
def seen(sae, models, cats):
    return feature_contrast(sae, models[0], cats.contrast("train"))


def test_cheap_rankings_are_sorted_by_their_scores(sae, models, cats, seen):
    tables = {by: rank_features(sae, models[0], cats, by, seen=seen, n=8) for by in RANKINGS}
    for table in tables.values():
        assert table["score"].is_monotonic_decreasing
        assert set(table["feature"]) == set(seen.difference.nonzero()[:, 0].tolist())
        for _, row in table.head(4).iterrows():
            assert (row["wanted"], row["other"]) == (seen.wanted[int(row["feature"])], seen.other[int(row["feature"])])
    row = tables["difference"].iloc[0]
    assert row["score"] == pytest.approx(float(seen.difference.abs().max()), rel=1e-5)
    row = tables["attribution"].iloc[0]
    slope = first_order(models[0], cats, [SITE], 8)[SITE]
    index = int(row["feature"])
    assert row["score"] == pytest.approx(float(seen.difference[index] * sae.decoder[index] @ slope), rel=1e-4)
    assert rank_features(sae, models[0], cats).equals(tables["difference"]), "the contrast is computed if it is not given"
    with pytest.raises(ValueError, match="did you mean 'attribution'"):
        rank_features(sae, models[0], cats, "atribution", seen=seen)


def test_the_causal_ranking_judges_each_feature_alone(sae, models, cats, seen):
    test = evaluator(models[0], cats, "validation", n=8)
    chosen = rank_features(sae, models[0], cats, seen=seen)["feature"].head(3).tolist()
    found = causal_rank(test, sae, seen, chosen, scales=(1.0, 8.0), progress=False)
    assert len(found) == 6 and found["intact"].is_monotonic_decreasing
    for _, row in found.iterrows():
        steer = feature_intervention(sae, int(row["feature"]), seen, float(row["scale"]))
        alone = test.judge((steer,), 1.0, progress=False)
        assert (row["success"], row["intact"], row["n"]) == (alone.success.value, alone.intact.value, 8)
        assert row["clean_kl"] == pytest.approx(alone.clean_kl, rel=1e-3, abs=1e-6)
    searched = causal_rank(test, sae, seen, chosen[:2], budget=0.01, progress=False)
    assert searched.groupby("feature")["clean_kl"].max().between(0.009, 0.01001).all(), "both are taken to the budget"
    assert len(causal_rank(test, sae, seen, chosen[:1], way="ablate", progress=False)) == 1
    assert causal_rank(test, sae, seen, [], progress=False).empty
    with pytest.raises(ValueError, match="feature 256 of 256"):
        causal_rank(test, sae, seen, [256])


def test_another_model_is_refused(sae, models, cats, seen):
    with pytest.raises(ValueError, match="this SAE and the model"):
        rank_features(sae, models[1], cats)
    with pytest.raises(ValueError, match="this SAE and the model"):
        causal_rank(evaluator(models[1], cats, "validation", n=4), sae, seen, [0])
    assert torch.isfinite(seen.difference).all()
