"""CKA: its invariances, an independent formula, and what it says of models."""

import pytest
import torch

from interp_transfer.evaluation.similarity import cka, layerwise_cka


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(500, 12, generator=generator), torch.randn(500, 7, generator=generator)


def test_equals_the_formula_with_gram_matrices(rows):
    """HSIC of linear kernels, centred by the n x n centring matrix (Kornblith et al., equations 1 and 2)."""
    x, y = rows
    y = y + x[:, :7]
    centring = torch.eye(500) - 1 / 500
    k, m = (centring @ (a @ a.T) @ centring for a in (x, y))
    expected = (k * m).sum() / (k.norm() * m.norm())
    assert cka(x, y) == pytest.approx(float(expected), rel=1e-4)


def test_rotation_scale_and_shift_change_nothing(rows):
    x, _ = rows
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1))).Q
    assert cka(x, 3 * x @ rotation + 5) == pytest.approx(1.0, abs=1e-5)
    stretched = x * torch.tensor([10.0] + [1.0] * 11)
    assert cka(x, stretched) < 0.9, "CKA is no measure of what a linear map could undo"


def test_independent_rows_are_near_what_chance_gives(rows):
    x, y = rows
    assert cka(x, y) < 0.05


@pytest.mark.parametrize("other", [torch.zeros(3, 2), torch.zeros(1, 2)])
def test_what_cannot_be_compared_is_refused(other):
    with pytest.raises(ValueError, match="as many rows"):
        cka(torch.zeros(1, 2), other)


def test_constant_rows_are_refused():
    with pytest.raises(ValueError, match="all rows are the same"):
        cka(torch.ones(5, 2), torch.rand(5, 2))


def test_a_model_is_like_itself_and_less_like_another(models, cats):
    prompts = cats.prompts("test")
    same, chance = layerwise_cka(models[0], models[0], prompts, progress=False)
    other, _ = layerwise_cka(models[0], models[1], prompts, progress=False)
    assert same.shape == other.shape == (4, 4)
    assert same[0].isnan().all() and other[:, 0].isnan().all(), "the last token is the same in every prompt"
    assert torch.allclose(same[1:, 1:].diagonal(), torch.ones(3), atol=1e-4)
    assert torch.allclose(same[1:, 1:], same[1:, 1:].T, atol=1e-4)
    assert other[1:, 1:].max() < 0.999
    assert chance[1:, 1:].max() < same[1:, 1:].min()
