"""The same search for every vector: whatever its length, it is taken to the budget and chosen below it."""

import math
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.evaluator import Condition, Evaluator, evaluator, pooled, strongest
from interp_transfer.search.strengths import (
    FRACTIONS,
    HIGHEST,
    NEAR,
    SAFE,
    choose,
    judge_pooled,
    judge_random,
    judge_searched,
    largest_within,
    search_strengths,
    typical_norm,
)
from interp_transfer.stats import Estimate
from interp_transfer.vectors.controls import random_vectors

SITE = "blocks.3.hook_resid_pre"
BUDGET = 0.01


def made(strength: float, intact: float, kl: float, success: float = 1.0) -> Condition:
    def share(x: float) -> Estimate:
        return Estimate(x, x, x, 10)

    return Condition(share(success), share(intact), Estimate(kl, kl, kl, 10), strength, (), ())


@pytest.fixture(scope="module")
def validation(models, cats):
    return evaluator(models[1], cats, "validation", n=6)


@pytest.fixture(scope="module")
def vector(models):
    noise = torch.randn(24, generator=torch.Generator().manual_seed(0))
    return it.SteeringVector(noise, SITE, it.identity(models[1]))


def test_choose_takes_the_most_intact_then_success_then_the_gentlest():
    assert choose([made(0.5, 0.2, 0.01), made(1.0, 0.9, 0.1)]).strength == 1.0
    assert choose([made(2.0, 0.9, 0.1), made(1.0, 0.9, 0.1)]).strength == 1.0
    assert choose([made(1.0, 0.0, 0.1, success=0.1), made(2.0, 0.0, 0.1, success=0.3)]).strength == 2.0


def test_what_achieves_nothing_gets_the_largest():
    nothing = [made(*at, success=0.0) for at in ((0.5, 0.0, 0.1), (2.0, 0.0, 0.15))]
    assert choose(nothing).strength == 2.0
    assert choose([*nothing, made(1.0, 0.0, 0.1, success=0.01)]).strength == 1.0


@pytest.mark.parametrize("length", [1e-4, 0.03, 1.0, 300.0])
def test_vectors_of_any_length_end_at_the_same_cost(validation, vector, length):
    """A vector of 3% of another's length once ended at a ten-thousandth of its cost, because a grid of strengths ended."""
    searches = search_strengths(validation, {"whole": vector, "scaled": vector * length}, budget=BUDGET, progress=False)
    for search in searches.values():
        assert len(search.curve) == len(FRACTIONS) and not search.saturated
        assert (1 - 2 * NEAR) * BUDGET <= search.curve[-1].clean_kl <= BUDGET
        costs = [c.clean_kl for c in search.curve]
        assert costs == sorted(costs)
        assert [c.strength / search.curve[-1].strength for c in search.curve] == pytest.approx(FRACTIONS)
    ends = {name: search.curve[-1].strength for name, search in searches.items()}
    assert ends["scaled"] * length == pytest.approx(ends["whole"], rel=0.05)


def test_the_largest_strength_within_a_budget(models, validation, vector):
    def cost(strength: float) -> float:
        return validation.clean_kl(models[1], [(it.add(vector, strength),)])[0].mean().item()

    for budget in (1e-4, BUDGET, 0.3):
        found = largest_within(validation, {"": vector}, budget=budget)[""]
        assert cost(found.strength) == pytest.approx(found.clean_kl, rel=1e-3)
        assert (1 - NEAR) * SAFE * budget <= found.clean_kl <= SAFE * budget < cost(1.1 * found.strength)
    endless = largest_within(validation, {"": vector * 0.0, "x": vector}, budget=BUDGET)
    assert endless[""].saturated and endless[""].strength == HIGHEST and not endless["x"].saturated
    never = largest_within(validation, {"": lambda x: (it.add(vector, 1e4),)}, budget=BUDGET)[""]
    assert (never.strength, never.saturated) == (0.0, False), "its cost does not go down with the strength"
    with pytest.raises(ValueError, match="above zero"):
        largest_within(validation, {"": vector}, budget=0.0)


