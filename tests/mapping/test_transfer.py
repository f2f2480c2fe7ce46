"""A moved vector may be given the length that its evidence's spread says."""

import pytest
import torch

from interp_transfer.interventions.vector import Contrast, Reference, SteeringVector
from interp_transfer.mapping.transfer import at_spread, spread
from interp_transfer.models.load import ModelIdentity

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
    with pytest.raises(ValueError, match="the same activation over and over"):
        at_spread(vector_of(same * 2, same), vector)
