"""Predictors of the pair of sites: what each scores, the gradient behind one of them, and the sites found with their help."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.evaluator import draw, evaluator
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.models.tokens import tokenize
from interp_transfer.search import predictors as module
from interp_transfer.search.first_order import first_order
from interp_transfer.search.predictors import PREDICTORS, Predictions, find_sites, predict
from interp_transfer.search.strengths import search_strength

SITES = ["blocks.1.hook_resid_pre", "blocks.3.hook_resid_pre"]
WHERE: dict[str, Any] = {"source_sites": SITES, "target_sites": SITES, "progress": False}


@pytest.fixture(scope="module")
def found(models, cats) -> Predictions:
    return predict(models[0], models[1], cats, n=8, **WHERE)


def test_every_pair_has_a_vector_and_every_score(found, models):
    assert list(found.vectors) == [(s, t) for s in SITES for t in SITES]
    assert all(vector.site == t and vector.model == it.identity(models[1]) for (_, t), vector in found.vectors.items())
    for scores in found.scores.values():
        assert set(scores) == set(found.vectors) and all(map(math.isfinite, scores.values()))
    assert set(found.scores) == set(found.seconds) == set(PREDICTORS)
    assert all(0 <= score <= 1 for name in ("cka", "probe") for score in found.scores[name].values())
    assert max(found.scores["map"].values()) < 1 and max(found.scores["depth"].values()) <= 0
    assert found.ranked("depth")[:2] == [(SITES[0], SITES[0]), (SITES[1], SITES[1])]


def test_only_what_is_needed_is_computed(models, cats, monkeypatch):
    monkeypatch.setattr(module, "probe_sites", None)
    monkeypatch.setattr(module, "first_order", None)
    assert set(predict(models[0], models[1], cats, by=("depth", "map"), **WHERE).scores) == {"depth", "map"}


def test_the_gradient_is_the_slope_of_the_metric(models, cats):
    model, site = models[1], SITES[1]
    slope = first_order(model, cats, SITES, n=8)[site]
    direction = torch.randn(len(slope), generator=torch.Generator().manual_seed(0))
    vector = it.SteeringVector(direction, site, it.identity(model))
    prompts = draw(cats.prompts("validation"), 8, 0, "prompts")
    right = [model.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in cats.answers(prompts)]
    own = [ids[0] for ids in generate_tokens(model, prompts, max_new_tokens=1, progress=False)]
    assert all(r != s for r, s in zip(right, own, strict=True))

    def metric(strength: float) -> float:
        total = 0.0
        for prompt, r, s in zip(prompts, right, own, strict=True):
            ids = torch.tensor(tokenize(model, [prompt]))
            with it.applied(model, it.add(vector, strength, cats.positions)), torch.no_grad():
                logits = model(ids)[0, -1]
            total += float(logits[r] - logits[s])
        return total / len(prompts)

    step = 2e-3
    measured = (metric(step) - metric(-step)) / (2 * step)
    assert float(direction @ slope) == pytest.approx(measured, rel=2e-2, abs=1e-3)


def test_the_best_scored_pairs_alone_are_tried(found, models, cats):
    choice = find_sites(models[0], models[1], cats, few=2, n=8, **WHERE)
    assert list(choice.tried) == found.ranked()[:2]
    pair = (choice.source_site, choice.target_site)
    assert choice.vector is choice.predictions.vectors[pair] and choice.search is choice.tried[pair]
    best = choice.search.chosen
    for other in choice.tried.values():
        assert best.clean_kl <= cats.budget or other.chosen.clean_kl > cats.budget
    validation = evaluator(models[1], cats, "validation", n=8)
    assert search_strength(validation, choice.vector, progress=False).strength == pytest.approx(best.strength, rel=1e-3)


def test_what_cannot_be_predicted_is_refused(models, cats, monkeypatch):
    monkeypatch.setattr(module, "collect", None)
    one = {**WHERE, "source_sites": SITES[:1], "target_sites": SITES[:1]}
    with pytest.raises(ValueError, match="leaves nothing to choose from"):
        predict(models[0], models[1], cats, **one)
    with pytest.raises(ValueError, match="4 blocks"):
        predict(models[0], models[1], cats, target_sites=["blocks.9.hook_resid_pre"])
    with pytest.raises(ValueError, match="unknown predictor 'atribution': did you mean 'attribution'"):
        predict(models[0], models[1], cats, by=("atribution",))
    with pytest.raises(ValueError, match="few=0"):
        find_sites(models[0], models[1], cats, few=0)


def test_a_model_that_is_right_anyway_has_nothing_to_predict(models, cats):
    own = replace(cats, answers=lambda prompts: it.generate(models[1], prompts, max_new_tokens=3, progress=False))
    with pytest.raises(ValueError, match="begins every answer as it should"):
        first_order(models[1], own, SITES, n=4)


def test_probes_are_scored_on_texts_that_they_were_not_fitted_on(models, cats):
    """The sides of both splits are random texts, so a probe is perfect on the few that it was fitted on and nowhere else."""
    letters = torch.randint(97, 123, (156, 2, 8), generator=torch.Generator().manual_seed(0)).tolist()
    pairs = [("".join(map(chr, one)), "".join(map(chr, other))) for one, other in letters]
    chance = replace(cats, contrast={"train": pairs[:6], "validation": pairs[6:]}.__getitem__)
    scores = predict(models[0], models[1], chance, by=("probe",), n=8, **WHERE).scores["probe"].values()
    assert all(0.4**2 < score < 0.6**2 for score in scores)
