"""Activations on disk, for when they do not fit into memory: the writer.

A store is a folder of shards (safetensors files that hold the same named columns) and a manifest, which says what the columns
are, what the rows belong to, and which shards count. A shard is written under another name and renamed when it is whole, then
the manifest is replaced likewise; so a writer that is killed, at whatever moment, leaves the store as it was after its last
shard. A shard holds whole blocks as they were appended, and the manifest knows how many texts each shard reaches: the next
writer goes on from there, with no row lost or doubled. ``store_manifest`` says what the files are,
``store_reading`` reads them.
"""

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_transfer.activations.finite import all_finite
from interp_transfer.activations.store.manifest import (
    MANIFEST,
    Column,
    Manifest,
    Shard,
    damage,
    differences,
    file_name,
    plain_meta,
    read_manifest,
    rows_of,
    shard_pieces,
    write_manifest,
    write_whole,
)

ROWS_PER_SHARD = 32768


class StoreWriter:
    """Writes a store, or goes on with one; use it as a context manager. One writer at a time.

    On the way out, what is still buffered is written too, after an exception as well: only whole blocks are ever buffered.

    Args:
        folder: made if it is not there.
        columns: what the store holds; fixed when it is made, ``columns_like`` takes them from a first block.
        meta: anything that JSON can hold (fingerprints of the models, sites, alignment); fixed when the store is made.
        shard_rows: rows that are buffered and written as one shard; a block that has more is a shard of its own.
        drop_bad: leave out rows that hold NaN or infinity, and count them, instead of refusing them.

    Raises:
        ValueError: on entering, where the folder has another writer, holds a store with other columns or meta, a damaged
            shard, or shards without a manifest.
    """

    def __init__(
        self,
        folder: str | Path,
        columns: Mapping[str, Column],
        meta: Mapping[str, Any] | None = None,
        *,
        shard_rows: int = ROWS_PER_SHARD,
        drop_bad: bool = False,
    ) -> None:
        if shard_rows < 1:
            raise ValueError(f"shard_rows={shard_rows}: give at least 1")
        if not columns or "__metadata__" in columns:
            raise ValueError(f"columns {list(columns)}: give at least one, and none called '__metadata__'")
        self.folder = Path(folder)
        self.shard_rows = shard_rows
        self.drop_bad = drop_bad
        self._asked = Manifest(dict(columns), plain_meta(meta or {}))
        self._blocks: list[dict[str, Tensor]] = []
        self._manifest = self._asked  # what is on disk
        self._next = self._asked  # what the manifest will say of texts and dropped rows once the buffer is written
        self._usable = False
        self._held = ExitStack()

    @property
    def resume_at(self) -> int:
        """How many texts are on disk for good: the index of the text to go on with, after a kill or a full disk."""
        return self._manifest.upto

    @property
    def rows(self) -> int:
        """How many rows are on disk for good."""
        return self._manifest.rows

    @property
    def state(self) -> dict[str, Any]:
        """What came with the last block that is on disk for good; empty where none did."""
        return self._manifest.state

    def __enter__(self) -> "StoreWriter":
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(_alone(self.folder))
            self._manifest = self._next = _begin(self.folder, self._asked)
            self._held = stack.pop_all()
        self._blocks, self._usable = [], True
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._held:
            if kind is None and self._usable:
                self.flush()
            elif self._usable:
                with suppress(OSError):  # what went wrong first is what the caller should hear of
                    self.flush()
            self._usable = False

    def append(self, columns: Mapping[str, Tensor], *, upto: int, state: Mapping[str, Any] | None = None) -> None:
        """Add a block of rows, which is in the store as a whole or not at all.

        Args:
            columns: the rows, every column of the store by name; copied, and converted to the column's dtype. A column
                called ``text_index`` is what errors name texts by.
            upto: how many texts have been consumed with this block, counted from the first ever: a later writer resumes
                with text ``upto``. A block brings whole texts; those that leave no row at all may come as an empty block.
            state: anything that JSON can hold and that is true of all texts up to ``upto``: running totals, say. It is
                written together with the rows, and a later writer has it as ``writer.state``; None leaves it as it is.

        Raises:
            ValueError: for other columns or shapes, for rows with NaN or infinity (unless ``drop_bad``), for numbers beyond
                what the column's dtype can hold, for an ``upto`` that does not go on.
            OSError: where the disk is full, saying what is safe.
        """
        self._check_usable()
        if upto <= self._next.upto:
            raise ValueError(
                f"upto={upto}, but {self._next.upto} texts are in already: append only what comes after them "
                "(writer.resume_at says where to go on)"
            )
        block, dropped = as_stored(columns, self._manifest.columns, self.drop_bad)
        known = self._next.state if state is None else plain_meta(state, "state")
        rows = rows_of(block)
        buffered = sum(map(rows_of, self._blocks))
        if buffered and buffered + rows > self.shard_rows:
            self.flush()
            buffered = 0
        self._usable = False  # rows and `upto` belong together: after a signal in between, neither is to be written
        if rows:
            self._blocks.append(block)
        self._next = replace(self._next, upto=upto, dropped=self._next.dropped + dropped, state=known)
        self._usable = True
        if buffered + rows >= self.shard_rows:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered as a shard, however small it is.

        Raises:
            OSError: where the disk is full, saying what is safe; this writer takes no more rows then.
        """
        self._check_usable()
        if self._next == self._manifest:
            return
        # Until this is through: who appends could not tell whether the block that a failure met counts as appended.
        self._usable = False
        try:
            self._manifest = self._next = _extend(self.folder, self._next, self._blocks)
        except OSError as error:
            raise OSError(
                error.errno or errno.EIO,
                f"could not write to the store in {str(self.folder)!r} ({error.strerror or error}): {self._manifest.rows} rows "
                f"of the first {self._manifest.upto} texts are safe; make room, then open the writer again and go on with "
                "text writer.resume_at",
            ) from error
        self._blocks, self._usable = [], True

    def _check_usable(self) -> None:
        if not self._usable:
            raise ValueError(
                f"the writer of {str(self.folder)!r} is not open, or stopped when a write failed: use `with StoreWriter(...) "
                "as writer`, and go on with text writer.resume_at"
            )


def _begin(folder: Path, asked: Manifest) -> Manifest:
    """The manifest to go on from, in a folder where what a killed writer left half done is cleared away."""
    files = sorted(folder.glob("shard-*.safetensors"))
    if not (folder / MANIFEST).exists():
        if files:
            raise ValueError(f"{str(folder)!r} holds {files[0].name}, but no {MANIFEST}: restore it, or choose an empty folder")
        write_manifest(folder, asked)
        return asked
    have = read_manifest(folder)
    plain = [{name: asdict(column) for name, column in m.columns.items()} for m in (have, asked)]
    for other in (*differences(have.meta, asked.meta), *differences(*plain, at="columns")):
        raise ValueError(
            f"the store in {str(folder)!r} was made for something else: {other}; ask for the same to go on with it, "
            "or choose another folder"
        )
    for shard in have.shards:
        if problem := damage(folder, shard):
            raise ValueError(
                f"cannot go on with the store in {str(folder)!r}: {problem}; restore that file, or begin in another folder"
            )
    known = {shard.file for shard in have.shards}
    for orphan in [file for file in files if file.name not in known] + list(folder.glob(".*.part")):
        orphan.unlink()
    return have


def _extend(folder: Path, manifest: Manifest, blocks: list[dict[str, Tensor]]) -> Manifest:
    if blocks:
        name = file_name(len(manifest.shards))
        size, sha256 = write_whole(folder / name, shard_pieces(manifest.columns, blocks))
        shard = Shard(name, sum(map(rows_of, blocks)), size, sha256, manifest.upto)
        manifest = replace(manifest, shards=(*manifest.shards, shard))
    write_manifest(folder, manifest)
    return manifest


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only writer of a folder; the operating system lets go of it when the process dies."""
    path = folder / ".lock"
    busy = f"another writer is at work in {str(folder)!r}: wait for it or end it, or write to another folder"
    if sys.platform == "win32":
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            raise ValueError(f"{busy}; if none is left, remove {str(path)!r}") from None
        try:
            yield
        finally:
            os.close(handle)
            path.unlink()
    else:
        import fcntl

        with path.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(busy) from None
            try:
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)  # closing it would not do where a forked child has it open too


