"""Timing two ways of doing the same thing fairly, and what a result is."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        name: what was measured.
        ratio: ours over the other's; in seconds for the time of importing.
        goal: at most this.
        n: repetitions.
        note: how it was measured, and what to know.
    """

    name: str
    ratio: float
    goal: float
    n: int
    note: str

    @property
    def met(self) -> bool:
        """Whether the goal was reached."""
        return self.ratio <= self.goal

    def to_dict(self) -> dict[str, str | float | int | bool]:
        return {
            "name": self.name,
            "ratio": round(self.ratio, 3),
            "goal": self.goal,
            "met": self.met,
            "n": self.n,
            "note": self.note,
        }


def ratio(ours: Callable[[], object], theirs: Callable[[], object], n: int) -> tuple[float, str]:
    """Median over pairs of ours / theirs in CPU time of the process, and both medians in words.

    The two take turns, the order changing from pair to pair, so that what else the machine does falls on both alike. The
    ratio is taken within a pair. CPU time, not wall time: other processes then cost little.
    """
    for warm_up in (ours, theirs):
        warm_up()
    mine, other = [], []
    for i in range(n):
        for timed in ("ours", "theirs") if i % 2 else ("theirs", "ours"):
            gc.collect()
            gc.disable()
            start = time.process_time()
            (ours if timed == "ours" else theirs)()
            (mine if timed == "ours" else other).append(time.process_time() - start)
            gc.enable()
    value = statistics.median(a / b for a, b in zip(mine, other, strict=True))
    return value, f"{1000 * statistics.median(mine):.0f} against {1000 * statistics.median(other):.0f} ms of CPU"
