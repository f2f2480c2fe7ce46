"""Read a store of activations: any run of rows, all rows in order, or all rows shuffled, in bounded memory.

Rows are read as slices of memory-mapped safetensors files. Shuffling takes contiguous blocks in random order until they fill a
buffer, and yields their rows in random batches. Each row is copied once, from the file to its batch, so shuffling is as fast as
reading, and the rows of a block are far apart once the buffer holds many blocks. The rows of some columns may be exchanged
(`Exchange`), for controls.
"""

import hashlib
import os
import sys
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_transfer.activations.store.exchange import BLOCK_ROWS, Exchange
from interp_transfer.activations.store.manifest import (
    Column,
    Manifest,
    Shard,
    damage,
    layout,
    read_manifest,
)
from interp_transfer.names import did_you_mean

BUFFER_ROWS = 65536
BATCH_SIZE = 1024

Rows = dict[str, Tensor]
Mapped = dict[tuple[str, str], Tensor]  # a whole column of a shard, by file and name
Runs = Sequence[tuple[int, int]]  # rows of a store: the first, and the one after the last
Span = tuple[Shard, int, int]  # rows of a shard: the first, and the one after the last


@dataclass(frozen=True, repr=False, eq=False)
class Store:
    """Rows on disk, as they were when the store was opened. ``len`` is their number.

    Attributes:
        folder: the store's folder.
        manifest: the manifest, with those shards that are read.
        check: compare each shard's checksum, once in a process, before its first row is read.
        skipped: damaged shards that were left out, each with the problem.
        exchange: columns whose rows are exchanged as they are read, if any.
    """

    folder: Path
    manifest: Manifest
    check: bool = True
    skipped: tuple[str, ...] = ()
    exchange: Exchange | None = None

    @property
    def columns(self) -> dict[str, Column]:
        """The columns by name."""
        return self.manifest.columns

    @property
    def meta(self) -> dict[str, Any]:
        """Description of the rows, as it was passed to the writer."""
        return self.manifest.meta

    @property
    def dtype(self) -> str:
        """Stored dtype of the floating-point columns; several names, joined by commas, if they differ."""
        kinds = (column.dtype for column in self.columns.values() if column.torch_dtype.is_floating_point)
        return ", ".join(dict.fromkeys(kinds))

    def __len__(self) -> int:
        return self.manifest.rows

    def __repr__(self) -> str:
        columns = ", ".join(f"{name} {c.dtype}{'' if c.width is None else f' x {c.width}'}" for name, c in self.columns.items())
        lost = f", {len(self.skipped)} damaged shards skipped" if self.skipped else ""
        dropped = f", {self.manifest.dropped} rows dropped" if self.manifest.dropped else ""
        return (
            f"Store({len(self)} rows of {self.manifest.upto} texts in {len(self.manifest.shards)} shards of "
            f"{str(self.folder)!r}: {columns}{dropped}{lost})"
        )

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Rows:
        """Return the rows from ``start`` (counted from 0) up to, but not including, ``stop``.

        Args:
            start: first row.
            stop: row after the last.
            columns: names of the columns; all if None.

        Raises:
            ValueError: for rows that do not exist, unknown columns, a damaged shard.
        """
        names = self._names(columns)
        self._check_run(start, stop)
        out = {name: self._empty(name, stop - start) for name in names}
        done = 0
        index = bisect_right(self._ends, start)
        while done < stop - start:
            shard = self.manifest.shards[index]
            first = start + done - (self._ends[index] - shard.rows)
            last = min(shard.rows, first + stop - start - done)
            for name, part in self._slices(shard, first, last, names).items():
                out[name][done : done + last - first] = part
            done += last - first
            index += 1
        return out

    def blocks(
        self, block_rows: int = BLOCK_ROWS, columns: Sequence[str] | None = None, rows: Runs | None = None
    ) -> Iterator[Rows]:
        """Iterate over rows in order, in blocks that never cross the end of a shard or of a run.

        Args:
            block_rows: maximum number of rows in a block.
            columns: names of the columns; all if None.
            rows: runs of rows to read; all rows if None.

        Raises:
            ValueError: for unknown columns, rows that do not exist, a damaged shard.
        """
        names, spans = self._names(columns), self._spans(block_rows, rows)
        read = (self._slices(shard, start, stop, names) for shard, start, stop in self._announced(spans, 4, names))
        return ({name: part.clone() for name, part in rows.items()} for rows in read)

    def shuffled(
        self,
        seed: int,
        *,
        batch_size: int = BATCH_SIZE,
        buffer_rows: int = BUFFER_ROWS,
        block_rows: int = BLOCK_ROWS,
        columns: Sequence[str] | None = None,
        rows: Runs | None = None,
    ) -> Iterator[Rows]:
        """Iterate over all rows, each once, in random batches. Within a batch, rows are in the order of the store.

        Args:
            seed: of the batches; use another for every epoch.
            batch_size: rows in a batch; the last batch may be smaller.
            buffer_rows: rows that are mixed at a time. They stay in the mapped files; only a batch is copied.
            block_rows: rows that are read at a time. A buffer mixes ``buffer_rows / block_rows`` places of the store.
            columns: names of the columns; all if None.
            rows: runs of rows to read; all rows if None.

        Raises:
            ValueError: for a buffer that is smaller than a batch, unknown columns, rows that do not exist, a damaged shard.
        """
        if not 0 < batch_size <= buffer_rows:
            raise ValueError(f"batch_size={batch_size}, buffer_rows={buffer_rows}: give a buffer of one batch at least")
        names, spans = self._names(columns), self._spans(block_rows, rows)
        return self._shuffled(torch.Generator().manual_seed(seed), batch_size, buffer_rows, spans, names)

    def exchanged(self, columns: Sequence[str], seed: int) -> "Store":
        """Return the same store with the rows of some columns exchanged at random, see `Exchange`."""
        return replace(self, exchange=Exchange(frozenset(self._names(columns)), seed))

    def verify(self) -> None:
        """Compare the size and the checksum of every file.

        Raises:
            ValueError: naming every shard that is missing, truncated or changed, and what to do.
        """
        if problems := [p for shard in self.manifest.shards if (p := damage(self.folder, shard, _checksum))]:
            raise ValueError(_remedy(self.folder, problems))

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(shard.rows for shard in self.manifest.shards))

    def _names(self, columns: Sequence[str] | None) -> list[str]:
        names = list(self.columns) if columns is None else [columns] if isinstance(columns, str) else list(columns)
        for name in names:
            if name not in self.columns:
                raise ValueError(
                    f"the store has no column {name!r}: {did_you_mean(name, self.columns)}there are {', '.join(self.columns)}"
                )
        return names

    def _spans(self, block_rows: int, rows: Runs | None) -> list[Span]:
        if block_rows < 1:
            raise ValueError(f"block_rows={block_rows}: give at least 1")
        spans = []
        for start, stop in [(0, len(self))] if rows is None else rows:
            self._check_run(start, stop)
            index = bisect_right(self._ends, start)
            while start < stop:
                shard, end = self.manifest.shards[index], self._ends[index]
                first, last = start - end + shard.rows, min(stop, end) - end + shard.rows
                spans += [(shard, a, min(a + block_rows, last)) for a in range(first, last, block_rows)]
                start = end
                index += 1
        return spans

    def _check_run(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"rows {start} to {stop} of {len(self)}: give 0 <= start <= stop <= {len(self)}")

    def _empty(self, name: str, rows: int) -> Tensor:
        column = self.columns[name]
        return torch.empty(column.shape(rows), dtype=column.torch_dtype)

    def _slices(self, shard: Shard, start: int, stop: int, names: Sequence[str]) -> Rows:
        """Rows of one shard as views of the mapped file, which is read when they are used."""
        from safetensors import SafetensorError, safe_open

        if self.check and (problem := damage(self.folder, shard, _checksum_once)):
            raise ValueError(_remedy(self.folder, [problem]))
        out: Rows = {}
        moved = self._exchanged(names)
        try:
            with safe_open(self.folder / shard.file, framework="pt") as file:
                for name in [name for name in names if name not in moved]:
                    rows = file.get_slice(name)
                    if tuple(rows.get_shape()) != self.columns[name].shape(shard.rows):
                        raise SafetensorError(f"{name} has shape {rows.get_shape()}")
                    out[name] = rows[start:stop]
        except (SafetensorError, FileNotFoundError) as error:
            raise ValueError(_remedy(self.folder, [f"{shard.file} cannot be read ({error})"])) from error
        if moved:
            begin = self._begins[shard.file]
            out |= self._picked(self._partners(torch.arange(begin + start, begin + stop)), moved, {})
        return {name: out[name] for name in names}

    def _exchanged(self, names: Sequence[str]) -> list[str]:
        return [] if self.exchange is None else [name for name in names if name in self.exchange.columns]

    def _partners(self, rows: Tensor) -> Tensor:
        assert self.exchange is not None
        return self.exchange.partners(rows, len(self))

    def _batch(self, rows: Tensor, names: Sequence[str], mapped: Mapped) -> Rows:
        """Rows by number, in the order of the store; in exchanged columns their partners."""
        moved = self._exchanged(names)
        out = self._picked(rows, [name for name in names if name not in moved], mapped)
        if moved:
            out |= self._picked(self._partners(rows), moved, mapped)
        return {name: out[name] for name in names}

    def _picked(self, rows: Tensor, names: Sequence[str], mapped: Mapped) -> Rows:
        """Rows by number, without exchange; copied once, or twice if they are not in the order of the store.

        Args:
            rows: numbers of the rows.
            names: names of the columns.
            mapped: columns of shards that are mapped already; further ones are added.
        """
        if len(rows) > 1 and bool((rows[1:] < rows[:-1]).any()):
            order = rows.argsort()
            back = torch.empty_like(order)
            back[order] = torch.arange(len(order))
            return {name: part[back] for name, part in self._picked(rows[order], names, mapped).items()}
        out = {name: self._empty(name, len(rows)) for name in names}
        shards = torch.searchsorted(torch.tensor(self._ends), rows, right=True)
        done = 0
        for index, count in enumerate(torch.bincount(shards).tolist()):
            if not count:
                continue
            shard = self.manifest.shards[index]
            if missing := [name for name in names if (shard.file, name) not in mapped]:
                for name, part in self._plain._slices(shard, 0, shard.rows, missing).items():
                    mapped[shard.file, name] = part
            here = rows[done : done + count] - self._begins[shard.file]
            for name in names:
                torch.index_select(mapped[shard.file, name], 0, here, out=out[name][done : done + count])
            done += count
        return out

    @cached_property
    def _plain(self) -> "Store":
        return replace(self, exchange=None)

    @cached_property
    def _begins(self) -> dict[str, int]:
        """Number of each shard's first row."""
        return {shard.file: end - shard.rows for shard, end in zip(self.manifest.shards, self._ends, strict=True)}

    def _announced(self, spans: Sequence[Span], ahead: int, names: Sequence[str]) -> Iterator[Span]:
        """The same spans; the operating system is told of each some spans ahead, and reads it in the meantime."""
        for index in range(-ahead, len(spans)):
            if index + ahead < len(spans):
                self._announce(*spans[index + ahead], names)
            if index >= 0:
                yield spans[index]

    def _announce(self, shard: Shard, start: int, stop: int, names: Sequence[str]) -> None:
        if sys.platform != "linux":  # an optimisation only
            return
        places = layout(self.columns, shard.rows)
        header = shard.bytes - max(end for _, end in places.values())
        with suppress(OSError), (self.folder / shard.file).open("rb") as file:
            for begin, end in (places[name] for name in names):
                row = (end - begin) // shard.rows
                os.posix_fadvise(file.fileno(), header + begin + start * row, (stop - start) * row, os.POSIX_FADV_WILLNEED)

    def _shuffled(
        self,
        generator: torch.Generator,
        batch_size: int,
        buffer_rows: int,
        spans: Sequence[Span],
        names: Sequence[str],
    ) -> Iterator[Rows]:
        total = sum(stop - start for _, start, stop in spans)
        room = min(buffer_rows, total)
        buffer = torch.empty(room, dtype=torch.long)
        filled = 0
        order = [spans[i] for i in torch.randperm(len(spans), generator=generator).tolist()]
        ahead = -(-room * len(spans) // max(1, total))  # blocks that fill a buffer
        for shard, start, stop in self._announced(order, ahead, names):
            begin = self._begins[shard.file]
            while start < stop:
                if filled == room:
                    filled = yield from self._drained(buffer, batch_size, generator, names)
                taken = min(room - filled, stop - start)
                buffer[filled : filled + taken] = torch.arange(begin + start, begin + start + taken)
                filled += taken
                start += taken
        left = yield from self._drained(buffer[:filled], batch_size, generator, names)
        if left:
            yield self._batch(buffer[:left].sort().values, names, {})

    def _drained(
        self, buffer: Tensor, batch_size: int, generator: torch.Generator, names: Sequence[str]
    ) -> Generator[Rows, None, int]:
        """Random batches of the rows whose numbers are in the buffer; the rest moves to the front. Returns its length."""
        order = torch.randperm(len(buffer), generator=generator)
        whole = len(buffer) - len(buffer) % batch_size
        mapped: Mapped = {}
        for start in range(0, whole, batch_size):
            yield self._batch(buffer[order[start : start + batch_size]].sort().values, names, mapped)
        buffer[: len(buffer) - whole] = buffer[order[whole:]]
        return len(buffer) - whole


def open_store(folder: str | Path, *, check: bool = True, skip_damaged: bool = False) -> Store:
    """Open a store for reading.

    Args:
        folder: the folder of a ``StoreWriter``, which may still be writing; rows that it adds later are not seen.
        check: compare each shard's checksum before its first row is read, once in a process; False saves that time.
        skip_damaged: leave out damaged shards and read the others; this reads every file once.

    Raises:
        ValueError: for a folder without a store, a damaged manifest, shards that are missing or of the wrong size.
    """
    manifest = read_manifest(folder)
    checksum = _checksum_once if skip_damaged else None
    found = {shard: damage(Path(folder), shard, checksum) for shard in manifest.shards}
    damaged = tuple(problem for problem in found.values() if problem)
    if damaged and not skip_damaged:
        raise ValueError(_remedy(Path(folder), damaged))
    whole = tuple(shard for shard, problem in found.items() if not problem)
    return Store(Path(folder), replace(manifest, shards=whole), check, damaged)


def _owned(rows: Rows) -> Rows:
    return {name: part.clone() for name, part in rows.items()}


def _checksum(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _checksum_once(file: Path) -> str:
    """The checksum of a file, computed again only if the file has changed."""
    now = file.stat()
    return _cached(file.absolute(), now.st_ino, now.st_size, now.st_mtime_ns)


@cache
def _cached(file: Path, *_: int) -> str:
    return _checksum(file)


def _remedy(folder: Path, problems: Sequence[str]) -> str:
    return (
        f"the store in {str(folder)!r} is damaged: {'; '.join(problems)}. Restore these files from a copy or collect anew; "
        "open_store(folder, skip_damaged=True) reads the rows of the other shards"
    )
