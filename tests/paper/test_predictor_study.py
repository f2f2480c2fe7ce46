"""Predictors of the pair of sites against a sweep over all pairs."""

import math
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.evaluation.evaluator import evaluator
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.paper import predictors as module
from interp_transfer.paper.predictors import PREDICTORS, PredictorStudy, compare_predictors
from interp_transfer.search.sweep_result import SweepPoint
from interp_transfer.stats import rate
from tests.registered import cats, checkpoints, models, pairs_file

__all__ = ["cats", "checkpoints", "models", "pairs_file"]

SITES = ["blocks.1.hook_resid_pre", "blocks.3.hook_resid_pre"]
BUDGET = 1.0
WHERE: dict[str, Any] = {"source_sites": SITES, "target_sites": SITES, "progress": False}


@pytest.fixture(scope="module")
def study(models, cats) -> PredictorStudy:
    return compare_predictors(models[0], models[1], cats, n=8, budget=BUDGET, **WHERE)


def test_every_pair_has_its_outcome_and_its_scores(study):
    assert [(p["source_site"], p["target_site"]) for p in study.pairs] == [(s, t) for s in SITES for t in SITES]
    for pair in study.pairs:
        assert all(math.isfinite(pair[name]) for name in PREDICTORS)
        assert 0 <= pair["intact"] <= pair["success"] <= 1 and pair["strength"] > 0 and pair["clean_kl"] <= BUDGET
    assert set(study.seconds) == {*PREDICTORS, "sweep"} and study.seconds["sweep"] > 0
    frame = study.table()
    assert list(frame.index) == list(PREDICTORS) and (frame["regret"] >= 0).all()
    assert len(study.plot("attribution").data[0].z) == 2


def test_the_outcome_is_that_of_the_best_setting_within_the_budget(study, models, cats):
    pair = study.pairs[-1]
    pairs = it.collect(
        models[0], models[1], cats.texts("train"), *zip(*[(s, t) for s in SITES for t in SITES], strict=True), progress=False
    )
    where = pair["source_site"], pair["target_site"]
    moved = it.fit(pairs, "affine", sites=where, progress=False).transfer(
        it.extract(models[0], cats.contrast("train"), where[0])
    )
    steer = it.add(moved, pair["strength"], cats.positions)
    alone = evaluator(models[1], cats, "validation", n=8).judge((steer,), 1.0, progress=False)
    assert (pair["success"], pair["intact"]) == (alone.success.value, alone.intact.value)
    assert pair["clean_kl"] == pytest.approx(alone.clean_kl, rel=1e-3) and alone.clean_kl <= BUDGET * 1.001


def canned(truth: list[float], guess: list[float], seconds: float = 1.0) -> PredictorStudy:
    model = ModelIdentity("a", "1" * 16)
    pairs = [
        {
            "source_site": f"blocks.{k}.hook_resid_pre",
            "target_site": "blocks.0.hook_resid_pre",
            "success": x,
            "intact": x,
            "map": g,
        }
        for k, (x, g) in enumerate(zip(truth, guess, strict=True))
    ]
    return PredictorStudy("made", model, model, tuple(pairs), {"map": seconds, "sweep": 100.0})


def row(truth: list[float], guess: list[float], seconds: float = 1.0) -> Any:
    return canned(truth, guess, seconds).table().loc["map"]


def test_the_table_says_what_a_first_choice_loses():
    truth = [0.1 * k for k in range(10)] * 4
    perfect = row(truth, truth)
    assert perfect["spearman"] == pytest.approx(1) and perfect["regret"] == pytest.approx(0) and perfect["cost"] == 0.01
    assert perfect["tried"] == 3 and perfect["cost_confirmed"] == pytest.approx(0.01 + 3 / 40)
    assert row(truth, truth, 50.0).tried == 1, "the first choice is tried even if nothing is left"
    wrong = row(truth, [-x for x in truth])
    assert wrong["spearman"] == pytest.approx(-1) and wrong["regret"] == pytest.approx(0.9)
    tied = row(truth, [1.0] * 40)
    assert math.isnan(tied["spearman"]) and tied["regret"] == pytest.approx(0.9 - 0.45), "the mean over ties"
    second = row([0.2, 0.9, 0.5] * 10, [3.0, 2.0, 1.0] + [0.0] * 27)
    assert second["regret"] == pytest.approx(0.7) and second["regret_confirmed"] == pytest.approx(0)


def test_a_pair_whose_every_setting_is_beyond_the_budget_has_no_success():
    share = rate([True, True, False])
    for cost, expected in ((0.02, share.value), (0.03, 0.0), (None, 0.0)):
        point = SweepPoint("blocks.4.hook_resid_pre", "all", 1.0, 1.0, share, share, cost, True)
        found = module._row(("a", "b"), point, 0.02)
        assert (found["success"], found["intact"], found["clean_kl"]) == (expected, expected, cost)
