from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.vectors import extract as extract_module
from interp_transfer.vectors.extract import METHODS, difference_in_means, extract_each
from interp_transfer.vectors.vector import Contrast

SITE = "blocks.3.hook_resid_pre"
PAIRS = [it.ContrastPair(f"dogs run {i} times", f"the cat sat {i}, they say") for i in range(60)]
OTHERS = [f"a much longer text with {i}" for i in range(12)]


@pytest.fixture
def model(wrapped):
    return wrapped("qwen2")


def test_difference_in_means_is_what_it_says(model):
    pairs = PAIRS[:20]
    vector = it.extract(model, pairs, SITE)
    rows = [it.capture(model, [text], SITE)[SITE][-1] for pair in pairs for text in (pair.positive, pair.negative)]
    stacked = torch.stack(rows)
    torch.testing.assert_close(vector.direction, stacked[0::2].mean(0) - stacked[1::2].mean(0), rtol=1e-4, atol=1e-5)
    assert (vector.site, vector.model, vector.positions) == (SITE, it.identity(model), "last")


def test_evidence_gives_the_direction_when_it_is_whole_and_is_a_sample_when_not(model):
    pairs = PAIRS[:20]
    whole = it.extract(model, pairs, SITE)
    assert isinstance(whole.evidence, tuple)
    torch.testing.assert_close(whole.evidence[0].difference(), whole.direction, rtol=1e-4, atol=1e-5)
    part = it.extract(model, pairs, SITE, evidence_rows=5)
    assert isinstance(part.evidence, tuple)
    assert len(part.evidence[0].positive) == 5
    assert torch.equal(part.direction, whole.direction)


def test_tuples_positions_and_functions_as_methods(model):
    pairs = [(pair.positive, pair.negative) for pair in PAIRS[:5]]

    def twice(positive, negative):
        return 2 * difference_in_means(positive, negative)

    one, two = (it.extract(model, pairs, SITE, method=m) for m in ("difference_in_means", twice))
    torch.testing.assert_close(two.direction, 2 * one.direction)
    assert two.method == "twice"
    every = it.extract(model, pairs, SITE, positions="all")
    assert isinstance(every.evidence, tuple)
    assert len(every.evidence[0].positive) > len(pairs)


def test_bad_contrasts_are_refused(model):
    pairs = PAIRS[:2]
    with pytest.raises(ValueError, match="empty"):
        it.extract(model, [], SITE)
    with pytest.raises(ValueError, match="both sides of every pair are the same, such as 'x': a contrast needs two different"):
        it.extract(model, [("x", "x"), ("y", "y")], SITE)
    with pytest.raises(ValueError, match="pairs of texts"):
        it.extract(model, ["a", "b"], SITE)
    with pytest.raises(ValueError, match="pair 0"):
        it.extract(model, [("a", "b", "c")], SITE)
    with pytest.raises(ValueError, match="did you mean 'difference_in_means'"):
        it.extract(model, pairs, SITE, method="difference_of_means")
    with pytest.raises(ValueError, match="unknown site"):
        it.extract(model, pairs, "blocks.3.hook_resid_prre")


def test_vectors_survive_being_kept(model, tmp_path):
    vector = it.extract(model, PAIRS[:4], SITE)
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


@pytest.mark.parametrize("method", ["pca", "probe", "robust"])
def test_named_methods_have_the_length_of_the_contrast_along_them(model, method):
    pairs = PAIRS[:40]
    plain, other = it.extract(model, pairs, SITE), it.extract(model, pairs, SITE, method=method)
    unit = other.direction / other.norm
    assert float(plain.direction @ unit) == pytest.approx(other.norm, rel=1e-4)
    assert 0 < other.cosine(plain) < 1
    assert other.method == method


def test_mean_centring_is_against_other_texts(model):
    pairs, others = PAIRS[:10], OTHERS
    vector = it.extract(model, pairs, SITE, method="mean_centring", reference=others)
    positive = it.capture(model, [p.positive for p in pairs], SITE, "last")[SITE]
    negative = it.capture(model, others, SITE, "last")[SITE]
    torch.testing.assert_close(vector.direction, positive.mean(0) - negative.mean(0), rtol=1e-4, atol=1e-5)
    assert vector.method == "mean_centring"
    refused: list[dict[str, Any]] = [{"method": "mean_centring"}, {"reference": others}]
    for wrong in refused:
        with pytest.raises(ValueError, match="mean_centring needs reference texts"):
            it.extract(model, pairs, SITE, **wrong)


