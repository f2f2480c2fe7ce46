import json
from dataclasses import replace

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.baselines import random_like
from interp_transfer.evaluation.compare import SCHEMA
from interp_transfer.evaluation.evaluator import Condition, Evaluator, evaluator, pooled, strongest
from interp_transfer.evaluation.judges.rules import Verdict
from interp_transfer.interventions.transforms import Add
from interp_transfer.stats import Estimate, share_to_dict

SITE = "blocks.2.hook_resid_pre"
N = 12
FREE = Estimate(0.0, 0.0, 0.0, 100)


@pytest.fixture(scope="module")
def model(models):
    return models[1]


@pytest.fixture(scope="module")
def native(model, cats):
    return it.extract(model, cats.contrast("train"), SITE)


@pytest.fixture(scope="module")
def result(model, cats, native):
    return it.compare(model, cats, {"native": it.add(native, 1.0), "off": it.add(native, 0.0)}, n=N, reference="native")


def test_baselines_are_added_and_everyone_gets_the_same_prompts(result):
    assert list(result.conditions) == ["unsteered", "native", "off", "random", "mean_ablated"]
    assert len(result.prompts) == N
    assert all(len(c.completions) == N for c in result.conditions.values())
    assert result.conditions["random"].success.n == 20 * N
    assert result.conditions["native"].success.n == N


def test_zero_strength_is_the_unsteered_model(result):
    assert result.conditions["off"].completions == result.conditions["unsteered"].completions
    assert result.conditions["off"].clean_kl < 1e-6
    assert result.conditions["unsteered"].clean_kl == 0.0
    assert result.conditions["native"].clean_kl > 0


def test_the_same_seed_gives_the_same_numbers(model, cats, native, result):
    again = it.compare(model, cats, {"native": it.add(native, 1.0), "off": it.add(native, 0.0)}, n=N, reference="native")
    assert again.to_dict() == result.to_dict()


def test_frame_plot_html_and_files(result, tmp_path):
    frame = result.to_frame()
    assert list(frame.index) == list(result.conditions)
    assert {"success", "success_low", "success_high", "intact", "clean_kl", "n", "strength"} <= set(frame.columns)
    assert result.plot().data
    assert "native" in result._repr_html_()
    result.save(tmp_path / "r")
    stored = json.loads((tmp_path / "r" / "result.json").read_text())
    assert stored["schema"] == SCHEMA
    assert stored["conditions"]["native"]["success"] == share_to_dict(result.conditions["native"].success)
    said = json.loads((tmp_path / "r" / "completions.json").read_text())
    assert len(said["conditions"]["native"]) == len(said["prompts"]) == N


def test_random_vectors_have_the_norm_of_the_reference(native):
    for strength in (1.0, 2.5):
        for drawn in random_like(it.add(native, strength, "prompt"), seed=0):
            assert isinstance(drawn.transform, Add)
            assert drawn.transform.direction.norm().item() == pytest.approx(strength * native.norm, rel=1e-4)
            assert (drawn.site, drawn.positions) == (native.site, "prompt")
    one, two = (random_like(it.add(native), seed=seed)[0].transform for seed in (0, 1))
    assert not torch.equal(one.direction, two.direction)  # type: ignore[union-attr]


def test_random_is_judged_on_the_first_prompts(model, cats, native):
    test = evaluator(model, cats, "test", n=6)
    few = test.few(2)
    assert few.prompts == test.prompts[:2] and few.clean_kl.answers == test.clean_kl.answers[:2]
    alone, whole = (one.judge((it.add(native),)) for one in (few, test))
    assert alone.completions == whole.completions[:2]
    assert alone.kl == pytest.approx(whole.kl[:2], rel=1e-3)


