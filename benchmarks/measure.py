"""Timing two ways of doing the same thing fairly, and what a result is."""

import gc
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        name: what was measured.
        ratio: ours over the other's; where the name says so, seconds, gigabytes or a difference. None if it was not run.
        goal: at most this.
        n: repetitions.
        note: how it was measured, and what to know.
    """

    name: str
    ratio: float | None
    goal: float
    n: int
    note: str

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached; None if it was not run."""
        return None if self.ratio is None else self.ratio <= self.goal

    def to_dict(self) -> dict[str, str | float | int | bool | None]:
        return {
            "name": self.name,
            "ratio": None if self.ratio is None else float(f"{self.ratio:.4g}"),
            "goal": self.goal,
            "met": self.met,
            "n": self.n,
            "note": self.note,
        }


@dataclass(frozen=True)
class Clock:
    """What seconds are counted.

    Attributes:
        name: what the seconds are of.
        now: reads it.
    """

    name: str
    now: Callable[[], float]


CPU = Clock("CPU", time.process_time)
"""Of all threads of the process: what other processes do costs little."""

WALL = Clock("wall time", time.perf_counter)
"""For what waits for a disk or a GPU."""


def ratio(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    n: int,
    clock: Clock = CPU,
    before: Callable[[], object] = lambda: None,
) -> tuple[float, str]:
    """Median over pairs of ours / theirs, and both medians in words.

    The two take turns, the order changing from pair to pair, so that what else the machine does falls on both alike. The
    ratio is taken within a pair. ``before`` is called before each, outside the clock.
    """
    load = os.getloadavg()[0]
    for warm_up in (ours, theirs):
        warm_up()
    mine, other = [], []
    for i in range(n):
        for timed in ("ours", "theirs") if i % 2 else ("theirs", "ours"):
            before()
            gc.collect()
            gc.disable()
            start = clock.now()
            (ours if timed == "ours" else theirs)()
            (mine if timed == "ours" else other).append(clock.now() - start)
            gc.enable()
    value = statistics.median(a / b for a, b in zip(mine, other, strict=True))
    medians = f"{1000 * statistics.median(mine):.0f} against {1000 * statistics.median(other):.0f} ms of {clock.name}"
    return value, f"{medians}, {circumstances(load)}"


def circumstances(load: float) -> str:
    """Threads, and the load of the machine before a measurement began."""
    return f"threads {torch.get_num_threads()}, load {load:.1f} before"
