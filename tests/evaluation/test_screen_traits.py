"""The example that screens traits."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import interp_transfer as it
from tests.checkpoints import make_checkpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "screen_traits.py"


def test_the_example_prints_a_share_of_each_condition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    spec = importlib.util.spec_from_file_location("screen_traits", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    for name, value in {"PROMPTS": 2, "CLEAN": 2, "TOKENS": 2, "RANDOM": 2}.items():
        monkeypatch.setattr(example, name, value)
    checkpoint = make_checkpoint(tmp_path, "llama", max_position_embeddings=512)
    model = it.load_model(checkpoint, device="cpu", chat_template="alpaca")
    monkeypatch.setattr(example.it, "load_model", lambda name: model)
    example.main("any", "2", "french", "formal")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("; ")[0] for line in lines] == ["french", "formal"]
    names = ["system prompt", "unsteered", "native, last", "native, all", "random"]
    assert [part.rsplit(" ", 4)[0] for part in lines[0].split("; ")[1:]] == names
    assert lines[0].endswith("n=4"), "random: two directions on two prompts"
