"""Damaged artifacts are refused by a named error or read as they were, and the fuzz notices what is neither."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import interp_transfer as it
from interp_transfer.vectors.vector import Contrast, SteeringVector
from tests.torture import artifacts, fuzz
from tests.torture.artifacts import KINDS
from tests.torture.mutations import MUTATIONS, Link, mutate

ROOT = Path(__file__).parents[2]
SHORT = """
import json, sys, torch
from tests.torture.fuzz import fuzz
torch.set_num_threads(1)
rows = fuzz(150, kinds=[kind for kind in json.loads(sys.argv[1]) if kind != "gguf"], progress=False)
rows += fuzz(600, kinds=["gguf"], progress=False)
print(json.dumps(rows))
"""


@pytest.mark.slow
def test_damaged_artifacts_are_refused_or_read_as_they_were() -> None:
    # In a process of its own, where the package is as its users have it: beartype, which checks it here, raises other errors.
    run = [sys.executable, "-c", SHORT, json.dumps(list(KINDS))]
    done = subprocess.run(
        run, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    rows = {row["kind"]: row for row in json.loads(done.stdout.splitlines()[-1])}
    assert list(rows) == sorted(KINDS, key=lambda kind: kind == "gguf")
    assert [fault for row in rows.values() for fault in row["faults"]] == []
    for kind, row in rows.items():
        assert row["errors"] + row["equal"] + row["other"] == row["mutations"] > 0
        assert row["errors"] > 0.2 * row["mutations"] and row["peak_memory"] < 1
        assert KINDS[kind].why or row["other"] < 0.1 * row["mutations"], "whole files of another artifact alone"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    return lambda kind: fuzz._pair(KINDS[kind], tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("kind", ["vector", "mapper", "task", "experiment", "control vector"])
def test_every_kind_of_mutation_is_made(kind: str, made: Callable[[str], Any]) -> None:
    files, other = made(kind)
    seen = set()
    for seed in range(1500):
        names, damaged = mutate(files, other, list(files), random.Random(seed))
        if damaged != files:
            seen |= set(names.split("+"))
    assert seen == set(MUTATIONS)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_a_seed_always_gives_the_same_bytes(seed: int, made: Callable[[str], Any]) -> None:
    files, other = made("task")
    one, again = (mutate(files, other, list(files), random.Random(seed)) for _ in range(2))
    assert one == again


def test_the_artifact_of_a_seed_can_be_looked_at(tmp_path: Path) -> None:
    names = fuzz.damaged("vector", 3, tmp_path / "one")
    assert names == fuzz.damaged("vector", 3, tmp_path / "other")
    one, other = ([path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()] for name in ("one", "other"))
    assert one == other
    fuzz._write({"a": Link("a"), "b": fuzz.FOLDER, "c/d": b"x"}, tmp_path / "kinds")
    assert (tmp_path / "kinds/a").is_symlink() and (tmp_path / "kinds/b").is_dir() and (tmp_path / "kinds/c/d").is_file()


def raises_key_error(folder: Path) -> Any:
    try:
        return KINDS["vector"].load(folder)
    except ValueError as error:
        raise KeyError("direction") from error


def other_numbers(folder: Path) -> Any:
    vector = SteeringVector.load(folder / "vector.safetensors")
    return artifacts.held(vector.direction + torch.rand(1))


def names_no_file(folder: Path) -> Any:
    try:
        return KINDS["vector"].load(folder)
    except ValueError as error:
        raise ValueError("it is damaged") from error


def several_lines(folder: Path) -> Any:
    try:
        return KINDS["vector"].load(folder)
    except ValueError as error:
        raise ValueError(f"{folder} is damaged\nat line 3") from error


def writes(folder: Path) -> Any:
    (folder.parent / "elsewhere").write_text("x")
    return KINDS["vector"].load(folder)


def reads(folder: Path) -> Any:
    Path("/etc/passwd").read_bytes()
    return KINDS["vector"].load(folder)


def runs_code(folder: Path) -> Any:
    exec(f"x = {time.monotonic_ns()}", {})
    return KINDS["vector"].load(folder)


def imports(folder: Path) -> Any:
    try:
        __import__("planted_module")
    except ImportError:
        return KINDS["vector"].load(folder)


def takes_memory(folder: Path) -> Any:
    if not (folder / "vector.safetensors").is_file():
        torch.ones(30_000_000)
    return KINDS["vector"].load(folder)


def waits(folder: Path) -> Any:
    while (folder / "vector.safetensors").is_file() and (folder / "vector.safetensors").stat().st_size == 0:
        pass
    return KINDS["vector"].load(folder)


def crashes(folder: Path) -> Any:
    if not (folder / "vector.safetensors").exists():
        signal.raise_signal(signal.SIGKILL)
    return KINDS["vector"].load(folder)


@pytest.mark.parametrize(
    ("load", "says"),
    [
        (raises_key_error, "KeyError: \"'direction'\""),
        (other_numbers, "other content without an error"),
        (names_no_file, "does not name the file: 'it is damaged'"),
        (several_lines, "has several lines, cannot be printed"),
        (writes, "wrote '.*elsewhere'"),
        (reads, "read '/etc/passwd'"),
        (runs_code, "compiled '<string>'"),
        (imports, "imported 'planted_module'"),
        (takes_memory, "MB of memory for"),
        (waits, "took longer than 0.3 s"),
        (crashes, r"the process ended with status 9 \(a crash"),
    ],
)
def test_a_planted_fault_is_noticed(load: Any, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 0.3)
    monkeypatch.setattr(fuzz, "WARM_UP", 0)
    kind = artifacts.Kind(KINDS["vector"].make, load)
    monkeypatch.setitem(fuzz.KINDS, "planted", kind)
    [row] = fuzz.fuzz(60, kinds=["planted"], progress=False)
    assert row["faults"] and all(fault.startswith("planted, seed ") for fault in row["faults"])
    assert re.search(says, " ".join(row["faults"]))


def test_a_digest_that_is_not_compared_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp_transfer.io.tensors_digest", lambda *_: "0")
    [row] = fuzz.fuzz(300, kinds=["vector"], progress=False)
    assert any("other content without an error" in fault for fault in row["faults"])


def test_another_gguf_file_is_another_model(tmp_path: Path, user_cache: Path) -> None:  # noqa: ARG001
    folder = tmp_path / "read"
    folder.mkdir()
    KINDS["gguf"].make(folder, 0)
    file = folder / "tiny.gguf"
    before = it.identity(it.load_model(file, device="cpu")).fingerprint
    data = file.read_bytes()
    file.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    assert it.identity(it.load_model(file, device="cpu")).fingerprint != before


def test_what_an_object_holds_is_compared_bit_by_bit() -> None:
    held = artifacts.held
    one = torch.tensor([1.0, float("nan")])
    assert held(one) == held(one.clone()) and held(one) != held(one.double())
    assert held({"a": [1, (2.0, "x")]}) == held({"a": [1, (2.0, "x")]}) != held({"a": [1, (2, "x")]})
    assert held(Contrast(torch.ones(1, 2), torch.ones(1, 2))) != held(Contrast(torch.ones(1, 2), torch.zeros(1, 2)))
    with pytest.raises(UnicodeEncodeError):
        held({"a": "\ud800"})
