"""Measuring what is missing: cases in processes of their own, each kept in a file as soon as it is there.

A killed run goes on with what is in its folder. A case that fails, for want of a network say, leaves the others alone and is
named with its reason.
"""

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from interp_transfer.evaluation.compare import write_json
from interp_transfer.paper.kinds import kind
from interp_transfer.paper.plan import EDITIONS, Case, Experiment
from interp_transfer.paper.rows import Row, from_json, to_json

FORMAT = "interp_transfer.cell/1"
QUICK_N = 24
"""Prompts of every figure of a quick reproduction: enough to see that it runs, not to believe it."""
PACKAGES = ("interp-transfer", "torch", "transformers", "transformer-lens", "sae-lens", "scikit-learn")


@dataclass(frozen=True)
class Asked:
    """A case of an experiment, and everything that its figures depend on.

    Attributes:
        experiment: that it is of.
        case: which.
        edition: "organisms" or "paper".
        n: prompts of every figure.
        seed: of everything that is drawn.
    """

    experiment: Experiment
    case: Case
    edition: str
    n: int
    seed: int

    def key(self) -> dict[str, Any]:
        """What a kept cell has to agree with, as JSON holds it."""
        settings = json.loads(json.dumps(self.case.settings[self.edition]))
        return {"kind": self.experiment.kind, "edition": self.edition, "n": self.n, "seed": self.seed, "settings": settings}

    def path(self, out: Path) -> Path:
        """Where it is kept."""
        slug = "".join(c if c.isalnum() or c == "-" else "-" for c in self.case.name.lower())
        while "--" in slug:
            slug = slug.replace("--", "-")
        return out / "cells" / self.edition / f"n{self.n}-seed{self.seed}" / self.experiment.name / f"{slug.strip('-')}.json"


@dataclass(frozen=True)
class Cell:
    """What was measured of a case.

    Attributes:
        rows: the figures.
        seconds: that it took, on the wall.
        versions: of the packages it was measured with.
    """

    rows: tuple[Row, ...]
    seconds: float
    versions: Mapping[str, str]


def asked(
    experiments: Sequence[Experiment], edition: str = "organisms", *, quick: bool = False, n: int | None = None, seed: int = 0
) -> list[Asked]:
    """The cases that can be run in an edition.

    Raises:
        ValueError: for an unknown edition or kind, an n that is none, or settings that the kind does not know.
    """
    if edition not in EDITIONS:
        raise ValueError(f"edition={edition!r}: choose one of {', '.join(EDITIONS)}")
    if n is not None and n < 1:
        raise ValueError(f"n={n}: give at least one prompt")
    found = []
    for one in experiments:
        known = kind(one.kind)
        for case in one.cases:
            if edition not in case.settings or (quick and not case.quick):
                continue
            try:
                known.check(case.settings[edition])
            except ValueError as error:
                raise ValueError(f"experiment {one.name!r}, case {case.name!r}: {error}") from None
            found.append(Asked(one, case, edition, n or (QUICK_N if quick else one.n), seed))
    return found


def kept(one: Asked, out: Path) -> Cell | None:
    """The cell of a case, if it is there and of the same settings.

    Raises:
        ValueError: for a damaged file, naming it.
    """
    path = one.path(out)
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["format"] != FORMAT or plain["asked"] != one.key():
            return None
        return Cell(tuple(map(from_json, plain["rows"])), float(plain["seconds"]), dict(plain["versions"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove it, and what it held is measured again") from None


def measure(one: Asked, out: Path) -> float:
    """Measure a case and keep its cell; returns the seconds that it took."""
    start = time.monotonic()
    rows = kind(one.experiment.kind).measure(edition=one.edition, n=one.n, seed=one.seed, **one.case.settings[one.edition])
    if not rows:
        raise ValueError(f"{one.experiment.name}, {one.case.name}: nothing was measured")
    seconds = time.monotonic() - start
    path = one.path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {"format": FORMAT, "asked": one.key(), "seconds": round(seconds, 1), "rows": [to_json(row) for row in rows]}
    write_json(path, {**plain, "versions": {name: version(name) for name in PACKAGES}})
    return seconds


def measure_missing(
    cases: Sequence[Asked], out: Path, *, jobs: int | None = None, progress: bool = True
) -> dict[tuple[str, str], str]:
    """Measure those cases that are not kept yet, those that take longest first.

    Args:
        cases: which.
        out: folder of the cells.
        jobs: processes; as many as there are cores unless given. Each computes on one thread where there are several.
        progress: show a bar.

    Returns:
        By experiment and case, why it failed, of those that did.

    Raises:
        ValueError: for a damaged cell, before any work, or no jobs.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs={jobs}: give at least one process")
    todo = sorted((one for one in cases if kept(one, out) is None), key=lambda one: -one.case.minutes)
    count = min(jobs or os.cpu_count() or 1, len(todo))
    failed = {}
    with tqdm(total=len(todo), desc="cases", disable=not progress or not todo, unit="case") as bar:
        for one, error in _each(todo, out, count):
            bar.update()
            if error is not None:
                failed[one.experiment.name, one.case.name] = error
                bar.write(f"{one.experiment.name}, {one.case.name}: {error}")
    return failed


def _each(todo: Sequence[Asked], out: Path, count: int) -> Iterator[tuple[Asked, str | None]]:
    """Cases as they are done, with what went wrong; those that a dying process took with it are tried again, one by one."""
    broken: list[Asked] = []
    for one, future in _finished(todo, out, count):
        if isinstance(future.exception(), BrokenProcessPool) and len(todo) > 1:
            broken.append(one)
        else:
            yield one, _error(future)
    for one in broken:
        yield from _each([one], out, 1)


def _finished(todo: Sequence[Asked], out: Path, count: int) -> Iterator[tuple[Asked, Future[float]]]:
    """Cases as their processes are done with them."""
    if not todo:
        return
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // count)
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(threads, os.getpid())) as pool:
        futures: dict[Future[float], Asked] = {pool.submit(measure, one, out): one for one in todo}
        try:
            for future in as_completed(futures):
                yield futures[future], future
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(threads: int, parent: int) -> None:
    import torch

    torch.set_num_threads(threads)
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # bars of several processes would be drawn over each other
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Leave nothing running behind a parent that was killed and could not say so."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _error(future: Future[float]) -> str | None:
    error = future.exception()
    if error is None:
        return None
    if isinstance(error, BrokenProcessPool):
        return "its process was killed (out of memory?): run it again with --jobs 1"
    told = " ".join(str(error).split())
    return told if isinstance(error, ValueError | OSError | ImportError) else f"{type(error).__name__}: {told}"
