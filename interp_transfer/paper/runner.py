"""Measuring the cells that are missing, in processes of their own; each is stored as soon as it is measured.

A run that was killed resumes from what its folder holds. A case that fails does not stop the others; the reason is reported.
"""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm.auto import tqdm

from interp_transfer.paper.cells import Job, kept_in, measure_cell, read_cell


def measure_missing(
    jobs: Sequence[Job], out: Path, *, processes: int | None = None, progress: bool = True
) -> dict[tuple[str, str], str]:
    """Measure the jobs that have no stored cell, the longest first.

    Args:
        jobs: what to measure.
        out: folder of the cells.
        processes: how many run at once; the number of cores unless given, which they share.
        progress: show a bar.

    Returns:
        The reason of each failure, by experiment and case.

    Raises:
        ValueError: before any work, for a damaged cell, fewer than one process, or a folder that another run works in.
    """
    if processes is not None and processes < 1:
        raise ValueError(f"jobs={processes}: give at least one process")
    missing = sorted((job for job in jobs if read_cell(job, out) is None), key=lambda job: -job.case.minutes)
    count = min(processes or os.cpu_count() or 1, len(missing))
    failures: dict[tuple[str, str], str] = {}
    if not missing:
        return failures
    with kept_in(out).alone(failures), tqdm(total=len(missing), desc="cases", disable=not progress, unit="case") as bar:
        for job, error in _measured(missing, out, count):
            bar.update()
            if error is not None:
                failures[job.name] = error
                bar.write(f"{', '.join(job.name)}: {error}")
    return failures


def _measured(jobs: Sequence[Job], out: Path, count: int) -> Iterator[tuple[Job, str | None]]:
    """Jobs as they finish, with the error if there was one. Jobs whose pool broke are tried again, one by one."""
    interrupted: list[Job] = []
    for job, future in _finished(jobs, out, count):
        if isinstance(future.exception(), BrokenProcessPool) and len(jobs) > 1:
            interrupted.append(job)
        else:
            yield job, _error(future)
    for job in interrupted:
        yield from _measured([job], out, 1)


def _finished(jobs: Sequence[Job], out: Path, count: int) -> Iterator[tuple[Job, Future[float]]]:
    """Jobs as their processes finish them."""
    if not jobs:
        return
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // count)
    with ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(threads, os.getpid())) as pool:
        futures: dict[Future[float], Job] = {pool.submit(measure_cell, job, out): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start(threads: int, parent: int) -> None:
    import torch

    torch.set_num_threads(threads)
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # bars of several processes would be drawn over each other
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: int) -> None:
    """Exit when the parent has gone: a parent that was killed cannot stop its processes."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _error(future: Future[float]) -> str | None:
    error = future.exception()
    if error is None:
        return None
    if isinstance(error, BrokenProcessPool):
        return "its process was killed (out of memory?): run it again with --jobs 1"
    message = " ".join(str(error).split())
    return message if isinstance(error, ValueError | OSError | ImportError) else f"{type(error).__name__}: {message}"
