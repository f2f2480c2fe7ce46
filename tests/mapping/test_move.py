"""A moved vector may be given the length that its evidence's spread says."""

import pytest
import torch

from interp_transfer.mapping.card import Card
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.move import MODES, at_spread, spread
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
