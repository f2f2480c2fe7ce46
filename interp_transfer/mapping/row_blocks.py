"""The rows that a mapper is fitted or judged on, in whatever form they lie there: block by block, or in shuffled batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_transfer.activations.store.reader import BUFFER_ROWS, Rows, Runs, Store
from interp_transfer.mapping.moments import Block

BLOCK_ROWS = 8192
SAMPLE_ROWS = 16384
_SAMPLE_PIECE = 64  # rows that are read together for a sample

Keep = Callable[[Block], Bool[Tensor, " row"]]
"""Which rows of a block are wanted."""


@runtime_checkable
class Part(Protocol):
    """Paired rows, in float32. ``len`` says how many."""

    def __len__(self) -> int: ...

    def blocks(self, rank: int = 0, size: int = 1) -> Iterator[Block]:
        """Iterate over all rows in order, a block at a time; of several ranks, over this rank's share."""
        ...

    def batches(self, size: int, seed: int) -> Iterator[Block]:
        """All rows, each once, in random order."""
        ...


@runtime_checkable
class CollectedPart(Part, Protocol):
    """Paired rows as they were collected."""

    def sample(self) -> Iterator[Block]:
        """Rows from all over: all of them where they are in memory anyway, else about ``SAMPLE_ROWS``."""
        ...

    def where(self, keep: Keep, rows: int) -> Part:
        """The rows for which ``keep`` says so; ``rows`` is how many these are."""
        ...


@dataclass(frozen=True)
class MemoryPart:
    """Rows in memory.

    Attributes:
        x: of the source.
        y: of the target.
    """

    x: Float[Tensor, "row d_source"]
    y: Float[Tensor, "row d_target"]

    def __len__(self) -> int:
        return len(self.x)

    def blocks(self, rank: int = 0, size: int = 1) -> Iterator[Block]:
        """Slices of the rows."""
        first, last = _share(len(self), rank, size)
        for start in range(first, last, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, last)
            yield self.x[start:stop], self.y[start:stop]

    def batches(self, size: int, seed: int) -> Iterator[Block]:
        """Rows by a permutation that the seed fixes."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        for chosen in order.split(size):
            yield self.x[chosen], self.y[chosen]

    def sample(self) -> Iterator[Block]:
        """All rows."""
        return self.blocks()

    def where(self, keep: Keep, rows: int) -> "MemoryPart":
        """A copy of some rows."""
        chosen = torch.cat([keep(block) for block in self.blocks()])
        found = MemoryPart(self.x[chosen], self.y[chosen])
        assert len(found) == rows
        return found


@dataclass(frozen=True)
class StoredPart:
    """Rows on disk. Memory holds a block of them, or the buffer that batches are drawn from.

    Attributes:
        store: where they are.
        source: columns of the source, which stand side by side.
        target: column of the target.
        runs: which rows, in order.
        keep: which of these, if not all; looked at as they are read.
        kept: how many these are.
    """

    store: Store
    source: tuple[str, ...]
    target: str
    runs: Runs
    keep: Keep | None = None
    kept: int | None = None

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.runs) if self.kept is None else self.kept

    def blocks(self, rank: int = 0, size: int = 1) -> Iterator[Block]:
        """Rows in order, in the same blocks as a `MemoryPart` of the same rows."""
        runs = _within(self.runs, *_share(sum(stop - start for start, stop in self.runs), rank, size))
        return regrouped(self._kept(self.store.blocks(columns=self._columns, rows=runs)), BLOCK_ROWS)

    def batches(self, size: int, seed: int) -> Iterator[Block]:
        """Drawn from a buffer that is filled from all over the store."""
        buffer = max(BUFFER_ROWS, size)
        read = self.store.shuffled(seed, batch_size=size, buffer_rows=buffer, columns=self._columns, rows=self.runs)
        return regrouped(self._kept(read), size)

    def sample(self) -> Iterator[Block]:
        """Short pieces at even distances, about ``SAMPLE_ROWS`` rows in all."""
        pieces = [(a, min(a + _SAMPLE_PIECE, b)) for start, b in self.runs for a in range(start, b, _SAMPLE_PIECE)]
        step = max(1, sum(b - a for a, b in pieces) // SAMPLE_ROWS)
        return self._kept(self.store.blocks(columns=self._columns, rows=pieces[::step]))

    def where(self, keep: Keep, rows: int) -> "StoredPart":
        """The same place on disk."""
        assert self.keep is None, "one condition is all that is asked for"
        return replace(self, keep=keep, kept=rows)

    @property
    def _columns(self) -> list[str]:
        return [*self.source, self.target]

    def _kept(self, read: Iterable[Rows]) -> Iterator[Block]:
        for rows in read:
            left = [rows[name] for name in self.source]
            block = (left[0] if len(left) == 1 else torch.cat(left, dim=1)).float(), rows[self.target].float()
            if self.keep is None:
                yield block
            else:
                chosen = self.keep(block)
                yield block[0][chosen], block[1][chosen]


@dataclass(frozen=True)
class Changed:
    """Another part's rows, changed on their way: scaled, say.

    Attributes:
        part: whose rows.
        change: what is done to each block; it keeps the number of rows.
    """

    part: Part
    change: Callable[[Block], Block]

    def __len__(self) -> int:
        return len(self.part)

    def blocks(self, rank: int = 0, size: int = 1) -> Iterator[Block]:
        """The changed blocks of the part."""
        return map(self.change, self.part.blocks(rank, size))

    def batches(self, size: int, seed: int) -> Iterator[Block]:
        """The other's batches, changed."""
        return map(self.change, self.part.batches(size, seed))


def regrouped(blocks: Iterable[Block], size: int) -> Iterator[Block]:
    """The same rows in blocks of one size; the last may be smaller."""
    held: list[Block] = []
    room = size
    for x, y in blocks:
        start = 0
        while start < len(x):
            held.append((x[start : start + room], y[start : start + room]))
            start += len(held[-1][0])
            room -= len(held[-1][0])
            if not room:
                yield _joined(held)
                held, room = [], size
    if held:
        yield _joined(held)


def _share(rows: int, rank: int, size: int) -> tuple[int, int]:
    """A rank's share of so many rows: the first, and the one after the last."""
    return rows * rank // size, rows * (rank + 1) // size


def _within(runs: Runs, first: int, last: int) -> Runs:
    """Those of the runs' rows that come from the one place, and before the other, where the runs' rows are counted through."""
    begins = accumulate((stop - start for start, stop in runs), initial=0)
    cut = [(start + max(first - at, 0), min(stop, start + last - at)) for at, (start, stop) in zip(begins, runs, strict=False)]
    return [(start, stop) for start, stop in cut if start < stop]


def _joined(blocks: Sequence[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    return torch.cat([x for x, _ in blocks]), torch.cat([y for _, y in blocks])
