"""Read a store of activations: any run of rows, all rows in order, or all rows shuffled, in bounded memory.

Every read is by row number, and copies the rows from memory-mapped safetensors files. Shuffling takes contiguous blocks in
random order until their row numbers fill a buffer, and yields these rows in random batches. Each row is copied once, so
shuffling is as fast as reading, and the rows of a block are far apart once the buffer holds many blocks. The rows of some
columns may be exchanged (`Exchange`), for controls.
"""

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
from jaxtyping import Int
from torch import Tensor

from interp_transfer.activations.store.exchange import BLOCK_ROWS, Exchange
from interp_transfer.activations.store.manifest import Column, Manifest, Shard, damage, layout, read_manifest
from interp_transfer.io import file_hash
from interp_transfer.names import did_you_mean, first_line

BUFFER_ROWS = 65536
BATCH_SIZE = 1024

Rows = dict[str, Tensor]
Runs = Sequence[tuple[int, int]]  # rows of a store: the first, and the one after the last


@dataclass(frozen=True, repr=False, eq=False)
class Store:
    """Rows on disk, as they were when the store was opened. ``len`` is their number.

    Attributes:
        folder: the store's folder.
        manifest: the manifest.
        check: compare each shard's checksum, once in a process, before its first row is read.
        exchange: columns whose rows are exchanged as they are read, if any.
    """

    folder: Path
    manifest: Manifest
    check: bool = True
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
        dropped = f", {self.manifest.dropped} rows dropped" if self.manifest.dropped else ""
        return (
            f"Store({len(self)} rows of {self.manifest.upto} texts in {len(self.manifest.shards)} shards of "
            f"{str(self.folder)!r}: {columns}{dropped})"
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
        return self._rows(torch.arange(start, stop), names, {})

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
        names, blocks = self._names(columns), self._split(block_rows, rows)
        return (self._rows(torch.arange(*block), names, {}) for block in self._announced(blocks, 4, names))

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
        names, blocks = self._names(columns), self._split(block_rows, rows)
        return self._shuffled(torch.Generator().manual_seed(seed), batch_size, buffer_rows, blocks, names)

    def exchanged(self, columns: Sequence[str], seed: int) -> "Store":
        """Return the same store with the rows of some columns exchanged at random, see `Exchange`."""
        return replace(self, exchange=Exchange(frozenset(self._names(columns)), seed))

    @cached_property
    def _ends(self) -> list[int]:
        """Number of the row after each shard's last."""
        return list(accumulate(shard.rows for shard in self.manifest.shards))

    def _names(self, columns: Sequence[str] | None) -> list[str]:
        names = list(self.columns) if columns is None else [columns] if isinstance(columns, str) else list(columns)
        for name in names:
            if name not in self.columns:
                raise ValueError(
                    f"the store has no column {name!r}: {did_you_mean(name, self.columns)}there are {', '.join(self.columns)}"
                )
        return names

    def _check_run(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"rows {start} to {stop} of {len(self)}: give 0 <= start <= stop <= {len(self)}")

    def _split(self, block_rows: int, rows: Runs | None) -> Runs:
        """Split runs into blocks, each within one shard."""
        if block_rows < 1:
            raise ValueError(f"block_rows={block_rows}: give at least 1")
        blocks = []
        for start, stop in [(0, len(self))] if rows is None else rows:
            self._check_run(start, stop)
            while start < stop:
                end = min(stop, self._ends[bisect_right(self._ends, start)])
                blocks += [(first, min(first + block_rows, end)) for first in range(start, end, block_rows)]
                start = end
        return blocks

    def _rows(self, rows: Int[Tensor, " row"], names: Sequence[str], mapped: dict[str, Rows]) -> Rows:
        """Rows by number; in exchanged columns, the rows that replace them.

        Args:
            rows: numbers of the rows.
            names: names of the columns.
            mapped: columns of shards that are mapped already, by file; further ones are added.
        """
        if self.exchange is None:
            return self._copied(rows, names, mapped)
        moved = [name for name in names if name in self.exchange.columns]
        out = self._copied(rows, [name for name in names if name not in moved], mapped)
        out |= self._copied(self.exchange.partners(rows, len(self)), moved, mapped)
        return {name: out[name] for name in names}

    def _copied(self, rows: Int[Tensor, " row"], names: Sequence[str], mapped: dict[str, Rows]) -> Rows:
        """Rows by number, without exchange; copied once, or twice if they are not in the order of the store."""
        if bool((rows[1:] < rows[:-1]).any()):
            order = rows.argsort()
            back = torch.empty_like(order)
            back[order] = torch.arange(len(order))
            return {name: part[back] for name, part in self._copied(rows[order], names, mapped).items()}
        columns = {name: self.columns[name] for name in names}
        out = {name: torch.empty(c.shape(len(rows)), dtype=c.torch_dtype) for name, c in columns.items()}
        counts = torch.bincount(torch.searchsorted(torch.tensor(self._ends), rows, right=True)).tolist()
        done = 0
        for shard, end, count in zip(self.manifest.shards, self._ends, counts, strict=False):
            if not count:
                continue
            part = self._mapped(shard, names, mapped)
            within = rows[done : done + count] - (end - shard.rows)
            for name in names:
                torch.index_select(part[name], 0, within, out=out[name][done : done + count])
            done += count
        return out

    def _mapped(self, shard: Shard, names: Sequence[str], mapped: dict[str, Rows]) -> Rows:
        """Whole columns of a shard as views of the mapped file, which is read when they are used."""
        from safetensors import SafetensorError, safe_open

        part = mapped.setdefault(shard.file, {})
        missing = [name for name in names if name not in part]
        if not missing:
            return part
        if self.check and (problem := damage(self.folder, shard, _checksum_once)):
            raise ValueError(_remedy(self.folder, [problem]))
        try:
            with safe_open(self.folder / shard.file, framework="pt") as file:
                for name in missing:
                    column = file.get_slice(name)
                    if tuple(column.get_shape()) != self.columns[name].shape(shard.rows):
                        raise SafetensorError(f"{name} has shape {column.get_shape()}")
                    part[name] = column[0 : shard.rows]
        except (SafetensorError, OSError) as error:
            raise ValueError(_remedy(self.folder, [f"{shard.file} cannot be read ({first_line(error)})"])) from error
        return part

    def _announced(self, blocks: Runs, ahead: int, names: Sequence[str]) -> Iterator[tuple[int, int]]:
        """The same blocks; the operating system starts to read each from the disk some blocks ahead."""
        for index in range(-ahead, len(blocks)):
            if index + ahead < len(blocks):
                self._announce(*blocks[index + ahead], names)
            if index >= 0:
                yield blocks[index]

    def _announce(self, start: int, stop: int, names: Sequence[str]) -> None:
        if sys.platform != "linux":  # an optimisation only
            return
        index = bisect_right(self._ends, start)
        shard = self.manifest.shards[index]
        first = start - (self._ends[index] - shard.rows)
        places = layout(self.columns, shard.rows)
        header = shard.bytes - max(end for _, end in places.values())
        with suppress(OSError), (self.folder / shard.file).open("rb") as file:
            for begin, end in (places[name] for name in names):
                row = (end - begin) // shard.rows
                offset, length = header + begin + first * row, (stop - start) * row
                os.posix_fadvise(file.fileno(), offset, length, os.POSIX_FADV_WILLNEED)

    def _shuffled(
        self, generator: torch.Generator, batch_size: int, buffer_rows: int, blocks: Runs, names: Sequence[str]
    ) -> Iterator[Rows]:
        total = sum(stop - start for start, stop in blocks)
        room = min(buffer_rows, total)
        order = [blocks[i] for i in torch.randperm(len(blocks), generator=generator).tolist()]
        ahead = -(-room * len(blocks) // max(1, total))  # blocks that fill a buffer
        buffer = torch.empty(0, dtype=torch.long)
        for block in self._announced(order, ahead, names):
            buffer = torch.cat([buffer, torch.arange(*block)])
            while len(buffer) > room:
                left = yield from self._drained(buffer[:room], batch_size, generator, names)
                buffer = torch.cat([left, buffer[room:]])
        left = yield from self._drained(buffer, batch_size, generator, names)
        if len(left):
            yield self._rows(left.sort().values, names, {})

    def _drained(
        self, buffer: Int[Tensor, " row"], batch_size: int, generator: torch.Generator, names: Sequence[str]
    ) -> Generator[Rows, None, Int[Tensor, " row"]]:
        """Yield random batches of the rows whose numbers are in the buffer; return the numbers that do not fill a batch."""
        order = buffer[torch.randperm(len(buffer), generator=generator)]
        whole = len(order) - len(order) % batch_size
        mapped: dict[str, Rows] = {}
        for start in range(0, whole, batch_size):
            yield self._rows(order[start : start + batch_size].sort().values, names, mapped)
        return order[whole:]


def open_store(folder: str | Path, *, check: bool = True) -> Store:
    """Open a store for reading.

    Args:
        folder: the folder of a ``StoreWriter``, which may still be writing; rows that it adds later are not seen.
        check: compare each shard's checksum before its first row is read, once in a process; False saves that time.

    Raises:
        ValueError: for a folder without a store, a damaged manifest, shards that are missing or of the wrong size.
    """
    manifest = read_manifest(folder)
    if problems := [problem for shard in manifest.shards if (problem := damage(Path(folder), shard))]:
        raise ValueError(_remedy(Path(folder), problems))
    return Store(Path(folder), manifest, check)


def _checksum_once(file: Path) -> str:
    """The checksum of a file, computed again only if the file has changed."""
    now = file.stat()
    return _cached(file.absolute(), now.st_ino, now.st_size, now.st_mtime_ns)


@cache
def _cached(file: Path, *_: int) -> str:
    return file_hash(file)


def _remedy(folder: Path, problems: Sequence[str]) -> str:
    return f"the store in {str(folder)!r} is damaged: {'; '.join(problems)}. Restore these files from a copy or collect anew"