def test_a_pooled_cost_is_over_all_draws_on_the_prompts_that_they_share():
    def drawn(success: list[bool], kl: list[float], strength: float) -> Condition:
        verdicts = tuple(Verdict(s, s, "") for s in success)
        return Condition(FREE, FREE, FREE, strength, ("x",) * len(success), verdicts, tuple(kl))

    draws = [drawn([True, False, True, True], [0.0, 0.2, 9.0], 1.0), drawn([False, False], [1.0, 1.2], 5.0)]
    whole = pooled(draws, "both")
    assert (whole.success.value, whole.success.n) == (0.25, 4) and (whole.cost.value, whole.cost.n) == (pytest.approx(0.6), 4)
    assert whole.cost.low == 0.0 < whole.cost.value < whole.cost.high
    assert (whole.strength, whole.note, whole.draws) == (3.0, "both", tuple(draws))
    assert whole.completions == draws[0].completions


def test_forced_first_tokens_are_those_of_right_answers(model, cats):
    test = evaluator(model, cats, "test", n=6)
    judged = test.forced_first_token()
    tok = model.tokenizer
    for text, answer in zip(judged.completions, cats.answers(test.prompts), strict=True):
        assert text.startswith(tok.decode(tok(answer)["input_ids"][:1]))


def test_bad_comparisons_are_refused(model, cats, native):
    steer = it.add(native)
    with pytest.raises(ValueError, match="at least one"):
        it.compare(model, cats, {})
    with pytest.raises(ValueError, match="added by themselves"):
        it.compare(model, cats, {"random": steer})
    with pytest.raises(ValueError, match="reference='moved'"):
        it.compare(model, cats, {"native": steer}, reference="moved")
    with pytest.raises(ValueError, match="choose n from 1"):
        it.compare(model, cats, {"native": steer}, n=10**6)
    with pytest.raises(ValueError, match="adds a vector"):
        it.compare(model, cats, {"gone": it.ablate(native)}, n=5)


def test_all_random_draws_are_pooled_the_first_one_on_all_prompts(model, cats, native, monkeypatch):
    monkeypatch.setattr("interp_transfer.evaluation.evaluator.RANDOM_PROMPTS", 3)
    settings = [(one,) for one in random_like(it.add(native, 1.0), seed=0, draws=4)]
    judged = evaluator(model, cats, "test", n=6).judge_draws(settings, [1.0] * 4)
    assert [len(draw.verdicts) for draw in judged.draws] == [6, 3, 3, 3]
    assert judged.success.n == 4 * 3


def test_groups_of_draws_share_batches_and_are_judged_as_alone(model, cats, native, monkeypatch):
    monkeypatch.setattr("interp_transfer.evaluation.evaluator.RANDOM_PROMPTS", 3)
    draws = [(one,) for one in random_like(it.add(native, 1.0), seed=0, draws=2)]
    settings = {"native": [(it.add(native, 1.0),)], "random": draws, "control": draws}
    strengths = {name: [1.0] * len(group) for name, group in settings.items()}
    test, batches = evaluator(model, cats, "test", n=6), []
    completions = Evaluator.completions
    monkeypatch.setattr(Evaluator, "completions", lambda self, *a: batches.append(len(a[0])) or completions(self, *a))
    judged = test.judge_groups(settings, strengths, random=("random",))
    assert batches == [4, 1]
    assert {name: [len(draw.verdicts) for draw in group] for name, group in judged.items()} == {
        "native": [6],
        "random": [6, 3],
        "control": [6, 6],
    }
    assert judged["native"][0].completions == test.judge(settings["native"][0], 1.0).completions
    assert judged["random"][1].completions == test.few(3).judge(draws[1], 1.0).completions


def test_the_strongest_draw_is_that_with_most_intact_answers(result):
    draws = [replace(result.conditions["native"], intact=Estimate(value, 0.0, 1.0, 10)) for value in (0.1, 0.7, 0.3)]
    found = strongest(draws, "the strongest of 3")
    assert (found.intact.value, found.note, found.draws) == (0.7, "the strongest of 3", tuple(draws))
