"""The whole pipeline on two tiny models, and the folder that it writes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.compare import digests
from interp_transfer.io import file_hash, read_tensors
from interp_transfer.reporting.command import command
from interp_transfer.studies.rerun import rerun
from interp_transfer.studies.save import marked_tokens
from interp_transfer.studies.sweep import sweep_study
from tests.checkpoints import raw_model, raw_tokenizer
from tests.registered import SITE, register
from tests.studies.conftest import QUICK

ONE = {**QUICK, "n": 2, "seeds": 1}
SITES = {"source_site": SITE, "target_site": SITE}


@pytest.fixture(scope="module")
def stored(run_folder: Path) -> dict[str, Any]:
    return json.loads((run_folder / "result.json").read_text())


def test_the_run_folder_holds_what_is_promised(run_folder, stored):
    names = {"result.json", "completions.json", "report.html", "vector.safetensors", "moved.safetensors", "mapper"}
    assert {path.name for path in run_folder.iterdir()} == names
    assert stored["schema"] == 2
    points = {name: len(rows) for name, rows in stored["picture"]["target"]["points"].items()}
    assert set(points) == {f"{whose}, {side}" for whose in ("moved", "native") for side in ("positive", "negative")}
    texts = stored["picture"]["texts"]
    assert len(texts["positive"]) == points["moved, positive"] and all("cat" in text for text in texts["positive"])
    assert (stored["task"], stored["seed"]) == ("cats", 0)
    assert stored["asked"] is None, "objects cannot be named"
    assert stored["options"]["source_site"] == SITE and stored["options"]["directions"] == 2
    assert stored["sites"] == {side: {"site": SITE, "chosen": "given"} for side in ("source", "target")}
    assert stored["source"]["site"] == stored["target"]["site"] == SITE
    assert stored["alignment"] == {"strategy": "same_tokens", "coverage": 1.0, "by_role": {}}
    mapper = {"kind", "parameters", "fraction_of_target", "fvu", "cosine", "norm_ratio", "mode", "norm", "rows", "settings"}
    assert mapper <= set(stored["mapper"])
    controls = ["random", "random_in_span", "wrong_contrast", "shuffled", "shuffled_within_text", "untrained"]
    conditions = ["unsteered", "native", "moved", *controls, "mean_ablated", "forced_first_token"]
    assert list(stored["conditions"]) == conditions
    several = {name: len(stored["conditions"][name]["draws"]) for name in ("native", "moved", *controls)}
    assert several == {
        "native": 0,
        **dict.fromkeys(("moved", *controls), 2),
        "random_in_span": 1,
    }
    for condition in stored["conditions"].values():
        assert {"strength", "success", "intact", "clean_kl"} <= set(condition)
        for share in (condition["success"], condition["intact"]):
            assert share["low"] <= share["rate"] <= share["high"]
    assert stored["conditions"]["moved"]["success"]["n"] == QUICK["n"]
    assert not list(run_folder.parent.glob(".*")), "a half-written folder was left"


def test_the_texts_are_those_that_the_mapper_was_fitted_on(stored, cats, models):
    texts = cats.texts("train")
    tokens = sum(len(ids) for ids in raw_lengths(models[1], texts))
    assert stored["texts"] == {"of": "the task's training texts", "n": len(texts), "tokens": tokens}
    assert stored["mapper"]["rows"] + stored["mapper"]["held_out_rows"] == tokens


def raw_lengths(model: Any, texts: list[str]) -> list[list[int]]:
    return [model.tokenizer(text)["input_ids"] for text in texts]


def test_strengths_keep_to_the_budget_where_they_can(stored):
    budget = stored["strength_rule"]["budget_nats_per_token"]
    curves: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in stored["sweep"]:
        curves.setdefault((row["condition"], row["draw"]), []).append(row)
    assert len(curves) == 1 + 6 * 2 + 1
    for (name, draw), curve in curves.items():
        condition = stored["conditions"][name]
        assert curve[-1]["saturated"] or 0.9 * budget <= curve[-1]["clean_kl"] <= 1.001 * budget, name
        chosen = condition["draws"][draw]["strength"] if condition["draws"] else condition["strength"]
        assert chosen in [row["strength"] for row in curve]


def test_side_effects_are_reported_with_the_conditions(stored, run_folder):
    effects, conditions = stored["side_effects"], stored["conditions"]
    assert list(effects) == ["unsteered", "native", "moved", "random"]
    for name in ("native", "moved"):
        assert effects[name]["clean"]["kl"]["value"] == pytest.approx(conditions[name]["clean_kl"], rel=1e-3)
    [first, *_] = conditions["random"]["draws"]
    assert effects["random"]["clean"]["kl"]["value"] == pytest.approx(first["clean_kl"], rel=1e-3)
    assert effects["unsteered"]["english"]["kl"]["value"] == pytest.approx(0, abs=1e-6)
    assert set(stored["mapper"]["by_place"]["place"]) == {"first", "trigger", "last", "rest"}
    assert {"plain", "loss", "ablated", "share"} <= set(stored["mapper"]["recovered"])
    assert "Side effects" in (run_folder / "report.html").read_text()


def test_moved_against_native_is_prompt_by_prompt(stored):
    rates = [stored["conditions"][name]["intact"]["rate"] for name in ("moved", "native")]
    paired = stored["moved_against_native"]["intact"]
    assert paired["difference"] == pytest.approx(rates[0] - rates[1])
    assert paired["n"] == QUICK["n"] and paired["equivalent"] is None


def test_what_was_saved_can_be_used_again(run_folder, stored):
    mapper = it.Mapper.load(run_folder / "mapper")
    vector = it.SteeringVector.load(run_folder / "vector.safetensors")
    moved = it.SteeringVector.load(run_folder / "moved.safetensors")
    torch.testing.assert_close(mapper.transfer(vector).direction, moved.direction)
    assert moved.model.fingerprint == stored["target"]["fingerprint"]


def test_the_moved_vector_does_the_same_in_plain_transformers(run_folder, checkpoints):
    tensors, meta = read_tensors(run_folder / "moved.safetensors")
    assert (meta["site"], meta["positions"]) == (SITE, "all")
    hf, tok = raw_model(checkpoints[1]), raw_tokenizer(checkpoints[1])
    push = float(meta["strength"]) * tensors["direction"]
    hf.model.layers[2].register_forward_pre_hook(  # type: ignore[union-attr]
        lambda _, args, kwargs: ((args[0] + push, *args[1:]), kwargs), with_kwargs=True
    )
    completions = json.loads((run_folder / "completions.json").read_text())
    for prompt, entry in zip(completions["prompts"], completions["conditions"]["moved"], strict=True):
        ids = tok(prompt, return_tensors="pt")
        out = hf.generate(**ids, max_new_tokens=3, do_sample=False)[0, ids["input_ids"].shape[1] :]  # type: ignore[operator]
        assert tok.decode(out, skip_special_tokens=True) == entry["completion"]


def test_a_norm_that_is_not_the_default_shows(models, cats, tmp_path):
    result = it.run(cats, *models, **SITES, **ONE, mode="delta", norm="spread", seed=2, out=tmp_path / "out")
    vector, mapper = it.SteeringVector.load(tmp_path / "out/vector.safetensors"), it.Mapper.load(tmp_path / "out/mapper")
    expected = mapper.transfer(vector, "delta", norm="spread")
    assert result.details["vector"]["moved_norm"] == pytest.approx(expected.norm, rel=1e-4)
    assert expected.norm != pytest.approx(mapper.transfer(vector, "delta").norm, rel=0.01)
    assert it.SteeringVector.load(tmp_path / "out/moved.safetensors").history[-1].endswith("norm spread")
    assert result.details["side_effects"] == {} and "recovered" not in result.details["mapper"]


def test_variants_are_every_other_mode_and_mapper(models, cats):
    settings = {"width": 8, "epochs": 1}
    result = it.run(cats, *models, **SITES, **{**ONE, "mapper": "autoencoder", "settings": settings, "variants": True})
    tried = {(row["mapper"], row["mode"]) for row in result.details["variants"]}
    modes = ("difference", "delta", "jacobian", "raw")
    assert tried == {(m, mode) for m in ("autoencoder", "affine") for mode in modes} - {("autoencoder", "difference")}


@pytest.mark.usefixtures("registered")
def test_names_folders_and_objects_give_the_same_figures(checkpoints, models, cats):
    inputs = (("cats", ("tiny-a", "tiny-b")), ("cats", checkpoints), (cats, models))
    named, folders, objects = (it.run(task, *pair, **SITES, **ONE) for task, pair in inputs)
    figures = [{name: c.to_dict() for name, c in result.conditions.items()} for result in (named, folders, objects)]
    assert figures[0] == figures[1] == figures[2]
    assert named.details["asked"]["source"] == "tiny-a" and folders.details["asked"]["source"] == str(checkpoints[0])


@pytest.mark.usefixtures("registered")
def test_the_dtype_is_that_of_models_that_are_loaded_by_name(monkeypatch, cats):
    dtypes = []

    def load(_: Any, **options: Any) -> Any:
        dtypes.append(options)
        raise ValueError("loaded")

    monkeypatch.setattr("interp_transfer.studies.inputs.load_model", load)
    for source in ("tiny-a", 7):
        with pytest.raises(ValueError, match="loaded"):
            it.run(cats, source, source, dtype="bfloat16", device="cpu", n=2)
    assert dtypes == [{"dtype": "bfloat16", "device": "cpu"}, {}]


def test_sites_are_searched_where_none_is_known(models, cats, tmp_path, monkeypatch):
    monkeypatch.setattr("interp_transfer.studies.inputs.cache_folder", lambda name: tmp_path / name)
    out = tmp_path / "run"
    options: dict[str, Any] = {**ONE, "source_site": 2, "target_site": "auto", "out": out}
    result = it.run(cats, *models, **options)
    source, target = (result.details["sites"][side] for side in ("source", "target"))
    assert source == {"site": "blocks.2.hook_resid_pre", "chosen": "given"}
    assert (
        target["chosen"] == "found" and target["site"] in target["search"]["tried"] and result.target["site"] == target["site"]
    )
    assert len(list((tmp_path / "sites").iterdir())) == 1
    page = (out / "report.html").read_text()
    assert 'id="sites"' in page and "figure-target-site" in page and "figure-source-site" not in page


@pytest.mark.usefixtures("registered")
def test_a_block_that_a_model_lacks_is_refused_before_weights_are_loaded(monkeypatch, cats, checkpoints):
    def load(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("interp_transfer.studies.inputs.load_model", load)
    for target in ("tiny-b", checkpoints[1]):
        with pytest.raises(ValueError, match=r"site 'blocks\.40\.hook_resid_pre': this model has 4 blocks, 0 to 3"):
            it.run(cats, "tiny-a", target, target_site=40, n=2)
    with pytest.raises(ValueError, match="unknown model 'tiny-bb': did you mean 'tiny-b'"):
        it.run(cats, "tiny-a", "tiny-bb", n=2)
    with pytest.raises(AssertionError, match="weights were loaded"):
        it.run(cats, "tiny-a", "tiny-b", target_site=3, n=2)
    for sites in (40, ["blocks.0.hook_resid_pre", 40]):
        with pytest.raises(ValueError, match=r"blocks\.40\.hook_resid_pre': this model has 4 blocks"):
            sweep_study(cats, checkpoints[1], sites=sites)
    with pytest.raises(AssertionError, match="weights were loaded"):
        sweep_study(cats, checkpoints[1], sites="blocks.*.hook_resid_pre")


def test_a_given_site_is_checked_before_another_is_searched(models, cats, monkeypatch):
    def search(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("a site was searched")

    monkeypatch.setattr("interp_transfer.studies.inputs.find_site", search)
    with pytest.raises(ValueError, match="unknown site"):
        it.run(cats, *models, target_site="blocks.1.hook_resid_pro", n=2)
    with pytest.raises(AssertionError, match="a site was searched"):
        it.run(cats, *models, target_site=1, n=2)


@pytest.mark.usefixtures("registered")
def test_mistakes_are_found_before_any_work(cats, tmp_path, monkeypatch):
    def work(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("interp_transfer.studies.run.extract", work)
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "mine.txt").write_text("keep me")
    for wrong, message in (
        ({"task": "catts"}, "did you mean 'cats'"),
        ({"source": "tiny-c"}, "tiny-a"),
        ({"source": 7}, "cannot load a int"),
        ({"maper": "affine"}, "unknown option 'maper': did you mean 'mapper'"),
        ({"mapper": "afine"}, "did you mean 'affine'"),
        ({"mapper": "affine", "settings": {"widht": 3}}, "widht"),
        ({"mode": "dfference"}, "did you mean 'difference'"),
        ({"norm": "spred"}, "did you mean 'spread'"),
        ({"alignment": "index_lef"}, "index_left"),
        ({"n_validation": 0}, "n_validation=0: give at least one"),
        ({"directions": 0}, "directions=0: give at least one"),
        ({"budget": 0.0}, "budget=0.0"),
        ({"direction": "up"}, "unknown direction"),
        ({"edition": "pet"}, "did you mean 'pets'"),
        ({"task": cats, "direction": "induce"}, "direction='induce' needs the name of a task"),
        ({"task": cats, "edition": "pets"}, "edition='pets' needs the name of a task"),
        ({"target_site": "blocks.40.hook_resid_pre"}, "4 blocks"),
        ({"out": occupied}, "not an empty folder"),
        ({"out": occupied / "mine.txt" / "deeper"}, "choose another folder"),
        ({"n": 10**6}, "choose n from 1"),
    ):
        with pytest.raises(ValueError, match=message):
            it.run(**{"task": "cats", "source": "tiny-a", "target": "tiny-b", "n": 2, "progress": False, **wrong})
    assert [p.name for p in tmp_path.rglob("*")] == ["occupied", "mine.txt"]


def test_steered_tokens_are_marked(models, cats):
    prompt = cats.prompts("test")[0]
    (marked,) = marked_tokens(models[0], [prompt], it.substring("dog"))
    assert "".join(marked["pieces"]) == prompt
    assert "dog" in "".join(p for p, hit in zip(marked["pieces"], marked["steered"], strict=True) if hit)
    assert not marked["generated_steered"]
    (everywhere,) = marked_tokens(models[0], [prompt], "all")
    assert all(everywhere["steered"]) and everywhere["generated_steered"]


@pytest.fixture(scope="module")
def run_of_names(tmp_path_factory, cats, checkpoints) -> Path:
    """The folder of a run whose task and models are names."""
    out = tmp_path_factory.mktemp("named") / "out"
    with pytest.MonkeyPatch.context() as patch:
        register(patch, cats, checkpoints)
        it.run("cats", "tiny-a", "tiny-b", **ONE, settings={"ridge": 0.5}, out=out)
    return out


@pytest.mark.usefixtures("registered")
class TestRerun:
    @pytest.fixture
    def named(self, run_of_names, tmp_path) -> Path:
        """A copy of that run, which may be changed."""
        return Path(shutil.copytree(run_of_names, tmp_path / "out"))

    def test_a_repeated_run_gives_the_same_figures(self, named):
        stored = json.loads((named / "result.json").read_text())
        assert stored["sites"]["source"] == {"site": SITE, "chosen": "card"}
        assert stored["asked"] == {"task": "cats", "source": "tiny-a", "target": "tiny-b", **stored["options"]}
        again, differences = rerun(named, progress=False)
        assert differences == []
        assert json.loads(json.dumps(again.to_dict())) == stored

    def test_another_figure_is_listed(self, named, monkeypatch):
        stored = json.loads((named / "result.json").read_text())

        def other(**request: Any) -> it.Result:
            assert {k: v for k, v in request.items() if k not in ("out", "progress")} == stored["asked"]
            changed = json.loads(json.dumps(stored))
            changed["conditions"]["moved"]["intact"]["rate"] = 0.123
            monkeypatch.setattr(it.Result, "to_dict", lambda _: changed)
            return it.Result("cats", {}, {}, (), 2)

        monkeypatch.setattr("interp_transfer.studies.rerun.run", other)
        _, differences = rerun(named / "result.json", progress=False)
        assert len(differences) == 1
        assert differences[0].startswith("conditions.moved.intact.rate: ") and differences[0].endswith("0.123 now")

    def test_a_file_that_was_changed_is_refused_with_the_field(self, named):
        file = named / "result.json"
        stored = json.loads(file.read_text())
        for change, message in (
            ({"seed": 3}, "field 'seed' was changed"),
            ({"schema": 3}, "schema 3, expected 1 or 2"),
            ({"asked": {"task": "cats"}}, "field 'asked' was changed"),
            ({"digests": {}}, "field 'schema' has no digest"),
        ):
            file.write_text(json.dumps({**stored, **change}))
            with pytest.raises(ValueError, match=message):
                rerun(named)
        for asked, message in (
            ({**stored["asked"], "later": 1}, "this version knows no 'asked.later'"),
            (None, "has no field 'asked'"),
        ):
            changed = {**stored, "asked": asked}
            file.write_text(json.dumps({**changed, "digests": digests(changed)}))
            with pytest.raises(ValueError, match=message):
                rerun(named)

    def test_a_run_of_a_file_of_pairs_is_repeated(self, pairs_file, tmp_path):
        file, out = Path(shutil.copy(pairs_file, tmp_path / "pairs.jsonl")), tmp_path / "out"
        task = {"path": file, "judge": "lacks:dog", "chat": False, "system": None}
        it.run(task, "tiny-a", "tiny-b", **ONE, max_new_tokens=3, out=out)
        stored = json.loads((out / "result.json").read_text())
        assert stored["task"] == "pairs" and stored["asked"]["task"] | {"path": file} == task | {"sha256": file_hash(file)}
        assert f"run \\\n    --pairs {file} \\\n    --judge lacks:dog \\\n    --source tiny-a" in command(stored)
        assert rerun(out, progress=False)[1] == []
        file.write_text(file.read_text().replace("far", "near"))
        with pytest.raises(ValueError, match="pairs.jsonl has changed since the run: restore it"):
            rerun(out, progress=False)

    def test_a_run_of_objects_cannot_be_repeated(self, run_folder):
        with pytest.raises(ValueError, match="only runs of a task and models that were named, not objects, can be repeated"):
            rerun(run_folder)


def test_figures_at_strength_one_can_be_left_out(models, cats, run_folder, tmp_path):
    it.run(cats, *models, **ONE, **SITES, strength_one=False, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "result.json").read_text())["at_strength_one"] == {}
    pages = [(folder / "report.html").read_text() for folder in (run_folder, tmp_path / "out")]
    assert ["At strength 1, 95% intervals" in page for page in pages] == [True, False]
