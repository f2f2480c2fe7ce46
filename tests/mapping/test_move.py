"""A moved vector may be given the length that its evidence's spread says."""

import pytest
import torch

from interp_transfer.mapping.card import Card
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.move import MODES, applicable_mode, at_spread, is_difference, move, spread
from interp_transfer.mapping.networks import make_core
from interp_transfer.models.identity import ModelIdentity, Space
from interp_transfer.vectors.vector import Contrast, Reference, SteeringVector

MODEL = ModelIdentity("a", "1" * 16)
SITE = "blocks.1.hook_resid_pre"


def rows(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def vector_of(positive, negative):
    evidence = (Contrast(positive, negative),)
    return SteeringVector(evidence[0].difference(), SITE, MODEL, evidence)


def test_spread_is_about_each_sides_own_mean():
    positive, negative = rows(4000, 9, 0) * 2 + 100, rows(4000, 9, 1) * 2 - 50
    assert spread((Contrast(positive, negative),)) == pytest.approx(2 * 3, rel=0.02)  # sqrt(9) dimensions of deviation 2
    assert spread(Reference(positive)) == pytest.approx(6, rel=0.02)


def test_a_map_that_shrinks_is_undone_and_one_that_turns_is_left():
    vector = vector_of(rows(300, 6, 0) + 3, rows(300, 6, 1))
    turn = torch.linalg.qr(rows(6, 6, 2))[0]
    shrunk = vector_of(*(side @ turn * 0.2 for side in (vector.evidence[0].positive, vector.evidence[0].negative)))  # pyright: ignore
    back = at_spread(shrunk, vector)
    assert back.norm == pytest.approx(vector.norm * 0.2, rel=1e-4)  # the space itself is smaller: nothing to undo
    weak = SteeringVector(shrunk.direction / 3, SITE, MODEL, shrunk.evidence)  # the direction is shrunk and its evidence is not
    assert at_spread(weak, vector).norm == pytest.approx(vector.norm * 0.2, rel=1e-4)
    assert at_spread(weak, vector).cosine(shrunk) == pytest.approx(1.0, abs=1e-5)


def test_no_measure_no_length():
    vector = vector_of(rows(30, 6, 0) + 3, rows(30, 6, 1))
    with pytest.raises(ValueError, match="no evidence"):
        at_spread(SteeringVector(vector.direction, SITE, MODEL), vector)
    same = torch.ones(5, 6)
    with pytest.raises(ValueError, match="all activations of the evidence are the same"):
        at_spread(vector_of(same * 2, same), vector)


def mapper_of(d_source, d_target):
    """An autoencoder of random weights between two models."""
    torch.manual_seed(0)
    other = ModelIdentity("b", "2" * 16)
    core = make_core("autoencoder", (d_source, d_target), {"width": 7})
    card = Card("autoencoder", 1, 0.0, 1.0, 1.0, 1, 1, 0)
    return Mapper(core, Space(MODEL, SITE, d_source), Space(other, SITE, d_target), card).requires_grad_(False)


@pytest.mark.parametrize("mode", MODES)
def test_a_mapper_gives_either_norm(mode):
    mapper, vector = mapper_of(6, 9), vector_of(rows(50, 6, 0) + 3, rows(50, 6, 1))
    mapped, spreading = (mapper.transfer(vector, mode, norm) for norm in ("mapped", "spread"))
    assert torch.equal(mapper.transfer(vector, mode).direction, mapped.direction), "mapped is the default"
    assert spreading.cosine(mapped) == pytest.approx(1.0, abs=1e-5), "the same direction"
    positive, negative = (mapper(side) for side in (vector.evidence[0].positive, vector.evidence[0].negative))  # pyright: ignore
    ratio = spread((Contrast(positive, negative),)) / spread(vector.evidence)
    assert spreading.norm == pytest.approx(vector.norm * ratio, rel=1e-4)
    assert spreading.norm != pytest.approx(mapped.norm, rel=0.01)
    assert (mapped.history[-1].split(", ")[-1], spreading.history[-1].split(", ")[-1]) == ("norm mapped", "norm spread")


def test_a_bare_direction_is_given_its_length_by_reference_activations():
    mapper, seen = mapper_of(6, 9), rows(80, 6, 0)
    bare = SteeringVector(rows(1, 6, 1)[0], SITE, MODEL, Reference(seen))
    moved = mapper.transfer(bare, "delta", "spread")
    ratio = spread(Reference(mapper(seen))) / spread(Reference(seen))
    assert moved.norm == pytest.approx(bare.norm * ratio, rel=1e-4)


def test_an_unknown_norm_is_named():
    mapper, vector = mapper_of(6, 9), vector_of(rows(5, 6, 0) + 3, rows(5, 6, 1))
    with pytest.raises(ValueError, match="unknown norm 'spred': did you mean 'spread'"):
        mapper.transfer(vector, norm="spred")
    with pytest.raises(ValueError, match="unknown norm 'x': there are mapped, spread"):
        mapper.transfer(vector, norm="x")
    with pytest.raises(ValueError, match="no evidence"):
        mapper.transfer(SteeringVector(vector.direction, SITE, MODEL), "raw", "spread")


def with_massive_rows(mapper):
    mapper.massive_norm.fill_(50.0)
    mapper.massive_out.fill_(3.0)
    return mapper


@pytest.mark.parametrize("mode", ["delta", "jacobian"])
def test_rows_that_a_mapper_sets_apart_have_no_share_in_a_moved_vector(mode):
    mapper = with_massive_rows(mapper_of(6, 5))
    ordinary = rows(40, 6, 0)
    bare = SteeringVector(rows(1, 6, 1)[0], SITE, MODEL, Reference(ordinary))
    massive = SteeringVector(bare.direction, SITE, MODEL, Reference(torch.cat([ordinary, 1000 * rows(4, 6, 2)])))
    assert torch.allclose(mapper.transfer(massive, mode).direction, mapper.transfer(bare, mode).direction, atol=1e-6)
    with pytest.raises(ValueError, match="all 4 activations are massive"):
        mapper.transfer(SteeringVector(bare.direction, SITE, MODEL, Reference(1000 * rows(4, 6, 2))), mode)


def test_a_direction_that_is_not_its_evidences_difference_is_moved_as_itself():
    mapper = mapper_of(6, 5)
    means = vector_of(rows(40, 6, 0) + 1, rows(40, 6, 1))
    probe = SteeringVector(rows(1, 6, 2)[0], SITE, MODEL, means.evidence, "probe")
    moved = mapper.transfer(probe)
    assert torch.equal(moved.direction, mapper.transfer(probe, "delta").direction)
    assert not torch.allclose(moved.direction, mapper.transfer(means).direction, atol=1e-3)
    assert "mode delta (not difference" in moved.history[-1]
    assert "mode difference, norm" in mapper.transfer(means).history[-1]


def test_a_sample_of_the_evidence_may_differ_from_the_mean_of_all_rows():
    positive, negative = rows(3000, 6, 0) + 1, rows(3000, 6, 1)
    direction = positive.mean(dim=0) - negative.mean(dim=0)
    evidence = (Contrast(positive[:100], negative[:100]),)
    assert is_difference(SteeringVector(direction, SITE, MODEL, evidence, "difference_in_means"))
    assert not is_difference(SteeringVector(direction, SITE, MODEL, evidence, "probe"))
    assert not is_difference(SteeringVector(-direction, SITE, MODEL, evidence, "difference_in_means"))


def test_a_sum_with_a_bare_direction_moves_both():
    """Through an affine map, moving a sum is moving its terms."""
    turn, means = torch.linalg.qr(rows(6, 6, 3))[0], vector_of(rows(40, 6, 0) + 1, rows(40, 6, 1))
    bare = SteeringVector(rows(1, 6, 2)[0], SITE, MODEL)
    both = means + bare
    direction, _ = move(lambda a: a @ turn + 7, both, applicable_mode(both, "difference"))
    assert torch.allclose(direction, (means.direction + bare.direction) @ turn, atol=1e-5)


def bent(a):
    """A map whose effect of a step depends on where the step starts, as an autoencoder's does."""
    return torch.cat([a.square(), a.sin()], dim=1)


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_a_step_starts_where_it_leads_to_the_other_side(weight):
    """The step from each row to its partner is the vector itself, so delta is the difference, from this side alone."""
    start = rows(40, 6, 0)
    vector = 3 * rows(1, 6, 1)[0]
    sides = (start + vector, start) if weight > 0 else (start, start + vector)
    contrast = Contrast(*sides, weight)
    steering = SteeringVector(contrast.difference(), SITE, MODEL, (contrast,))
    assert torch.allclose(steering.direction, vector, atol=1e-5)
    expected = (bent(start + vector) - bent(start)).mean(dim=0)
    wrong = (bent(start + 2 * vector) - bent(start + vector)).mean(dim=0)
    assert (expected - wrong).abs().max() > 1
    for mode in ("difference", "delta"):
        assert torch.allclose(move(bent, steering, mode)[0], expected, atol=1e-4), mode
    slope = torch.cat([2 * start * vector, start.cos() * vector], dim=1).mean(dim=0)
    assert torch.allclose(move(bent, steering, "jacobian")[0], slope, atol=1e-5)


def test_steps_of_a_sum_start_from_the_side_of_each_contrast():
    first, second = Contrast(rows(30, 6, 0) + 5, rows(30, 6, 1)), Contrast(rows(10, 6, 2) - 7, rows(20, 6, 3) + 9, -0.5)
    vector = SteeringVector(rows(1, 6, 4)[0], SITE, MODEL, (first, second))
    start = torch.cat([first.negative, second.positive])
    assert torch.equal(move(bent, vector, "delta")[0], (bent(start + vector.direction) - bent(start)).mean(dim=0))
