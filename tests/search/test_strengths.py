import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.evaluator import Condition, evaluator
from interp_transfer.search.strengths import choose, largest_within, strength_curve, typical_norm
from interp_transfer.stats import Estimate


def made(strength: float, intact: float, kl: float, success: float = 1.0) -> Condition:
    def share(x: float) -> Estimate:
        return Estimate(x, x, x, 10)

    return Condition(share(success), share(intact), Estimate(kl, kl, kl, 10), strength, (), ())


def test_choose_takes_the_most_intact_within_the_budget():
    swept = [made(0.5, 0.2, 0.01), made(1.0, 0.9, 0.1), made(2.0, 1.0, 0.5)]
    assert choose(swept, budget=0.2).strength == 1.0
    assert choose(swept, budget=1.0).strength == 2.0


def test_choose_prefers_the_gentler_of_equals_and_success_before_that():
    assert choose([made(2.0, 0.9, 0.1), made(1.0, 0.9, 0.1)], 0.2).strength == 1.0
    assert choose([made(1.0, 0.0, 0.1, success=0.1), made(2.0, 0.0, 0.1, success=0.3)], 0.2).strength == 2.0


def test_what_achieves_nothing_is_not_left_at_the_gentlest():
    nothing = [made(*at, success=0.0) for at in ((0.5, 0.0, 0.1), (2.0, 0.0, 0.15), (4.0, 0.0, 0.3))]
    assert choose(nothing, 0.2).strength == 2.0, "the largest within the budget"
    assert choose([*nothing, made(1.0, 0.0, 0.1, success=0.01)], 0.2).strength == 1.0


def test_choose_falls_back_to_the_gentlest():
    assert choose([made(2.0, 0.9, 9.0), made(0.5, 0.1, 5.0)], 0.2).strength == 0.5


def test_strength_zero_costs_nothing_and_more_costs_more(models, cats):
    validation = evaluator(models[1], cats, "validation", n=10)
    noise = torch.randn(24, generator=torch.Generator().manual_seed(0))
    vector = it.SteeringVector(noise, "blocks.3.hook_resid_pre", it.identity(models[1]))
    swept = strength_curve(validation, lambda x: [it.add(vector, x)], (0.0, 1.0, 4.0), progress=False)
    assert [c.strength for c in swept] == [0.0, 1.0, 4.0]
    assert swept[0].clean_kl < 1e-6
    assert swept[0].clean_kl < swept[1].clean_kl < swept[2].clean_kl


def test_the_largest_strength_within_a_budget(models, cats):
    validation = evaluator(models[1], cats, "validation", n=4)
    noise = torch.randn(24, generator=torch.Generator().manual_seed(0))
    vector = it.SteeringVector(noise, "blocks.3.hook_resid_pre", it.identity(models[1]))

    def cost(strength: float) -> float:
        return validation.clean_kl(models[1], [(it.add(vector, strength),)])[0].mean().item()

    found = largest_within(validation, vector, 0.01)
    assert 0 < found < 16
    assert cost(found) <= 0.01 < cost(1.03 * found)
    assert largest_within(validation, vector, 1e9) == 16.0
    with pytest.raises(ValueError, match="above zero"):
        largest_within(validation, vector, 0.0)


def test_typical_norm_is_the_mean_length(models):
    site, texts = "blocks.2.hook_resid_pre", ["a b", "c"]
    rows = it.capture(models[0], texts, site)[site]
    assert typical_norm(models[0], texts, site) == pytest.approx(float(rows.norm(dim=1).mean()), rel=1e-5)
