"""A run that was stopped resumes from what it had computed, and ends as one that was not."""

import json
import pkgutil
from pathlib import Path
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.cli.main import main
from interp_transfer.evaluation import evaluator
from interp_transfer.evaluation.completions import completions_each
from interp_transfer.io import locked_folder
from interp_transfer.studies.folders import kept_beside
from interp_transfer.studies.noise import noise_study
from interp_transfer.studies.switch import switch_study
from tests.checkpoints import make_checkpoint
from tests.registered import SITE
from tests.studies.conftest import QUICK

OPTIONS = {**QUICK, "source_site": SITE, "target_site": SITE}
STAGES = {
    "the second fit": ("studies.controls.fit", 2),
    "the first search": ("search.strengths.choose", 1),
    "the first completions under an intervention": ("evaluation.evaluator.completions_each", 1),
    "the held-out prompts": ("studies.trial.Trial.compare", 1),
    "the report": ("studies.save.write_report", 1),
}


def results(folder: Path) -> list[Any]:
    return [json.loads((folder / name).read_text()) for name in ("result.json", "completions.json")]


def stop_at(patch: pytest.MonkeyPatch, name: str, call: int) -> None:
    """Interrupt the given call of a function of the package."""
    owner, _, attribute = f"interp_transfer.{name}".rpartition(".")
    real, calls = pkgutil.resolve_name(f"{owner}.{attribute}"), []

    def stopped(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    patch.setattr(f"{owner}.{attribute}", stopped)


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_was_stopped_resumes(stage, run_folder, models, cats, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    options: dict[str, Any] = {**OPTIONS, "side_effects": True, "out": out}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, *STAGES[stage])
        it.run(cats, *models, **options)
    assert [path.name for path in tmp_path.iterdir()] == [".out.resume"], "no half-written folder"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / ".out.resume").rglob("*.json")}
    assert before

    with monkeypatch.context() as patch:
        patch.setattr("interp_transfer.evaluation.kept.Kept.remove", lambda _: None)
        it.run(cats, *models, **{**options, "progress": True})
    assert all(path.stat().st_mtime_ns == before[path] for path in before if "pairs" not in str(path)), "computed twice"
    assert "Resuming" in capsys.readouterr().err
    assert results(out) == results(run_folder)


def test_nothing_is_left_when_a_run_ends(run_folder):
    assert [path.name for path in run_folder.parent.iterdir()] == ["out"]


def test_what_a_run_left_that_was_killed_at_its_end_is_removed(models, cats, tmp_path):
    out, work = tmp_path / "out", tmp_path / ".out.resume"
    for path in (out, work):
        path.mkdir()
        (path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="is not an empty folder"):
        it.run(cats, *models, **OPTIONS, out=out)
    assert work.exists(), "the folder holds no result"
    (out / "result.json").write_text("{}")
    with pytest.raises(ValueError, match="is not an empty folder"):
        it.run(cats, *models, **OPTIONS, out=out)
    assert not work.exists() and len(list(out.iterdir())) == 2


def test_a_folder_takes_one_run_at_a_time(models, cats, tmp_path, capsys):
    with locked_folder(tmp_path / ".out.resume"), pytest.raises(ValueError, match="another writer is at work in .*resume"):
        it.run(cats, *models, **{**OPTIONS, "progress": True}, out=tmp_path / "out")
    assert "Resuming" not in capsys.readouterr().err


def test_a_run_that_another_process_finished_meanwhile(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text("{}")
    with pytest.raises(ValueError, match="is not an empty folder"), kept_beside(tmp_path / "out"):
        pytest.fail("it would work in vain")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_stopped_run_of_other_options_is_not_mistaken_for_this_one(run_folder, models, cats, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, *STAGES["the report"])
        it.run(cats, *models, **{**OPTIONS, "seed": 1, "source_site": 1}, out=out)
    it.run(cats, *models, **{**OPTIONS, "side_effects": True}, out=out)
    assert results(out) == results(run_folder)


OTHERS = {  # a study, where it is stopped, and how many of the completions made before are made again
    "switch": ("studies.switch._Ways.add_draws", 1, 6),  # those of exchanged weights
    "noise": ("search.doses.coordinate_size", 1, 0),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_study_that_was_stopped_resumes(name, checkpoints, models, cats, tmp_path, monkeypatch):
    made: list[int] = []

    def counted(model, prompts, settings, *args):
        made.append(len(prompts) * len(settings))
        return completions_each(model, prompts, settings, *args)

    def study(out: str) -> list[int]:
        made.clear()
        if name == "noise":
            noise_study(cats, models[0], site=SITE, doses=[0.0, 1.0], n=4, draws=2, progress=False, out=tmp_path / out)
        else:
            sizes: dict[str, Any] = {"sites": [SITE], "share": 0.05, "n": 6, "validation": 4}
            switch_study(cats, *map(str, (checkpoints[0], twin)), **sizes, progress=False, out=tmp_path / out)
        return list(made)

    twin = make_checkpoint(tmp_path / "models" / "twin", "llama", 3)
    monkeypatch.setattr(evaluator, "completions_each", counted)
    monkeypatch.setattr(evaluator, "CLEAN_PROMPTS", 4)
    where, call, again = OTHERS[name]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, where, call)
        study("out")
    before = sum(made)
    assert {path.name for path in tmp_path.iterdir()} == {"models", ".out.resume"}, "no half-written folder"
    resumed, whole = sum(study("out")), sum(study("whole"))
    assert before > again and resumed == whole - before + again
    assert {path.name for path in tmp_path.iterdir()} == {"models", "out", "whole"}, "nothing is left at the end"
    assert [(tmp_path / out / f"{name}.json").read_text() for out in ("out", "whole")] == [
        (tmp_path / "whole" / f"{name}.json").read_text()
    ] * 2


BOTH = ["--source", "tiny-a", "--target", "tiny-b"]
COMMANDS = {
    "run": (STAGES["the held-out prompts"], [*BOTH, "--directions", "1", "--seeds", "1", "--mapper", "affine"]),
    "features": (("studies.features.train_sae", 1), [*BOTH, "--candidates", "1", "--source-site", SITE, "--target-site", SITE]),
    "noise": (("search.doses.coordinate_size", 2), ["--model", "tiny-a", "--site", SITE]),
}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("out", [True, False])
def test_the_command_says_how_to_go_on(out, command, tmp_path, monkeypatch, capsys):
    stage, flags = COMMANDS[command]
    stop_at(monkeypatch, *stage)
    argv = [command, "cats", "--n", "2", *flags]
    assert main([*argv, *(["--out", str(tmp_path / "out")] if out else [])]) == 130
    *_, hint, error = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert hint == ("With --out FOLDER stopped work can be resumed", "The same command resumes from what was computed")[out]
    assert error == "error: stopped"
