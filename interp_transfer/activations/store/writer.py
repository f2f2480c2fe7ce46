"""Write activations to disk, when they do not fit into memory.

A store is a folder of shards (safetensors files with the same named columns) and a manifest, which describes the columns and
the rows and lists the shards. A shard is written under another name and renamed when it is complete; then the manifest is
replaced in the same way. So a writer that is killed, at any moment, leaves the store as it was after its last shard. A shard
holds whole blocks as they were appended, and the manifest records how many texts each shard reaches: the next writer resumes
there, and no row is lost or doubled.
"""

import errno
from collections.abc import Mapping
from contextlib import ExitStack, suppress
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
from interp_transfer.io import locked_folder

ROWS_PER_SHARD = 32768


class StoreWriter:
    """Writes a new store, or resumes one, as a context manager. A store has one writer at a time.

    On leaving, buffered rows are written, also after an exception: the buffer holds whole blocks only.

    Args:
        folder: the store's folder, created if missing.
        columns: the columns, fixed when the store is created; ``columns_like`` derives them from a first block.
        meta: any JSON (fingerprints of the models, sites, alignment), fixed when the store is created.
        shard_rows: rows that are buffered and written as one shard; a larger block is a shard of its own.
        drop_bad: leave out rows that hold NaN or infinity, and count them, instead of refusing them.

    Raises:
        ValueError: on entering, if the folder has another writer, or holds a store with other columns or meta, a damaged shard,
            or shards without a manifest.
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
        self._empty = Manifest(dict(columns), plain_meta(meta or {}), shards=(), upto=0, dropped=0)
        self._blocks: list[dict[str, Tensor]] = []
        self._manifest = self._empty  # as it is on disk
        self._next = self._empty  # with the texts and dropped rows of the buffer
        self._usable = False
        self._held = ExitStack()

    @property
    def resume_at(self) -> int:
        """Number of texts that are safe on disk: the index of the text to resume with after a kill or a full disk."""
        return self._manifest.upto

    @property
    def state(self) -> dict[str, Any]:
        """State of the last block that is safe on disk; empty if it had none."""
        return self._manifest.state

    def __enter__(self) -> "StoreWriter":
        with ExitStack() as stack:
            stack.enter_context(locked_folder(self.folder))
            self._manifest = self._next = _begin(self.folder, self._empty)
            self._held = stack.pop_all()
        self._blocks, self._usable = [], True
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._held:
            if kind is None and self._usable:
                self.flush()
            elif self._usable:
                with suppress(OSError):  # the caller should see the first error
                    self.flush()
            self._usable = False

    def append(self, columns: Mapping[str, Tensor], *, upto: int, state: Mapping[str, Any] | None = None) -> None:
        """Add a block of rows; it is stored as a whole or not at all.

        Args:
            columns: the rows, every column of the store by name; copied, and converted to the column's dtype. Errors name texts
                by the column ``text_index``, if there is one.
            upto: number of texts consumed with this block, from the very first: a later writer resumes with text ``upto``. A
                block holds whole texts; texts without rows may come as an empty block.
            state: any JSON that describes all texts up to ``upto``, such as running totals. It is written together with the
                rows, and a later writer has it as ``writer.state``; None keeps the last one.

        Raises:
            ValueError: for other columns or shapes, for rows with NaN or infinity (unless ``drop_bad``), for numbers beyond the
                range of the column's dtype, for an ``upto`` that does not increase.
            OSError: if the disk is full, with what is safe.
        """
        self._check_usable()
        if upto <= self._next.upto:
            raise ValueError(
                f"upto={upto}, but the store holds {self._next.upto} texts already: append only later ones "
                "(writer.resume_at is the next text)"
            )
        block, dropped = as_stored(columns, self._manifest.columns, self.drop_bad)
        known = self._next.state if state is None else plain_meta(state, "state")
        rows = rows_of(block)
        buffered = sum(map(rows_of, self._blocks))
        if buffered and buffered + rows > self.shard_rows:
            self.flush()
            buffered = 0
        self._usable = False  # after a signal between the next two statements, neither rows nor `upto` may be written
        if rows:
            self._blocks.append(block)
        self._next = replace(self._next, upto=upto, dropped=self._next.dropped + dropped, state=known)
        self._usable = True
        if buffered + rows >= self.shard_rows:
            self.flush()

    def flush(self) -> None:
        """Write the buffer as a shard, however small it is.

        Raises:
            OSError: if the disk is full, with what is safe; this writer then accepts no more rows.
        """
        self._check_usable()
        if self._next == self._manifest:
            return
        self._usable = False  # unless this succeeds: the caller could not tell whether the last block was appended
        try:
            self._manifest = self._next = _extend(self.folder, self._next, self._blocks)
        except OSError as error:
            raise OSError(
                error.errno or errno.EIO,
                f"could not write to the store in {str(self.folder)!r} ({error.strerror or error}): {self._manifest.rows} rows "
                f"of the first {self._manifest.upto} texts are safe; make room, then open the writer again and resume with "
                "text writer.resume_at",
            ) from error
        self._blocks, self._usable = [], True

    def _check_usable(self) -> None:
        if not self._usable:
            raise ValueError(
                f"the writer of {str(self.folder)!r} is not open, or stopped when a write failed: use `with StoreWriter(...) "
                "as writer`, and resume with text writer.resume_at"
            )


def _begin(folder: Path, empty: Manifest) -> Manifest:
    """The manifest to resume from; removes incomplete files of a killed writer."""
    files = sorted(folder.glob("shard-*.safetensors"))
    if not (folder / MANIFEST).exists():
        if files:
            raise ValueError(f"{str(folder)!r} holds {files[0].name}, but no {MANIFEST}: restore it, or choose an empty folder")
        write_manifest(folder, empty)
        return empty
    have = read_manifest(folder)
    plain = [{name: asdict(column) for name, column in m.columns.items()} for m in (have, empty)]
    for other in (*differences(have.meta, empty.meta), *differences(*plain, at="columns")):
        raise ValueError(
            f"the store in {str(folder)!r} was made for something else: {other}; pass the same to resume it, "
            "or choose another folder"
        )
    for shard in have.shards:
        if problem := damage(folder, shard):
            raise ValueError(
                f"cannot resume the store in {str(folder)!r}: {problem}; restore that file, or begin in another folder"
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


def as_stored(given: Mapping[str, Tensor], columns: Mapping[str, Column], drop_bad: bool) -> tuple[dict[str, Tensor], int]:
    """Return a block as it is stored, and the number of rows that were dropped from it.

    Raises:
        ValueError: for rows that ``StoreWriter.append`` refuses.
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
        problems = "; ".join(f"column {name!r}: {_where(which, given)} NaN or infinity" for name, which in bad.items())
        raise ValueError(f"{problems}: load the model with dtype='float32', or leave such rows out with drop_bad=True")
    keep = ~torch.stack(list(bad.values())).any(dim=0)
    return {name: stored[keep] for name, stored in out.items()}, int((~keep).sum())


def _converted(name: str, given: Tensor, column: Column, rows: int) -> Tensor:
    if tuple(given.shape) != column.shape(rows):
        raise ValueError(f"column {name!r} has shape {tuple(given.shape)}, and {column.shape(rows)} is expected")
    dtype = column.torch_dtype
    if given.is_floating_point() != dtype.is_floating_point or given.is_complex() or given.dtype == torch.bool:
        raise ValueError(f"column {name!r} is stored as {column.dtype}, and the block has {given.dtype}: convert it first")
    return given.detach().to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)


def _where(which: Tensor, given: Mapping[str, Tensor]) -> str:
    first = int(which.nonzero()[0, 0])
    place = f"text {int(given['text_index'][first])}" if "text_index" in given else f"row {first} of the block"
    return f"{int(which.sum())} of {len(which)} rows, the first in {place}, hold"
