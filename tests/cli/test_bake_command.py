"""`interp-transfer bake`: a saved vector in the weights of a folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import interp_transfer as it
from tests.registered import SITE

pytestmark = pytest.mark.usefixtures("registered")
BIAS = "model.layers.1.mlp.down_proj.bias"


@pytest.fixture
def vector(models: Any, tmp_path: Path) -> Path:
    """A vector of the model "tiny-a", stored with the strength 2.5."""
    direction = torch.linspace(-1, 1, 16)
    stored = it.SteeringVector(direction, SITE, it.identity(models[0]))
    return stored.save(tmp_path / "vector.safetensors", strength=2.5)


def test_the_stored_strength_is_added_unless_another_is_given(call: Any, vector: Path, tmp_path: Path) -> None:
    code, out, _ = call("bake", "--model", "tiny-a", "--vector", vector, "--out", tmp_path / "one", "--json")
    facts = json.loads(out)
    assert code == 0 and Path(facts["folder"]) == tmp_path / "one" and facts["architecture"] == "LlamaForCausalLM"
    assert facts["form"] == "weights" and facts["difference"] <= 1e-5 < facts["bound"]
    torch.testing.assert_close(load_file(tmp_path / "one" / "model.safetensors")[BIAS], 2.5 * torch.linspace(-1, 1, 16))
    code, out, _ = call(
        "bake", "--model", "tiny-a", "--vector", vector, "--vector", vector, "--strength", "-1", "--out", tmp_path / "two"
    )
    assert code == 0 and "a whole checkpoint" in out and str(tmp_path / "two") in out
    torch.testing.assert_close(load_file(tmp_path / "two" / "model.safetensors")[BIAS], -2 * torch.linspace(-1, 1, 16))


def test_a_direction_is_removed(call: Any, vector: Path, checkpoints: Any, tmp_path: Path) -> None:
    assert (
        call("bake", "--model", "tiny-a", "--vector", vector, "--ablate", "--dtype", "bfloat16", "--out", tmp_path / "out")[0]
        == 0
    )
    weight = load_file(tmp_path / "out" / "model.safetensors")["model.layers.0.mlp.down_proj.weight"]
    direction = torch.linspace(-1, 1, 16)
    assert weight.dtype == torch.bfloat16 and (direction @ weight.float()).abs().max() < 0.02
    stored = load_file(checkpoints[0] / "model.safetensors")["model.layers.0.mlp.down_proj.weight"]
    assert (direction @ stored).abs().max() > 0.2


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (("--model", "tiny-a", "--vector", "{vector}", "--ablate", "--strength", "1"), "leave --strength out"),
        (("--model", "tiny-a", "--vector", "{vector}", "--strength", "nan"), "a strength of nan"),
        (("--model", "tiny-b", "--vector", "{vector}"), "this intervention was made for"),
        (("--model", "tiny-c", "--vector", "{vector}"), "did you mean 'tiny-b', 'tiny-a'"),
        (("--model", "tiny-a", "--vector", "missing"), "there is no file"),
        (
            (
                "--model",
                "tiny-a",
            ),
            "--vector",
        ),
    ],
)
def test_bad_input_is_one_line(refuses: Any, vector: Path, tmp_path: Path, argv: tuple[str, ...], hint: str) -> None:
    refuses(hint, "bake", *(arg.format(vector=vector) for arg in argv), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_refused(refuses: Any, vector: Path, tmp_path: Path) -> None:
    refuses("not an empty folder", "bake", "--model", "tiny-a", "--vector", vector, "--out", tmp_path)
