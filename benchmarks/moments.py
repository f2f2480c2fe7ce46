"""Moments of many pairs, which closed-form maps are solved from, against the bare matrix products: time and memory.

Rows are made block by block outside the clock, and each block goes through both sides in turn. The bare side is given rows
that are in float64 already and neither centres them nor takes means. Each number of pairs is measured in a process of its own.
All that was measured is kept in `moments.json`, from which the documentation draws its picture.
"""

import json
import multiprocessing
import os
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import CPU, Result, circumstances
from benchmarks.memory import Peak, anonymous
from interp_transfer.mapping.moments import Moments, RunningMoments
from interp_transfer.mapping.row_blocks import BLOCK_ROWS

WIDTHS = 896, 1536
SIZES = 10_000, 30_000, 100_000, 300_000, 1_000_000
POINTS = Path(__file__).with_name("moments.json")
_REPEATED, _REPETITIONS = 100_000, 3  # sizes up to the first are measured so often, and the median is taken


@dataclass(frozen=True)
class Point:
    """One number of pairs.

    Attributes:
        pairs: so many.
        ratio: median over blocks of the moments' CPU time over that of the bare products.
        seconds: of CPU, for the moments of all of them.
        bare_seconds: of CPU, for the bare products.
        matrices: bytes that the moments themselves take.
        peak: bytes of anonymous memory at most, beyond what was there before.
    """

    pairs: int
    ratio: float
    seconds: float
    bare_seconds: float
    matrices: int
    peak: int


def run(most: int, threads: int) -> list[Result]:
    load = os.getloadavg()[0]
    sizes = [size for size in SIZES if size <= most] or [most]
    points = [median([point(size, threads) for _ in range(_REPETITIONS if size <= _REPEATED else 1)]) for size in sizes]
    if sizes == list(SIZES):
        POINTS.write_text(json.dumps([asdict(p) for p in points], indent=2) + "\n")
    first, last = points[0], points[-1]
    how = f"{WIDTHS[0]} to {WIDTHS[1]} dimensions, blocks of {BLOCK_ROWS}; {circumstances(load)}"
    blocks = -(-last.pairs // BLOCK_ROWS)
    beyond = [(p.peak - p.matrices) / 1e9 for p in points]
    slope = (last.seconds / last.pairs) / (first.seconds / first.pairs)
    times = f"{last.seconds:.1f} against {last.bare_seconds:.1f} s of CPU for bare float64 products"
    between = f"{last.pairs:,} over {first.pairs:,} pairs"
    peaks = f"{first.peak / 1e6:.0f} and {last.peak / 1e6:.0f} MB of anonymous memory"
    memory = f"{peaks}, {last.matrices / 1e6:.0f} of them the moments"
    return [
        Result(f"moments of {last.pairs:,} pairs", last.ratio, 1.5, blocks, f"{times}, {how}"),
        Result(f"GB beyond the moments, {last.pairs:,} pairs", max(beyond), 1.0, 1, f"anonymous memory at its peak, {how}"),
        Result(f"moments, time of a pair, {between}", slope, 1.1, _REPETITIONS, f"linear is 1; {how}"),
        Result(f"moments, memory, {between}", last.peak / first.peak, 1.1, _REPETITIONS, f"flat is 1; {memory}, {how}"),
    ]


def median(points: list[Point]) -> Point:
    """Of each figure by itself."""
    plain = [asdict(p) for p in points]
    return Point(**{name: statistics.median(p[name] for p in plain) for name in plain[0]})


def point(pairs: int, threads: int) -> Point:
    """Measure one number of pairs, in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, pairs, threads).result()


def measure(pairs: int, threads: int) -> Point:
    """Measure one number of pairs, here."""
    torch.set_num_threads(threads)
    made, bare = _Rows(), _Bare()
    made.draw(BLOCK_ROWS)  # what is set up at the first use, and what the two sides need, is no matter of the moments
    bare.take(made.x, made.y)
    bare.update()
    bare.clear()
    RunningMoments(*WIDTHS).update(made.x, made.y)
    mine, other = [], []
    before, peak = anonymous(), Peak()
    with peak.watch():
        running = RunningMoments(*WIDTHS)
        for index, start in enumerate(range(0, pairs, BLOCK_ROWS)):
            made.draw(min(BLOCK_ROWS, pairs - start))
            bare.take(made.x, made.y)
            for ours in (True, False) if index % 2 else (False, True):
                (mine if ours else other).append(
                    _timed(lambda: running.update(made.x, made.y)) if ours else _timed(bare.update)
                )
        found = running.result()
    bare.check(found)
    matrices = sum(tensor.nbytes for tensor in (found.mean_x, found.mean_y, found.xx, found.xy, found.yy))
    ratio = statistics.median(a / b for a, b in zip(mine, other, strict=True))
    return Point(pairs, ratio, sum(mine), sum(other), matrices, peak.bytes - before)


class _Rows:
    """Pairs that are drawn anew, always into the same memory; their means are larger than their spread."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._room = tuple(torch.empty(BLOCK_ROWS, width) for width in WIDTHS)
        self.x, self.y = self._room

    def draw(self, rows: int) -> None:
        self.x, self.y = (room[:rows].normal_(generator=self._generator) for room in self._room)
        self.x += 3
        self.y[:, : WIDTHS[0]] += self.x


class _Bare:
    """The products alone."""

    def __init__(self) -> None:
        self._room = tuple(torch.empty(BLOCK_ROWS, width, dtype=torch.float64) for width in WIDTHS)
        self._xx, self._xy = (torch.zeros(WIDTHS[0], width, dtype=torch.float64) for width in WIDTHS)
        self.clear()

    def clear(self) -> None:
        self._rows = 0
        self._sums = [torch.zeros(width, dtype=torch.float64) for width in WIDTHS]
        self._xx.zero_()
        self._xy.zero_()

    def take(self, x: Tensor, y: Tensor) -> None:
        """Outside the clock."""
        self._x, self._y = (room[: len(rows)].copy_(rows) for room, rows in zip(self._room, (x, y), strict=True))
        self._rows += len(x)
        for total, rows in zip(self._sums, (self._x, self._y), strict=True):
            total += rows.sum(dim=0)

    def update(self) -> None:
        self._xx.addmm_(self._x.T, self._x)
        self._xy.addmm_(self._x.T, self._y)

    def check(self, found: Moments) -> None:
        """Refuse other moments than those that follow from the products and the sums."""
        x, y = (total / self._rows for total in self._sums)
        torch.testing.assert_close(found.mean_x, x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.mean_y, y, rtol=1e-9, atol=1e-9)
        for ours, product, mean in ((found.xx, self._xx, x), (found.xy, self._xy, y)):
            expected = product - self._rows * torch.outer(x, mean)
            assert float((ours - expected).abs().max() / expected.abs().max()) < 1e-9, "other moments"


def _timed(work: Callable[[], None]) -> float:
    start = CPU.now()
    work()
    return CPU.now() - start
