"""The usual transforms, on plain tensors."""

from typing import Any

import pytest
import torch
from torch import Tensor

from interp_transfer.activations.positions import Layout
from interp_transfer.interventions.transforms import Ablate, Add, At, Clamp, MeanAblate, Noise, When

D = 8


def rows(n: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def at(texts: list[int], positions: list[int]) -> At:
    """One token for each pair of text and position."""
    columns = max(positions) + 1
    tokens = torch.arange(len(texts) * columns).reshape(len(texts), columns)
    real = torch.ones_like(tokens, dtype=torch.bool)
    layout = Layout(tokens, real, torch.full((len(texts),), columns), torch.tensor(texts))
    return At(layout, (torch.arange(len(texts)), torch.tensor(positions)))


HERE = at([4, 0, 1, 1, 2, 3], [0, 1, 2, 3, 0, 7])


def test_at_says_which_tokens_the_rows_are() -> None:
    real = torch.tensor([[False, True, True], [True, True, True]])
    layout = Layout(torch.tensor([[0, 11, 12], [20, 21, 22]]), real, torch.tensor([1, 3]), torch.tensor([5, 9]))
    where = At(layout, (torch.tensor([0, 1, 0]), torch.tensor([1, 2, 2])))
    assert where.row.tolist() == [5, 9, 5]
    assert where.position.tolist() == [0, 2, 1], "padding on the left is not counted"
    assert where.token.tolist() == [11, 22, 12]


def test_add() -> None:
    a, v = rows(), torch.randn(D)
    torch.testing.assert_close(Add(v, 2.0)(a), a + 2 * v)
    torch.testing.assert_close(Add(v)(a, HERE), a + v)
    strengths = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    torch.testing.assert_close(Add(v, strengths)(a, HERE), a + strengths[HERE.row][:, None] * v)
    many = rows(5, seed=1)
    torch.testing.assert_close(Add(many, 2.0)(a, HERE), a + 2 * many[HERE.row])
    assert torch.equal(Add(v, 0.0)(a), a)


def test_nothing_is_edited_in_place() -> None:
    a, v = rows(), torch.randn(D)
    before = a.clone()
    for transform in (Add(v), Ablate(v), Clamp(v, 1.0), MeanAblate(v), Noise(1.0)):
        transform(a, HERE)
        assert torch.equal(a, before), transform


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_ablate_leaves_nothing_along_the_direction_and_the_rest_alone(scale: float) -> None:
    a, v = rows(), scale * torch.randn(D)
    out = Ablate(v)(a)
    assert (out @ (v / v.norm())).abs().max() < 1e-5
    across = torch.linalg.qr(torch.cat([v[:, None], torch.randn(D, D - 1)], dim=1))[0][:, 1:]
    torch.testing.assert_close(out @ across, a @ across, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(Ablate(v)(out), out, atol=1e-6, rtol=1e-6)


def test_ablate_one_direction_for_each_text() -> None:
    a, many = rows(), rows(5, seed=1)
    out = Ablate(many)(a, HERE)
    unit = many / many.norm(dim=1, keepdim=True)
    assert (out * unit[HERE.row]).sum(1).abs().max() < 1e-5


def test_clamp_sets_the_component() -> None:
    a, v = rows(), 7 * torch.randn(D)
    out = Clamp(v, 3.0)(a)
    torch.testing.assert_close(out @ (v / v.norm()), torch.full((6,), 3.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(Ablate(v)(out), Ablate(v)(a), atol=1e-5, rtol=0)
    values = torch.arange(5.0)
    torch.testing.assert_close(Clamp(v, values)(a, HERE) @ (v / v.norm()), values[HERE.row], atol=1e-5, rtol=0)


def test_replace_and_mean_ablate() -> None:
    a, v, many = rows(), torch.randn(D), rows(5, seed=1)
    assert torch.equal(MeanAblate(v)(a), v.expand(6, D))
    assert torch.equal(MeanAblate(many)(a, HERE), many[HERE.row])


def test_noise_depends_on_seed_text_and_position_alone() -> None:
    a = rows()
    noise = Noise(0.5, seed=3)(a, HERE) - a
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = At(HERE.layout, (HERE.index[0][order], HERE.index[1][order]))
    torch.testing.assert_close(Noise(0.5, seed=3)(a[order], shuffled) - a[order], noise[order], atol=1e-6, rtol=0)
    assert not torch.allclose(Noise(0.5, seed=4)(a, HERE) - a, noise, atol=0.1)
    torch.testing.assert_close(Noise(0.5, seed=3, replace=True)(a, HERE), noise, atol=1e-6, rtol=0)


def test_noise_is_white() -> None:
    texts, positions = 60, 40
    layout = Layout(
        torch.zeros(texts, positions, dtype=torch.long),
        torch.ones(texts, positions, dtype=torch.bool),
        torch.full((texts,), positions),
        torch.arange(texts),
    )
    row, column = torch.ones(texts, positions, dtype=torch.bool).nonzero(as_tuple=True)
    everywhere = At(layout, (row, column))
    drawn = Noise(2.0, replace=True)(torch.zeros(texts * positions, D), everywhere)
    assert drawn.mean().abs() < 0.05
    assert drawn.std() == pytest.approx(2.0, rel=0.02)
    cosine = torch.nn.functional.normalize(drawn, dim=1)
    pairs = (cosine @ cosine.T).fill_diagonal_(0).abs()
    assert pairs.max() < 0.9999, "no two tokens share their noise"
    share = torch.corrcoef(drawn.T).fill_diagonal_(0).abs().max()
    assert share < 0.1, "nor are coordinates correlated"


def test_dtype_of_the_rows_is_kept() -> None:
    a, v = rows().bfloat16(), torch.randn(D)
    for transform in (Add(v), Ablate(v), Clamp(v, 1.0), MeanAblate(v), Noise(1.0)):
        assert transform(a, HERE).dtype == torch.bfloat16, transform


def test_refusals() -> None:
    a, zero = rows(), torch.zeros(D)
    transform: Any
    for transform in (Ablate(zero), Clamp(zero, 1.0)):
        with pytest.raises(ValueError, match="norm zero"):
            transform(a)
    with pytest.raises(ValueError, match="needs to know the texts"):
        Add(rows(5))(a)
    with pytest.raises(ValueError, match="3 directions or strengths for text 4"):
        Add(rows(3))(a, HERE)


def test_when_hands_on_which_rows_they_are():
    layout = Layout(torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.bool), torch.tensor([3]), torch.tensor([7]))
    at = At(layout, (torch.zeros(3, dtype=torch.long), torch.arange(3)))
    seen = []

    def note(a, at):
        seen.append((at.row.tolist(), at.position.tolist(), at.token.tolist()))
        return a * 0

    rows = torch.tensor([[1.0, 1.0], [-1.0, 0.0], [2.0, 0.0]])
    out = When(lambda a: a[:, 0], note)(rows, at)
    assert seen == [([7, 7], [0, 2], [1, 3])]
    assert torch.equal(out, torch.tensor([[0.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]))
    assert torch.equal(When(lambda a: a[:, 0], note, above=9.0)(rows, at), rows)
    with pytest.raises(ValueError, match="a score for each row"):
        When(lambda a: a, note)(rows, at)


@pytest.mark.parametrize("strength", [2, 2.0])
def test_a_strength_may_be_an_integer(strength: float | int) -> None:
    rows = torch.zeros(3, 4)
    assert torch.equal(Add(torch.ones(4), strength)(rows), rows + 2)
