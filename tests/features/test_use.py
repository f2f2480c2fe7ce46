"""Interventions by features equal the SAE's own edits, and the contrast that they are made from."""

import pytest
import torch

import interp_transfer as it
from interp_transfer.features.contrast import FeatureContrast, feature_contrast, feature_intervention
from interp_transfer.features.use import SetFeature, reconstructed, set_feature
from interp_transfer.interventions.transforms import Add
from tests.tiny_sae import SITE


@pytest.fixture(scope="module")
def model(models):
    return models[0]


@pytest.fixture(scope="module")
def seen(sae, model, cats) -> FeatureContrast:
    return feature_contrast(sae, model, cats.contrast("train"))


def read(model, text, *interventions):
    with it.applied(model, *interventions):
        return it.capture(model, [text], "blocks.3.hook_resid_post")["blocks.3.hook_resid_post"]


def test_the_intervention_is_the_saes_edit(sae, model, cats):
    text = cats.prompts("test")[0]
    rows = it.capture(model, [text], SITE)[SITE]
    for keep_error in (True, False):

        def edit(features):
            out = features.clone()
            out[:, 7] = 0.3
            return out

        put = it.Intervention(SITE, lambda a, k=keep_error: sae.reconstruct(rows, edit, keep_error=k))
        ours = set_feature(sae, 7, 0.3, keep_error=keep_error)
        torch.testing.assert_close(read(model, text, ours), read(model, text, put), atol=1e-5, rtol=1e-4)
    splice = it.Intervention(SITE, lambda a: sae.reconstruct(rows))
    torch.testing.assert_close(read(model, text, reconstructed(sae)), read(model, text, splice), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(read(model, text, splice), read(model, text), atol=1e-3)


def test_a_value_for_each_text(sae, model, cats):
    prompts = cats.prompts("test")[:3]
    values = torch.tensor([0.0, 20.0, 40.0])
    together = it.generate(model, prompts, set_feature(sae, 7, values, "all"), max_new_tokens=8)
    pairs = zip(prompts, values.tolist(), strict=True)
    alone = [it.generate(model, [p], set_feature(sae, 7, v), max_new_tokens=8)[0] for p, v in pairs]
    assert together == alone != it.generate(model, prompts, max_new_tokens=8)


def test_keeping_the_error_and_the_activation_changes_nothing(sae, model, cats):
    text = cats.prompts("test")[1]
    own = sae.encode(it.capture(model, [text], SITE, "last")[SITE])
    index = int(own[0].argmax())
    same = set_feature(sae, index, float(own[0, index]), "last")
    torch.testing.assert_close(read(model, text, same), read(model, text), atol=1e-4, rtol=1e-4)


def test_the_contrast_holds_both_sides(sae, model, cats, seen):
    positive, negative = ([getattr(pair, side) for pair in cats.contrast("train")] for side in ("positive", "negative"))
    for texts, mean, each in ((positive, seen.wanted, seen.at_wanted), (negative, seen.other, seen.at_other)):
        features = sae.encode(it.capture(model, texts, SITE, "last")[SITE])
        torch.testing.assert_close(each, features)
        torch.testing.assert_close(mean, features.mean(dim=0))
    torch.testing.assert_close(seen.difference, seen.wanted - seen.other)


def test_ways(sae, seen):
    index = int(seen.difference.abs().argmax())
    steer = feature_intervention(sae, index, seen, 2.0)
    assert isinstance(steer.transform, Add)
    assert torch.allclose(steer.transform.direction * 2.0, 2.0 * seen.difference[index] * sae.decoder[index], atol=1e-6)
    put = feature_intervention(sae, index, seen, 2.0, "set")
    assert isinstance(put.transform, SetFeature)
    assert put.transform.value == pytest.approx(float(2 * seen.wanted[index] - seen.other[index]), abs=1e-5)
    zero = feature_intervention(sae, index, seen, way="ablate").transform
    assert isinstance(zero, SetFeature) and zero.value == 0.0
    with pytest.raises(ValueError, match="did you mean 'steer'"):
        feature_intervention(sae, index, seen, way="steerr")
    with pytest.raises(ValueError, match="feature 256 of 256"):
        feature_intervention(sae, 256, seen)


def test_another_model_is_refused(sae, models, cats):
    for do in (
        lambda: feature_contrast(sae, models[1], cats.contrast("train")[:2]),
        lambda: it.generate(models[1], ["a"], set_feature(sae, 1, 0.0)),
    ):
        with pytest.raises(ValueError, match="rebind|another model|are of"):
            do()
