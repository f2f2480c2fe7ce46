"""Reading a store of activations: any run of rows, all of them in order, or all of them shuffled, in bounded memory.

Rows are read as slices of memory-mapped safetensors files. Shuffling takes contiguous blocks in random order, enough to fill a
buffer, and hands their rows out in random batches, each row copied once, from the file to its batch: as fast as reading goes,
and two rows of one block come far apart once the buffer holds many blocks. Some columns may be read with their rows exchanged
(`Exchange`), for controls.
"""

import difflib
import hashlib
import os
import sys
from bisect import bisect_right
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_transfer.activations.store.manifest import (
    Column,
    Manifest,
    Shard,
    damage,
    differences,
    layout,
    plain_meta,
    read_manifest,
)

BLOCK_ROWS = 2048
BUFFER_ROWS = 65536
BATCH_SIZE = 1024

Rows = dict[str, Tensor]
Mapped = dict[tuple[str, str], Tensor]  # a whole column of a shard, by file and name
Runs = Sequence[tuple[int, int]]  # rows of a store: the first, and the one after the last
Span = tuple[Shard, int, int]  # rows of a shard: the first, and the one after the last


@dataclass(frozen=True)
class Exchange:
    """Which columns are read with their rows exchanged at random, all of them in the same way.

    The rows of a block are those of another block, drawn from all over the store, in random order: so rows come from
    elsewhere, and no more than a block has to be read to find them. Rows behind the last whole block are exchanged among
    themselves; of a store that is shorter than a block, that is all of them.

    Attributes:
        columns: their names.
        seed: fixes who changes places with whom.
        block_rows: rows in a block.
    """

    columns: frozenset[str]
    seed: int
    block_rows: int = BLOCK_ROWS


