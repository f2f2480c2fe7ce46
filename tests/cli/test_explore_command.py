"""`interp-transfer explore`: what it refuses, and the page that it serves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.deployment import server


@pytest.fixture
def vector_file(models: tuple[Any, Any], tmp_path: Path) -> Path:
    vector = it.SteeringVector(torch.arange(16).float(), "blocks.2.hook_resid_pre", it.identity(models[0]))
    return vector.save(tmp_path / "v.safetensors", strength=1.5)


def test_what_is_refused(refuses: Callable[..., None], checkpoints: tuple[Path, Path], vector_file: Path) -> None:
    refuses("give --task, --run or --vector", "explore", "--source", checkpoints[0])
    refuses("no folder", "explore", "--source", "./nowhere", "--vector", vector_file)
    refuses("there is another one of this name", "explore", *["--vector", vector_file] * 2)
    refuses("result.json", "explore", "--run", vector_file.parent)
    refuses("and the explorer has", "explore", "--source", checkpoints[1], "--vector", vector_file)


def test_the_page_is_at_an_address_of_this_machine_with_a_token(
    call: Callable[..., Any], checkpoints: tuple[Path, Path], vector_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(server, "serve", lambda *_: None)
    monkeypatch.setattr("webbrowser.open", opened.append)
    code, out, err = call("explore", "--source", checkpoints[0], "--vector", vector_file)
    assert (code, out) == (0, "") and err.startswith("The explorer is at http://127.0.0.1:") and "?token=" in err
    assert len(opened) == 1 and opened[0] in err
    code, _, other = call("explore", "--vector", vector_file, "--no-browser")  # the file names its model
    assert code == 0 and len(opened) == 1 and other != err
