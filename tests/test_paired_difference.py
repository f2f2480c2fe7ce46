import pytest
import torch

from interp_transfer.stats import paired_difference


def outcomes(both, one, other, neither):
    """Two conditions with so many prompts on which both, one alone, the other alone, or neither succeeds."""
    first = [True] * (both + one) + [False] * (other + neither)
    second = [True] * both + [False] * one + [True] * other + [False] * neither
    return first, second


def test_a_published_example():
    """Newcombe 1998, table II: 36, 12, 2, 0 of 50."""
    found = paired_difference(*outcomes(36, 12, 2, 0))
    assert found.difference == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0569, 0.3404), abs=5e-4)


def test_turned_round_it_is_the_same_with_the_other_sign():
    one, other = outcomes(50, 9, 3, 20)
    here, there = paired_difference(one, other), paired_difference(other, one)
    assert here.difference == -there.difference
    assert (here.low, here.high) == pytest.approx((-there.high, -there.low))


@pytest.mark.parametrize("n", [5, 50, 500])
def test_no_prompt_that_differs_is_no_proof_of_no_difference(n):
    found = paired_difference([True] * n, [True] * n)
    assert found.difference == 0
    assert found.low < 0 < found.high
    assert found.equivalent == (True if n == 500 else None)


def test_prompts_that_agree_make_it_narrow():
    agree = paired_difference(*outcomes(90, 5, 5, 100))
    apart = paired_difference(*outcomes(45, 50, 50, 55))
    assert agree.high - agree.low < 0.6 * (apart.high - apart.low)


@pytest.mark.parametrize(("p", "q", "rho"), [(0.95, 0.93, 0.5), (0.5, 0.4, 0.0), (0.99, 0.99, 0.8)])
def test_the_interval_holds_the_truth_as_often_as_it_says(p, q, rho):
    generator = torch.Generator().manual_seed(0)
    trials, n, held = 600, 120, 0
    for _ in range(trials):
        shared = torch.rand(n, generator=generator)
        own = torch.rand(n, generator=generator)
        other = torch.where(torch.rand(n, generator=generator) < rho, shared, own)
        found = paired_difference((shared < p).tolist(), (other < q).tolist())
        held += found.low <= p - q <= found.high
    assert held / trials > 0.92


@pytest.mark.parametrize(
    ("counts", "says"),
    [((480, 5, 4, 11), True), ((300, 150, 10, 40), False), ((90, 5, 3, 2), None)],
)
def test_equivalence_is_shown_refuted_or_open(counts, says):
    assert paired_difference(*outcomes(*counts)).equivalent is says


def test_equivalence_has_its_level():
    """Of conditions that differ by just the margin, one in twenty is called equivalent, about."""
    generator = torch.Generator().manual_seed(1)
    called = []
    for _ in range(600):
        draw = torch.rand(400, generator=generator)
        called.append(paired_difference((draw < 0.9).tolist(), (torch.rand(400, generator=generator) < 0.85).tolist()))
    assert sum(found.equivalent is True for found in called) / 600 < 0.07


def test_words():
    assert "equivalent within 0.05" in str(paired_difference(*outcomes(480, 5, 4, 11)))
    assert "not decided at this n" in str(paired_difference(*outcomes(9, 0, 1, 0)))
    assert paired_difference(*outcomes(9, 0, 1, 0), margin=0.2).to_dict()["margin"] == 0.2


def test_what_makes_no_sense():
    with pytest.raises(ValueError, match="2 and 1 outcomes"):
        paired_difference([True, False], [True])
    with pytest.raises(ValueError, match="0 and 0 outcomes"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="margin=0"):
        paired_difference([True], [True], margin=0)
