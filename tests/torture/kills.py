"""Kill jobs at random moments, let them finish, and compare the result with that of a job that was never killed.

``kills`` measures how often each job resumed, whether results were equal, and what was left behind.
"""

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from tests.torture.children import Child, calm, work
from tests.torture.jobs import JOBS, Job, Ready, files_below, make_ready

PAGE = 4096
"""Bytes that a file system in memory gives at a time."""
FAULTS = 10
"""Number of faults of a job that are described."""


@dataclass(frozen=True)
class Whole:
    """A job that nothing interrupted.

    Attributes:
        seconds: from the fork to the end.
        calls: how much was done.
        result: what ``job.read`` returns.
        files: names of its files.
        pages: what they take on a disk, in units of PAGE.
    """

    seconds: float
    calls: int
    result: Any
    files: frozenset[str]
    pages: int


def whole(job: Job, ready: Ready, place: Path) -> Whole:
    """Do a job without interruption."""
    start = time.perf_counter()
    sent = Child(partial(work, job, ready, place)).wait()
    seconds = time.perf_counter() - start
    if sent is None or sent["error"] is not None:
        raise AssertionError(f"the job fails without interruption: {sent}")
    files = files_below(place)
    pages = sum(-(-path.stat().st_size // PAGE) for path in files.values())
    return Whole(seconds, sent["calls"], job.read(place), frozenset(files), pages)


def problems(job: Job, place: Path, expected: Whole) -> tuple[list[str], list[str]]:
    """How the result in a place differs, and the files that were left there or are missing."""
    try:
        result = job.read(place)
    except (ValueError, OSError, KeyError) as error:
        return [f"cannot be read: {error}"], []
    names = dict.fromkeys([*expected.result, *result])
    differing = [name for name in names if expected.result.get(name) != result.get(name)]
    files = set(files_below(place))
    left = [f"left: {name}" for name in sorted(files - expected.files)]
    return [f"differs: {name}" for name in differing if name in expected.result], left


def kill(
    job: Job, ready: Ready, expected: Whole, moments: int, seed: int, scratch: Path, step: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Kill a job at random moments of its duration, once or twice before it is let finish, each time in a new place.

    Args:
        job: the job.
        ready: models and data of the job.
        expected: the job without interruption.
        moments: number of places.
        seed: of the moments.
        scratch: folder for the places.
        step: called after each place.

    Returns:
        The counts ``kills``, ``before`` (anything was written), ``after`` (the end), ``resumed`` (less was done than by a job
        that starts anew), ``equal``, ``left_over`` and the first ``faults`` as texts.
    """
    draw, faults = random.Random(seed), []
    row: dict[str, Any] = dict.fromkeys(("kills", "before", "after", "resumed", "equal", "left_over"), 0)
    for moment in range(moments):
        place = scratch / f"moment-{moment}"
        for _ in range(draw.choice((1, 1, 2))):
            child, row["kills"] = Child(partial(work, job, ready, place)), row["kills"] + 1
            time.sleep(draw.uniform(0, expected.seconds))
            child.kill()
            sent = child.wait()
            row["after"] += sent is not None
            row["before"] += not files_below(place)
            if sent is not None and sent["error"] is not None:
                faults.append(f"moment {moment}: {_line(sent)}")
        sent = Child(partial(work, job, ready, place)).wait()
        if sent is None or sent["error"] is not None:
            faults.append(f"moment {moment}: does not resume: {_line(sent)}")
        else:
            different, left = problems(job, place, expected)
            row["resumed"] += sent["calls"] < expected.calls
            row["equal"] += not different
            row["left_over"] += bool(left)
            faults += [f"moment {moment}: {text}" for text in (different + left)[:3]]
        shutil.rmtree(place, ignore_errors=True)
        step()
    return {**row, "faults": faults[:FAULTS]}


def _line(sent: dict[str, Any] | None) -> str:
    return "died" if sent is None else f"{sent['kind']} at {sent.get('at')}: {sent['error'][:300]}"


def kills(moments: int = 50, seed: int = 0, jobs: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Kill each job at random moments; a row for each job, see ``kill``.

    Args:
        moments: number of times that a job is killed and let finish.
        seed: of the moments.
        jobs: names from ``jobs.JOBS``; all unless given.
    """
    if unknown := sorted(set(jobs) - set(JOBS)):
        raise ValueError(f"unknown job {unknown[0]!r}: choose from {', '.join(JOBS)}")
    calm()
    names, rows = list(jobs) or list(JOBS), []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder, tqdm(total=moments * len(names), unit="kill") as bar:
        ready = make_ready(Path(folder) / "ready")
        for name in names:
            bar.set_description(name)
            start, job, scratch = time.perf_counter(), JOBS[name], Path(folder) / name.replace(" ", "-")
            warm_up(job, ready, scratch / "first")
            expected = whole(job, ready, scratch / "whole")
            row = kill(job, ready, expected, moments, seed, scratch, bar.update)
            if job.read(scratch / "first") != expected.result:
                row["faults"].insert(0, "two jobs that nobody killed differ")
            rows.append({"job": name, **row, "seconds": round(time.perf_counter() - start, 1)})
    return rows


def warm_up(job: Job, ready: Ready, place: Path) -> None:
    """Do a job in this process, so that its children find all modules imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", "")
        patch.setattr(tempfile, "tempdir", None)
        work(job, ready, place)