def test_several_sites_at_once_and_in_portions(model, monkeypatch):
    pairs = PAIRS[:30]
    sites = ["blocks.1.hook_resid_pre", "blocks.2.attn.hook_z", "blocks.2.hook_mlp_out"]
    together = extract_each(model, pairs, sites, "all", evidence_rows=50)
    assert list(together) == sites
    monkeypatch.setattr("interp_transfer.vectors.extract.PORTION", 7)
    in_portions = extract_each(model, pairs, sites, "all", evidence_rows=50)
    for site in sites:
        one = it.extract(model, pairs, site, "all", evidence_rows=50)
        for other in (together[site], in_portions[site]):
            torch.testing.assert_close(other.direction, one.direction, rtol=1e-4, atol=1e-6)
            assert isinstance(other.evidence, tuple)
            assert isinstance(one.evidence, tuple)
            torch.testing.assert_close(other.evidence[0].positive, one.evidence[0].positive, rtol=1e-4, atol=1e-5)
            assert len(other.evidence[0].positive) == 50


def test_more_texts_need_no_more_memory(model, monkeypatch):
    pairs = PAIRS[:60]
    monkeypatch.setattr("interp_transfer.vectors.extract.PORTION", 5)
    most: list[int] = []

    class Watched(extract_module._SideStatistics):
        def add(self, rows):
            super().add(rows)
            most.append(len(self.rows) + len(rows))

    monkeypatch.setattr(extract_module, "_SideStatistics", Watched)
    it.extract(model, pairs, SITE, evidence_rows=16)
    assert len(most) == 2 * 12
    assert max(most) <= 16 + 5


def test_one_head_alone(model):
    pairs, site = PAIRS[:10], "blocks.2.attn.hook_z"
    whole, size = it.extract(model, pairs, site), int(model.cfg.d_head)
    part = it.extract(model, pairs, site, head=1)
    assert torch.equal(part.direction[size : 2 * size], whole.direction[size : 2 * size])
    assert float(part.direction.abs().sum()) == pytest.approx(float(whole.direction[size : 2 * size].abs().sum()))
    assert it.generate(model, [pairs[0].negative], it.add(part, 2.0), max_new_tokens=3)
    with pytest.raises(ValueError, match="heads, 0 to"):
        it.extract(model, pairs, site, head=99)
    with pytest.raises(ValueError, match="no site of attention heads"):
        it.extract(model, pairs, SITE, head=0)


def test_a_method_that_returns_nonsense_is_refused(model):
    pairs = PAIRS[:4]
    with pytest.raises(ValueError, match="broken returned"):
        it.extract(model, pairs, SITE, method=broken)
    with pytest.raises(ValueError, match="pca takes the differences of pairs"):
        METHODS["pca"](torch.ones(3, 4), torch.ones(2, 4))


def broken(positive, negative):  # noqa: ARG001 - a method takes both
    return torch.full_like(positive[0], float("nan"))


def test_pca_refuses_pairs_of_unequal_length_however_many_there_are(model, monkeypatch):
    pairs = [("a b c d e", "a b c"), ("a b c", "a b c d e")] * 10
    with pytest.raises(ValueError, match="more tokens on a side"):
        it.extract(model, pairs, SITE, "all", method="pca")
    monkeypatch.setattr(extract_module, "METHOD_ROWS", 8)
    with pytest.raises(ValueError, match="more tokens on a side"):
        it.extract(model, pairs, SITE, "all", method="pca", evidence_rows=8)


@pytest.mark.parametrize("method", ["pca", "probe", "robust"])
def test_a_head_has_its_own_direction(model, method):
    pairs, site, size = PAIRS[:20], "blocks.2.attn.hook_z", int(model.cfg.d_head)
    plain, other = (it.extract(model, pairs, site, head=1, method=m) for m in ("difference_in_means", method))
    unit = other.direction / other.norm
    assert float(plain.direction @ unit) == pytest.approx(other.norm, rel=1e-4), (
        "the length of the head's own difference along it"
    )
    assert float(other.direction[:size].abs().sum()) == 0
    assert isinstance(other.evidence, tuple)
    assert other.evidence[0].positive.shape == (20, plain.direction.shape[0])


def test_reference_texts_are_texts(model):
    for wrong in ([], "hello"):
        with pytest.raises(ValueError, match="a list of texts"):
            it.extract(model, PAIRS[:4], SITE, method="mean_centring", reference=wrong)