def test_the_cost_that_ends_the_search_is_not_measured_twice(models, validation, vector, monkeypatch):
    measured: list[float] = []
    real = Evaluator.costs

    def counted(self: Evaluator, settings: Any, progress: bool = False) -> Any:
        measured.extend(float(one.transform.strength) for setting in settings for one in setting)
        return real(self, settings, progress)

    monkeypatch.setattr(Evaluator, "costs", counted)
    vectors = {"one": vector, "other": random_vectors(vector, 1, seed=5)[0]}
    searches = search_strengths(validation, vectors, budget=BUDGET, progress=False)
    ends = [search.curve[-1].strength for search in searches.values()]
    assert [measured.count(end) for end in ends] == [1, 1], "once, in the search"
    for name, search in searches.items():
        for point in search.curve:
            [kl] = validation.clean_kl(models[1], [(it.add(vectors[name], point.strength),)])
            torch.testing.assert_close(torch.tensor(point.kl), kl, rtol=1e-4, atol=1e-7)


def test_a_search_without_costs_chooses_the_same_strengths(validation, vector):
    vectors = {"one": vector, "other": random_vectors(vector, 1, seed=5)[0]}
    every = search_strengths(validation, vectors, budget=BUDGET, progress=False)
    found = search_strengths(validation, vectors, budget=BUDGET, progress=False, costs=False)
    for name, search in found.items():
        assert search.strength == every[name].strength
        assert [point.success for point in search.curve] == [point.success for point in every[name].curve]
        assert search.curve[-1].kl == every[name].curve[-1].kl
        assert all(math.isnan(point.clean_kl) for point in search.curve[:-1]), "not measured, and not called free"


def test_every_random_direction_has_its_own_strength(validation, models, cats, vector):
    test = evaluator(models[1], cats, "test", n=6)
    random = judge_random(validation, test, vector, n=4, seed=3, budget=BUDGET, progress=False)
    assert len(random.draws) == 4 and len({c.strength for c in random.draws}) == 4
    assert random.success.n == 24
    assert random.clean_kl == pytest.approx(sum(c.clean_kl for c in random.draws) / 4), "over all draws, not the first"
    alone = judge_random(validation, test, vector, n=1, seed=3, budget=BUDGET, progress=False)
    assert alone.draws[0].strength == pytest.approx(random.draws[0].strength, rel=1e-3)
    assert alone.draws[0].completions == random.draws[0].completions


def test_draws_are_pooled_or_the_strongest_is_taken(validation):
    weak, strong = (validation.judge((), strength) for strength in (1.0, 3.0))
    both = pooled([weak, strong], "note")
    assert (both.strength, both.success.n, both.draws) == (2.0, 12, (weak, strong))
    assert strongest([made(1.0, 0.2, 0.0), made(2.0, 0.7, 0.0)], "").strength == 2.0


def test_typical_norm_is_the_mean_length(models):
    site, texts = "blocks.2.hook_resid_pre", ["a b", "c"]
    rows = it.capture(models[0], texts, site)[site]
    assert typical_norm(models[0], texts, site) == pytest.approx(float(rows.norm(dim=1).mean()), rel=1e-5)


def test_test_prompts_have_no_say_in_the_strengths(validation, models, cats, vector):
    """The strengths are those of a search on validation prompts, which differ from those of one on test prompts."""
    test = evaluator(models[1], cats, "test", n=6)
    draws = random_vectors(vector, 3, seed=3)
    named = {str(k): draw for k, draw in enumerate(draws)}
    here, there = (
        [s.strength for s in search_strengths(e, named, budget=BUDGET, progress=False).values()] for e in (validation, test)
    )
    assert here != pytest.approx(there, rel=0.02), "splits that choose the same strengths show nothing"
    searched = judge_searched(validation, test, named, budget=BUDGET, progress=False)
    assert [c.strength for c in searched.values()] == pytest.approx(here, rel=1e-3)
    pooled_draws = judge_pooled(validation, test, draws, budget=BUDGET, progress=False).draws
    assert [c.strength for c in pooled_draws] == pytest.approx(here, rel=1e-3)
    for draw, strength, one, other in zip(draws, here, searched.values(), pooled_draws, strict=True):
        alone = test.judge((it.add(draw, strength, cats.positions),), progress=False)
        assert (one.clean_kl, other.clean_kl) == (pytest.approx(alone.clean_kl, rel=1e-2),) * 2
        assert one.completions == other.completions == alone.completions