@dataclass(frozen=True, repr=False, eq=False)
class Store:
    """Rows on disk, as they were when the store was opened. ``len`` says how many.

    Attributes:
        folder: where they are.
        manifest: what the store holds; of its shards, those that are read.
        check: compare each shard's checksum, once in a process, before its first row is read.
        skipped: shards that are damaged and were left out, each with what is wrong.
        exchange: columns whose rows change places as they are read, if any.
    """

    folder: Path
    manifest: Manifest
    check: bool = True
    skipped: tuple[str, ...] = ()
    exchange: Exchange | None = None

    @property
    def columns(self) -> dict[str, Column]:
        """What each column holds."""
        return self.manifest.columns

    @property
    def meta(self) -> dict[str, Any]:
        """What the rows belong to, as it was given to the writer."""
        return self.manifest.meta

    @property
    def dtype(self) -> str:
        """What the floating-point columns are stored as; several names, joined by commas, where they differ."""
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

    def expect(self, meta: Mapping[str, Any]) -> None:
        """Refuse to be taken for something else.

        Args:
            meta: what the store's own meta should say; keys that are not in it, at any depth, are not looked at.

        Raises:
            ValueError: naming all that differs, with both values.
        """
        if found := list(differences(self.meta, plain_meta(meta), partly=True)):
            raise ValueError(
                f"the store in {str(self.folder)!r} was made for something else: {'; '.join(found)}; open the store that "
                "belongs to these models, or collect anew into another folder"
            )

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Rows:
        """Rows ``start`` (counted from 0) up to, and without, ``stop``.

        Args:
            start: first row.
            stop: row after the last.
            columns: which columns; all of them, unless said.

        Raises:
            ValueError: for rows that are not there, unknown columns, a damaged shard.
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
        """All rows in order, in blocks that never reach over the end of a shard or of a run.

        Args:
            block_rows: rows in a block, at most.
            columns: which columns; all of them, unless said.
            rows: which rows, in runs; all of them, unless said.

        Raises:
            ValueError: for unknown columns, rows that are not there, a damaged shard.
        """
        names, spans = self._names(columns), self._spans(block_rows, rows)
        return (_owned(self._slices(shard, a, b, names)) for shard, a, b in self._announced(spans, 4, names))

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
        """All rows, each once, in random batches; the last may be smaller. Within a batch, rows are in the order of the store.

        Args:
            seed: fixes the batches; give another for every epoch.
            batch_size: rows in a batch.
            buffer_rows: rows that are mixed at a time. They stay in the files, whose pages the operating system keeps at hand
                if it can; memory of its own holds a batch.
            block_rows: rows that are read at a time. A buffer mixes ``buffer_rows / block_rows`` places of the store.
            columns: which columns; all of them, unless said.
            rows: which rows, in runs; all of them, unless said.

        Raises:
            ValueError: for a buffer that is smaller than a batch, unknown columns, rows that are not there, a damaged shard.
        """
        if not 0 < batch_size <= buffer_rows:
            raise ValueError(f"batch_size={batch_size}, buffer_rows={buffer_rows}: give a buffer of one batch at least")
        names, spans = self._names(columns), self._spans(block_rows, rows)
        return self._shuffled(torch.Generator().manual_seed(seed), batch_size, buffer_rows, spans, names)

    def exchanged(self, columns: Sequence[str], seed: int) -> "Store":
        """The same store with the rows of some columns exchanged at random, all of them in the same way: see `Exchange`."""
        return replace(self, exchange=Exchange(frozenset(self._names(columns)), seed))

    def verify(self) -> None:
        """Read every file again and compare size and checksum.

        Raises:
            ValueError: naming every shard that is missing, truncated or changed, and what to do.
        """
        found = [damage(self.folder, shard, _checksum) for shard in self.manifest.shards]
        if any(found):
            raise ValueError(_remedy(self.folder, [problem for problem in found if problem]))

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(shard.rows for shard in self.manifest.shards))

    def _names(self, columns: Sequence[str] | None) -> list[str]:
        names = list(self.columns) if columns is None else [columns] if isinstance(columns, str) else list(columns)
        for name in names:
            if name not in self.columns:
                near = difflib.get_close_matches(name, self.columns, n=3) or list(self.columns)
                raise ValueError(f"the store has no column {name!r}: did you mean {', '.join(near)}?")
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
        """Rows of one shard, without a copy: looking at them is what reads the file."""
        from safetensors import SafetensorError, safe_open

        if self.check and (problem := damage(self.folder, shard, _checksum_once)):
            raise ValueError(_remedy(self.folder, [problem]))
        out: Rows = {}
        moved = [name for name in names if self.exchange is not None and name in self.exchange.columns]
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

    def _partners(self, rows: Tensor) -> Tensor:
        """Numbers of the rows that stand in the place of some rows in columns that are exchanged."""
        assert self.exchange is not None
        size, block = self.exchange.block_rows, rows // self.exchange.block_rows
        out = torch.empty_like(rows)
        for number in block.unique().tolist():
            begin = number * size
            partner = int(self._block_order[number]) * size if number < len(self._block_order) else begin
            generator = torch.Generator().manual_seed(self.exchange.seed * 1_000_003 + number + 1)
            order = torch.randperm(min(size, len(self) - begin), generator=generator)
            here = block == number
            out[here] = partner + order[rows[here] - begin]
        return out

    def _batch(self, rows: Tensor, names: Sequence[str], mapped: Mapped) -> Rows:
        """Rows by their numbers, in the order of the store; partners in columns that are exchanged."""
        moved = [name for name in names if self.exchange is not None and name in self.exchange.columns]
        out = self._picked(rows, [name for name in names if name not in moved], mapped)
        if moved:
            out |= self._picked(self._partners(rows), moved, mapped)
        return {name: out[name] for name in names}

    def _picked(self, rows: Tensor, names: Sequence[str], mapped: Mapped) -> Rows:
        """Rows by their numbers, as they stand in the store; copied once, twice if not in its order.

        Args:
            rows: their numbers.
            names: of the columns.
            mapped: whole columns of shards, as far as they are mapped already; those that are needed are put into it.
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
    def _block_order(self) -> Tensor:
        """Which whole block each whole block's rows are exchanged with."""
        assert self.exchange is not None
        generator = torch.Generator().manual_seed(self.exchange.seed)
        return torch.randperm(len(self) // self.exchange.block_rows, generator=generator)

    @cached_property
    def _begins(self) -> dict[str, int]:
        """The first row of each shard."""
        return {shard.file: end - shard.rows for shard, end in zip(self.manifest.shards, self._ends, strict=True)}

    def _announced(self, spans: Sequence[Span], ahead: int, names: Sequence[str]) -> Iterator[Span]:
        """The same spans, each announced to the operating system so many spans ahead: it reads while other work is done."""
        for index in range(-ahead, len(spans)):
            if index + ahead < len(spans):
                self._announce(*spans[index + ahead], names)
            if index >= 0:
                yield spans[index]

    def _announce(self, shard: Shard, start: int, stop: int, names: Sequence[str]) -> None:
        if sys.platform != "linux":  # it is mere advice, and may come to nothing
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
        """Random batches of the rows that the buffer names; what is left moves to the front. Returns how many are left."""
        order = torch.randperm(len(buffer), generator=generator)
        whole = len(buffer) - len(buffer) % batch_size
        mapped: Mapped = {}
        for start in range(0, whole, batch_size):
            yield self._batch(buffer[order[start : start + batch_size]].sort().values, names, mapped)
        buffer[: len(buffer) - whole] = buffer[order[whole:]]
        return len(buffer) - whole


def open_store(folder: str | Path, *, check: bool = True, skip_damaged: bool = False) -> Store:
    """A store to read from.

    Args:
        folder: where a ``StoreWriter`` wrote; it may still be writing, what it adds later is not seen.
        check: compare each shard's checksum before its first row is read, once in a process; False saves that time.
        skip_damaged: leave damaged shards out, and read the rows of the others; reads every file once.

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
    """The checksum of a file, computed once in this process unless the file has been written since."""
    now = file.stat()
    return _remembered(file.absolute(), now.st_ino, now.st_size, now.st_mtime_ns)


@cache
def _remembered(file: Path, *_: int) -> str:
    return _checksum(file)


def _remedy(folder: Path, problems: Sequence[str]) -> str:
    return (
        f"the store in {str(folder)!r} is damaged: {'; '.join(problems)}. Restore what is named from a copy or collect anew; "
        "open_store(folder, skip_damaged=True) reads the rows of the other shards"
    )
