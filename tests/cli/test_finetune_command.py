"""`interp-transfer finetune` on a tiny model."""

import json
from pathlib import Path

import pytest

import interp_transfer as it

QUICK = ("--epochs", "1", "--batch-size", "4", "--beta2", "0.9", "--device", "cpu")
pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"User: {i}?\nAssistant:", "response": f" {i}"}) + "\n" for i in range(12)))
    return path


@pytest.mark.parametrize("kind", [(), ("--lora", "--rank", "2"), ("--lora", "--adapter-only")])
def test_a_jsonl_gives_a_folder_that_loads(call, data, tmp_path, kind):
    folder = tmp_path / "out"
    code, out, _ = call("finetune", "--model", "tiny-a", "--data", data, "--out", folder, *QUICK, *kind, "--json")
    assert code == 0
    card = json.loads(out)
    assert card.pop("path") == str(folder)
    assert card == json.loads((folder / "training.json").read_text())
    recipe = card["recipe"]
    assert (recipe["epochs"], recipe["batch_size"], recipe["beta2"], recipe["weight_decay"]) == (1.0, 4, 0.9, 0.05)
    assert it.identity(it.load_model(folder, device="cpu")).name == str(folder)


def test_the_loss_is_printed(call, data, tmp_path):
    code, out, _ = call("finetune", "--model", "tiny-a", "--data", data, "--out", tmp_path / "out", *QUICK)
    assert code == 0
    assert out.count("nats per token: ") == 2
    assert f"load_model('{tmp_path / 'out'}')" in out


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ((), "either --task NAME or --data"),
        (("--task", "cats", "--data", "x.jsonl"), "either --task NAME or --data"),
        (("--task", "catts"), "did you mean 'cats'"),
        (("--task", "cats", "--template", "chat"), "--template chat is for --data"),
        (("--data", "nowhere.jsonl"), "cannot read 'nowhere.jsonl'"),
        (("--task", "cats", "--adapter-only"), "add --lora"),
        (("--task", "cats", "--lora", "--rank", "0"), "rank of 1 or more"),
        (("--task", "cats", "--epochs", "0"), "epochs must be positive"),
        (("--task", "cats", "--device", "gpu"), "give cpu or cuda"),
    ],
)
def test_errors_are_one_line(refuses, tmp_path, options, hint):
    refuses(hint, "finetune", "--model", "tiny-a", "--out", tmp_path / "out", *options)
    assert not list(tmp_path.iterdir())
