"""Child processes that do a job and can be killed; forked, because importing torch would take most of the time."""

import json
import os
import select
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import RLock, Thread
from typing import Any

import torch
import transformers
from tqdm import tqdm

from interp_transfer.models.exclusive import locked
from tests.checkpoints import hooks_of
from tests.torture.jobs import Job, Ready, calls_of

PATIENCE = 120
"""Seconds after which a child that neither ends nor fails is said to hang."""


def calm() -> None:
    """Keep this process, from which children are forked, free of threads."""
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0
    tqdm.set_lock(RLock())  # not its lock between processes, which a child may hold when it is killed
    transformers.utils.logging.disable_progress_bar()


class Child:
    """A forked process that calls a function and sends what it returns, as JSON.

    Args:
        function: called in the child; an exception is sent as ``{"error": its text, "kind": its type}``.
    """

    def __init__(self, function: Callable[[], dict[str, Any]]) -> None:
        self._end, end = os.pipe()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)  # for the sake of a thread of an allocator
            self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._end)
                for stream in (1, 2):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
                os.write(end, json.dumps(_called(function)).encode())
            finally:
                os._exit(0)
        os.close(end)

    def kill(self, sign: int = signal.SIGKILL) -> None:
        """Send a signal."""
        os.kill(self.pid, sign)

    def wait(self) -> dict[str, Any] | None:
        """Wait for the end; what was sent, or None from a child that was killed before."""
        text = b""
        try:
            while select.select([self._end], [], [], PATIENCE)[0]:
                piece = os.read(self._end, 1 << 16)
                if not piece:
                    return json.loads(text) if text else None
                text += piece
            return {"error": f"hangs for {PATIENCE} seconds", "kind": "hang"}
        finally:
            self.kill()
            os.waitpid(self.pid, 0)
            os.close(self._end)


def _called(function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return function()
    except BaseException as error:
        *_, last = traceback.extract_tb(error.__traceback__)
        return {"error": str(error), "kind": type(error).__name__, "at": f"{Path(last.filename).name}:{last.lineno}"}


def work(job: Job, ready: Ready, place: Path, stop: tuple[int, int] | None = None) -> dict[str, Any]:
    """Do a job in a place, in a child; its number of counted calls. ``stop`` as in ``calls_of``."""
    _settle(ready, place)
    with calls_of(job.counted, stop) as calls:
        job.work(ready, place)
    return {"error": None, "calls": len(calls)}


def work_interrupted(job: Job, ready: Ready, place: Path, stop: tuple[int, int] | None) -> dict[str, Any]:
    """Do a job in a child that is interrupted, and again; what the interruption left in the models."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _settle(ready, place)
    interrupted = None
    try:
        with calls_of(job.counted, stop):
            job.work(ready, place)
    except KeyboardInterrupt as error:
        interrupted = error  # kept with all its frames, as a notebook keeps it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    state = left_in_models(ready)
    job.work(ready, place)
    return {"error": None, "interrupted": interrupted is not None, **state}


def left_in_models(ready: Ready) -> dict[str, Any]:
    """Hooks of the models, and whether their locks are held."""
    other = Thread(target=_take, args=(ready.models,), daemon=True)
    other.start()
    other.join(5)
    return {"hooks": [hook for model in ready.models for hook in hooks_of(model)], "locked": other.is_alive()}


def _take(models: Any) -> None:
    with locked(*models):
        pass


def _settle(ready: Ready, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(place / "cache")
    tempfile.tempdir = str(ready.scratch)
