"""The rows that a mapper is fitted or tested on, from memory or from a store: block by block, or in shuffled batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_transfer.activations.store.reader import BUFFER_ROWS, Rows, Runs, Store
from interp_transfer.mapping.moments import Block

BLOCK_ROWS = 8192
SAMPLE_ROWS = 16384
_SAMPLE_PIECE = 64  # rows that are read together for a sample

Keep = Callable[[Block], Bool[Tensor, " row"]]
"""Selects rows of a block."""


@dataclass(frozen=True)
class MemoryPart:
    """Paired rows in memory, in float32.

    Attributes:
        x: rows of the source.
        y: rows of the target.
    """

    x: Float[Tensor, "row d_source"]
    y: Float[Tensor, "row d_target"]

    def __len__(self) -> int:
        return len(self.x)

    def blocks(self, rank: int = 0, size: int = 1) -> Iterator[Block]:
        """Iterate over slices of the rows in order; of several ranks, over this rank's share."""
        first, last = _share(len(self), rank, size)
        for start in range(first, last, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, last)
            yield self.x[start:stop], self.y[start:stop]

    def batches(self, size: int, seed: int) -> Iterator[Block]:
        """Iterate over the rows, each once, in a random permutation."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        for chosen in order.split(size):
            yield self.x[chosen], self.y[chosen]

    def sample(self) -> Iterator[Block]:
        """Return all rows."""
        return self.blocks()

    def where(self, keep: Keep, rows: int) -> "MemoryPart":
        """Return a copy of the rows that ``keep`` selects; ``rows`` is their number."""
        chosen = torch.cat([keep(block) for block in self.blocks()])
        part = MemoryPart(self.x[chosen], self.y[chosen])
        assert len(part) == rows
        return part


@dataclass(frozen=True)
class StoredPart:
    """Paired rows on disk, read in float32. Memory holds a block of them, or the buffer that batches are drawn from.

    Attributes:
        store: the store.
        source: columns of the source, which are concatenated.
        target: columns of the target, which are concatenated.
        runs: runs of rows, in order.
        keep: selects among these rows as they are read; all if None.
        kept: number of selected rows.
    """

    store: Store
    source: tuple[str, ...]
    target: tuple[str, ...]
    runs: Runs
    keep: Keep | None = None
    kept: int | None = None

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.runs) if self.kept is None else self.kept

    def blocks(self, rank: int = 0, size: int = 1) -> Iterator[Block]:
        """Iterate over the rows in order, in the same blocks as a `MemoryPart` of the same rows."""
        runs = _within(self.runs, *_share(sum(stop - start for start, stop in self.runs), rank, size))
        return regrouped(self._kept(self.store.blocks(columns=self._columns, rows=runs)), BLOCK_ROWS)

    def batches(self, size: int, seed: int) -> Iterator[Block]:
        """Iterate over batches from a buffer that is filled from the whole store."""
        buffer = max(BUFFER_ROWS, size)
        read = self.store.shuffled(seed, batch_size=size, buffer_rows=buffer, columns=self._columns, rows=self.runs)
        return regrouped(self._kept(read), size)

    def sample(self) -> Iterator[Block]:
        """Return short runs at even distances, about ``SAMPLE_ROWS`` rows in all."""
        pieces = [(a, min(a + _SAMPLE_PIECE, b)) for start, b in self.runs for a in range(start, b, _SAMPLE_PIECE)]
        step = max(1, sum(b - a for a, b in pieces) // SAMPLE_ROWS)
        return self._kept(self.store.blocks(columns=self._columns, rows=pieces[::step]))

    def where(self, keep: Keep, rows: int) -> "StoredPart":
        """Return the same rows on disk, filtered as they are read."""
        assert self.keep is None, "rows are filtered once"
        return replace(self, keep=keep, kept=rows)

    @property
    def _columns(self) -> list[str]:
        return [*self.source, *self.target]

    def _kept(self, read: Iterable[Rows]) -> Iterator[Block]:
        for rows in read:
            block = side_by_side(rows, self.source).float(), side_by_side(rows, self.target).float()
            if self.keep is None:
                yield block
            else:
                chosen = self.keep(block)
                yield block[0][chosen], block[1][chosen]


CollectedPart = MemoryPart | StoredPart
"""Paired rows as they were collected."""


@dataclass(frozen=True)
class Transformed:
    """The rows of another part after a change, such as scaling.

    Attributes:
        part: the other part.
        change: function of a block; it keeps the number of rows.
    """

    part: CollectedPart
    change: Callable[[Block], Block]

    def __len__(self) -> int:
        return len(self.part)

    def blocks(self, rank: int = 0, size: int = 1) -> Iterator[Block]:
        """Iterate over the changed blocks of the part."""
        return map(self.change, self.part.blocks(rank, size))

    def batches(self, size: int, seed: int) -> Iterator[Block]:
        """Iterate over the changed batches of the part."""
        return map(self.change, self.part.batches(size, seed))


Part = CollectedPart | Transformed


def side_by_side(rows: Rows, names: Sequence[str]) -> Tensor:
    """Return the columns with these names, concatenated."""
    return rows[names[0]] if len(names) == 1 else torch.cat([rows[name] for name in names], dim=1)


def regrouped(blocks: Iterable[Block], size: int) -> Iterator[Block]:
    """Yield the same rows in blocks of one size; the last may be smaller."""
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
    """The part of the runs from their ``first`` row up to, but not including, their ``last`` row, counted through all runs."""
    begins = accumulate((stop - start for start, stop in runs), initial=0)
    cut = [(start + max(first - at, 0), min(stop, start + last - at)) for at, (start, stop) in zip(begins, runs, strict=False)]
    return [(start, stop) for start, stop in cut if start < stop]


def _joined(blocks: Sequence[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    return torch.cat([x for x, _ in blocks]), torch.cat([y for _, y in blocks])