def as_stored(given: Mapping[str, Tensor], columns: Mapping[str, Column], drop_bad: bool) -> tuple[dict[str, Tensor], int]:
    """A block as it will be on disk, and how many rows were dropped from it.

    Raises:
        ValueError: for what ``StoreWriter.append`` refuses about rows.
    """
    if set(given) != set(columns):
        missing, unknown = sorted(set(columns) - set(given)), sorted(set(given) - set(columns))
        raise ValueError(f"the block lacks the columns {missing} and has {unknown} too many: give {', '.join(columns)}")
    rows = rows_of(given)
    out = {name: _converted(name, given[name], column, rows) for name, column in columns.items()}
    bad: dict[str, Tensor] = {}
    for name, stored in out.items():
        if not stored.is_floating_point() or all_finite(stored):
            continue
        given_bad, stored_bad = (~torch.isfinite(part).reshape(rows, -1).all(dim=1).cpu() for part in (given[name], stored))
        if (overflow := stored_bad & ~given_bad).any():
            raise ValueError(
                f"column {name!r}: {_where(overflow, given)} numbers beyond {torch.finfo(stored.dtype).max:.5g}, the largest "
                f"that {columns[name].dtype} can hold: make the store with bfloat16 or float32"
            )
        bad[name] = given_bad
    if not bad:
        return out, 0
    if not drop_bad:
        found = "; ".join(f"column {name!r}: {_where(which, given)} NaN or infinity" for name, which in bad.items())
        raise ValueError(f"{found}: load the model with dtype='float32', or leave such rows out with drop_bad=True")
    keep = ~torch.stack(list(bad.values())).any(dim=0)
    return {name: stored[keep] for name, stored in out.items()}, int((~keep).sum())


def _converted(name: str, given: Tensor, column: Column, rows: int) -> Tensor:
    if tuple(given.shape) != column.shape(rows):
        raise ValueError(f"column {name!r} has shape {tuple(given.shape)}, and {column.shape(rows)} is expected")
    dtype = column.torch_dtype
    if given.is_floating_point() != dtype.is_floating_point or given.is_complex() or given.dtype == torch.bool:
        raise ValueError(f"column {name!r} is stored as {column.dtype}, and the block has {given.dtype}: convert it first")
    if not dtype.is_floating_point and rows and not given.is_floating_point():
        limits = torch.iinfo(dtype)
        if int(given.max()) > limits.max or int(given.min()) < limits.min:
            raise ValueError(f"column {name!r} has numbers beyond what {column.dtype} can hold: make the store with int64")
    return given.detach().to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)


def _where(which: Tensor, given: Mapping[str, Tensor]) -> str:
    first = int(which.nonzero()[0, 0])
    place = f"text {int(given['text_index'][first])}" if "text_index" in given else f"row {first} of the block"
    return f"{int(which.sum())} of {len(which)} rows, the first in {place}, hold"
