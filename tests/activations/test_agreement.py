import pytest
import torch
from sklearn.metrics import r2_score

from interp_transfer.activations.agreement import Agreement, fvu, mean_cosine, norm_ratio


def test_fvu_is_one_minus_r2_over_all_dimensions() -> None:
    truth = torch.randn(50, 8) * torch.arange(1, 9) + 5 * torch.arange(8)  # each dimension has its own mean
    guess = truth + torch.randn(50, 8)
    expected = 1 - r2_score(truth.numpy(), guess.numpy(), multioutput="variance_weighted")
    assert fvu(truth, guess) == pytest.approx(expected, rel=1e-5)
    assert fvu(truth, truth) == 0
    assert fvu(truth, truth.mean(0).expand_as(truth)) == pytest.approx(1.0, rel=1e-5)


def test_blocks_with_means_of_their_own_give_the_figure_of_all_rows() -> None:
    truth = torch.cat([torch.randn(30, 4) + k * torch.arange(4) for k in range(3)])
    guess = truth + torch.randn(90, 4)
    running, halves = Agreement(), (Agreement(), Agreement())
    for k, (rows, other) in enumerate(zip(truth.split(30), guess.split(30), strict=True)):
        running.update(rows, other)
        halves[k > 0].update(rows, other)
    expected = 1 - r2_score(truth.numpy(), guess.numpy(), multioutput="variance_weighted")
    assert running.fvu == pytest.approx(expected, rel=1e-5)
    assert halves[0].add(halves[1]).fvu == pytest.approx(expected, rel=1e-5)


def test_cosine_and_norm_ratio() -> None:
    truth = torch.randn(30, 8)
    assert mean_cosine(truth, 3 * truth) == pytest.approx(1.0)
    assert mean_cosine(truth, -truth) == pytest.approx(-1.0)
    assert norm_ratio(truth, 3 * truth) == pytest.approx(3.0)
