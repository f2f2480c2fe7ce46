"""Jobs that are killed, interrupted, run out of disk or meet another process end with the right result."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.torture.children import Child, calm, work, work_interrupted
from tests.torture.jobs import JOBS, Ready, files_below, make_ready
from tests.torture.kills import PAGE, Whole, kill, problems, warm_up, whole

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
QUICK = ("fit", "models get")
"""Jobs whose tests take less than two seconds each."""
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in JOBS]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    calm()
    return make_ready(tmp_path_factory.mktemp("ready"))


@pytest.fixture(scope="module")
def expected(ready: Ready, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    def get(name: str) -> Whole:
        warm_up(JOBS[name], ready, tmp_path_factory.mktemp("warm"))
        return whole(JOBS[name], ready, tmp_path_factory.mktemp("whole"))

    return cache(get)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system with options, and mounts it anew with others."""
    point, mounted = tmp_path / "disk", []

    def mount(options: str) -> Path:
        point.mkdir(exist_ok=True)
        how = ["-o", f"remount,{options}"] if mounted else ["-t", "tmpfs", "-o", options]
        done = subprocess.run(["mount", *how, "tmpfs", str(point)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount: {done.stderr.strip()}")
        mounted.append(options)
        return point / "place"

    yield mount
    if mounted:
        subprocess.run(["umount", str(point)], check=True)


def refused(sent: dict[str, Any] | None, place: Path) -> None:
    assert sent is not None and sent["kind"] in ("ValueError", "OSError"), sent
    assert "\n" not in sent["error"] and str(place) in sent["error"], sent


def finishes(name: str, ready: Ready, place: Path, expected: Whole) -> dict[str, Any]:
    sent = Child(partial(work, JOBS[name], ready, place)).wait()
    assert sent is not None and sent["error"] is None, sent
    assert problems(JOBS[name], place, expected) == ([], [])
    return sent


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_job_resumes(name: str, ready: Ready, expected: Any, tmp_path: Path) -> None:
    calls = expected(name).calls
    stopped = Child(partial(work, JOBS[name], ready, tmp_path, (calls * 3 // 4, signal.SIGKILL)))
    assert stopped.wait() is None and files_below(tmp_path)
    assert finishes(name, ready, tmp_path, expected(name))["calls"] < calls


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_kills_at_random_moments(name: str, ready: Ready, expected: Any, tmp_path: Path) -> None:
    row = kill(JOBS[name], ready, expected(name), 2, 0, tmp_path)
    assert row["kills"] >= 2 and row["equal"] == 2 and not row["left_over"] and not row["faults"], row


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_job_resumes_in_the_same_process(name: str, ready: Ready, expected: Any, tmp_path: Path) -> None:
    middle = expected(name).calls // 2
    sent = Child(partial(work_interrupted, JOBS[name], ready, tmp_path, (middle, signal.SIGINT))).wait()
    assert sent == {"error": None, "interrupted": True, "hooks": [], "locked": False}
    different, left = problems(JOBS[name], tmp_path, expected(name))
    assert not different and all("shard-" in file for file in left), "an interrupted store has one more shard"


CELLS = """import os, signal
from pathlib import Path
from tests.torture.children import calm, left_in_models, work
from tests.torture.jobs import JOBS, make_ready
calm()
ready, place, stops = make_ready(Path({ready!r})), Path({place!r}), [({middle}, signal.SIGINT), None]
---
work(JOBS["run"], ready, place, stops.pop(0)), left_in_models(ready)"""


@pytest.mark.parametrize("name", ["fit", pytest.param("sae", marks=pytest.mark.slow)])
def test_a_kill_before_an_older_checkpoint_was_removed(name: str, ready: Ready, expected: Any, tmp_path: Path) -> None:
    finishes(name, ready, tmp_path, expected(name))
    [newest] = (tmp_path / "out" / "training").glob("*.safetensors")
    shutil.copy(newest, newest.with_name(f"{newest.stem.partition('-')[0]}-1.safetensors"))
    finishes(name, ready, tmp_path, expected(name))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the kernel's libraries, not ours
def test_an_interrupted_cell_of_a_notebook_is_executed_again(ready: Ready, expected: Any, tmp_path: Path) -> None:
    known = {"ready": str(ready.scratch), "place": str(tmp_path / "place"), "middle": expected("run").calls // 2}
    make, cell = CELLS.format(**known).split("---")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in (make, cell, cell)])
    NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True).execute()
    first, again = (one.outputs[-1] for one in notebook.cells[1:])
    assert first["ename"] == "KeyboardInterrupt"
    assert "'hooks': [], 'locked': False" in again["data"]["text/plain"]
    assert problems(JOBS["run"], tmp_path / "place", expected("run")) == ([], [])


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk(name: str, ready: Ready, expected: Any, disk: Any) -> None:
    place = disk(f"size={expected(name).pages // 2 * PAGE}")
    refused(Child(partial(work, JOBS[name], ready, place)).wait(), place)
    disk("size=1g")
    finishes(name, ready, place, expected(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_became_read_only(name: str, ready: Ready, expected: Any, disk: Any) -> None:
    place = disk("size=1g")
    half = expected(name).calls // 2
    assert Child(partial(work, JOBS[name], ready, place, (half, signal.SIGKILL))).wait() is None
    disk("ro")
    refused(Child(partial(work, JOBS[name], ready, place)).wait(), place)
    disk("rw")
    finishes(name, ready, place, expected(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_two_processes_at_once(name: str, ready: Ready, expected: Any, tmp_path: Path) -> None:
    both = [Child(partial(work, JOBS[name], ready, tmp_path)) for _ in range(2)]
    sent = [child.wait() for child in both]
    for failed in (one for one in sent if one is None or one["error"] is not None):
        refused(failed, tmp_path)
    assert any(one is not None and one["error"] is None for one in sent)
    finishes(name, ready, tmp_path, expected(name))
