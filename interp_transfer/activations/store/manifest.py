"""The files of a store, its manifest and its shards, and how to write them completely or not at all.

Only shards that ``manifest.json`` lists belong to the store. A shard is a safetensors file. It is written here by hand, so that
blocks can be hashed and written without joining them first, and a full disk raises an ``OSError``.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from interp_transfer.io import DIGEST, atomic_write, check_digest, checked, named_errors, parse_json, with_digest
from interp_transfer.names import quoted

FORMAT = "interp_transfer.store/1"
MANIFEST = "manifest.json"
_SUBFOLDER = re.compile(r"[\w-]*")  # of a store that several ranks have written; never a path out of the store

_SHA256 = re.compile("[0-9a-f]{64}")

# By name of the stored dtype: torch's dtype, and its name in a safetensors header.
_DTYPES: dict[str, tuple[torch.dtype, str]] = {
    "float32": (torch.float32, "F32"),
    "bfloat16": (torch.bfloat16, "BF16"),
    "float16": (torch.float16, "F16"),
    "int64": (torch.int64, "I64"),
}


@dataclass(frozen=True)
class Column:
    """One column of a store.

    Attributes:
        dtype: stored dtype: "float32", "bfloat16", "float16" or "int64".
        width: numbers in a row; None for a single number without an axis of its own.

    Raises:
        ValueError: for another dtype, or a width below 1.
    """

    dtype: str
    width: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype {self.dtype!r}: a column is stored as one of {', '.join(_DTYPES)}")
        if self.width is not None and self.width < 1:
            raise ValueError(f"width {self.width}: give at least 1, or None for one number a row")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The stored dtype as torch's dtype."""
        return _DTYPES[self.dtype][0]

    def shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of so many rows."""
        return (rows,) if self.width is None else (rows, self.width)


@dataclass(frozen=True)
class Shard:
    """One file of a store.

    Attributes:
        file: name in the folder.
        rows: number of rows.
        bytes: size of the file.
        sha256: checksum of the file.
        upto: number of texts in the store up to and including this shard.
    """

    file: str
    rows: int
    bytes: int
    sha256: str
    upto: int

    def __post_init__(self) -> None:
        if not 0 < self.rows <= self.bytes or not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"a shard of {self.rows} rows in {self.bytes} bytes, sha256 {quoted(self.sha256)}")


@dataclass(frozen=True)
class Manifest:
    """Contents of a store.

    Attributes:
        columns: the columns by name.
        meta: description of the rows (fingerprints, sites, alignment), as plain JSON.
        shards: the files, in the order of their rows.
        upto: number of texts; the last ones may have no rows.
        dropped: number of rows that were left out because they held NaN or infinity.
        state: the appender's own running data about all texts, as plain JSON.
    """

    columns: dict[str, Column]
    meta: dict[str, Any]
    shards: tuple[Shard, ...]
    upto: int
    dropped: int
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of rows in all shards."""
        return sum(shard.rows for shard in self.shards)


def columns_like(block: Mapping[str, Tensor], dtype: str | None = "float32") -> dict[str, Column]:
    """Return columns for blocks such as this one.

    Args:
        block: rows, possibly none: only dtypes and widths matter.
        dtype: stored dtype of the floating-point columns; their own if None (float32 for wider ones). Integers become int64.
    """
    out = {}
    for name, rows in block.items():
        width = None if rows.ndim == 1 else int(rows.shape[1])
        own = str(rows.dtype).removeprefix("torch.")
        floating = dtype if dtype is not None else own if own in _DTYPES else "float32"
        out[name] = Column(floating if rows.is_floating_point() else "int64", width)
    return out


def read_manifest(folder: str | Path) -> Manifest:
    """Return the manifest of a store.

    Raises:
        ValueError: for a folder without a manifest, a damaged one, or one of another format.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ValueError(f"{str(folder)!r} holds no store: there is no {MANIFEST}; give the folder that a StoreWriter wrote to")
    remedy = "; restore it from a copy, the shards cannot be read without it"
    with named_errors(f"{str(path)!r} is damaged or foreign", remedy):
        whole = dict(parse_json(path.read_text(encoding="utf-8")))
        plain = {name: value for name, value in whole.items() if name != DIGEST}
        if (its_format := plain.pop("format", FORMAT)) != FORMAT:
            raise ValueError(f"its format is {its_format!r}, and this version reads {FORMAT!r}")
        shards = tuple(checked(Shard, shard) for shard in plain["shards"])
        columns = {name: checked(Column, column) for name, column in plain["columns"].items()}
        manifest = checked(Manifest, {**plain, "columns": columns, "shards": shards})
        for folder_name, files in groupby((shard.file for shard in shards), lambda file: file.rpartition("/")[0]):
            numbered = [f"{folder_name}/{file_name(i)}".lstrip("/") for i in range(len(shards))]
            if not _SUBFOLDER.fullmatch(folder_name) or (names := list(files)) != numbered[: len(names)]:
                raise ValueError("its shards are not numbered from 0 without a gap")
        for shard in shards:
            if max(end for _, end in layout(columns, shard.rows).values()) > shard.bytes:
                raise ValueError(f"{shard.file} is too small for its rows and columns")
        check_digest(whole)
    return manifest


def join(manifests: Mapping[str, Manifest]) -> Manifest:
    """Return the manifest of a store that is made of others, in its subfolders; meta and state are those of the first.

    Args:
        manifests: by the name of the subfolder; all with the same columns.
    """
    first, *_ = manifests.values()
    shards: list[Shard] = []
    texts = 0
    for name, part in manifests.items():
        shards += [replace(shard, file=f"{name}/{shard.file}", upto=texts + shard.upto) for shard in part.shards]
        texts += part.upto
    return replace(first, shards=tuple(shards), upto=texts, dropped=sum(part.dropped for part in manifests.values()))


def damage(folder: Path, shard: Shard, checksum: Callable[[Path], str] | None = None) -> str | None:
    """Return the problem of a shard's file, or None.

    Args:
        folder: the store's folder.
        shard: the file as the manifest describes it.
        checksum: function that computes a file's sha256; None to check only that the file exists with its size.
    """
    try:
        size = (folder / shard.file).stat().st_size
    except FileNotFoundError:
        return f"{shard.file} is missing"
    except OSError as error:
        return f"{shard.file} cannot be read ({error.strerror})"
    if size != shard.bytes:
        return f"{shard.file} is {'truncated' if size < shard.bytes else 'too long'}: {size} bytes instead of {shard.bytes}"
    if checksum is not None and (now := checksum(folder / shard.file)) != shard.sha256:
        return f"{shard.file} has changed since it was written: its checksum is {now[:12]}... instead of {shard.sha256[:12]}..."
    return None


def plain_meta(meta: Mapping[str, Any], what: str = "meta") -> dict[str, Any]:
    """Return ``meta`` as it is after writing and reading: tuples are lists."""
    try:
        return json.loads(json.dumps(dict(meta), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{what} cannot be written as JSON ({error}): give strings, finite numbers, lists and dicts"
        ) from error


def differences(have: Any, want: Any, at: str = "meta") -> Iterator[str]:
    """Describe every difference between two plain values.

    Args:
        have: value in the store.
        want: value to compare with.
        at: name of the whole.
    """
    if isinstance(have, dict) and isinstance(want, dict):
        for key in {**have, **want}:
            if key not in have:
                yield f"{at}[{key!r}] is not in the store, and {want[key]!r} is asked for"
            elif key not in want:
                yield f"{at}[{key!r}] is {have[key]!r} in the store, and not given"
            else:
                yield from differences(have[key], want[key], at=f"{at}[{key!r}]")
    elif have != want:
        yield f"{at} is {have!r} in the store, and {want!r} is asked for"


def file_name(index: int) -> str:
    """Return the file name of a shard, counted from 0."""
    return f"shard-{index:05d}.safetensors"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace a store's manifest."""
    text = json.dumps(with_digest({"format": FORMAT, **asdict(manifest)}), indent=1) + "\n"
    write_whole(folder / MANIFEST, [memoryview(text.encode())])


def layout(columns: Mapping[str, Column], rows: int) -> dict[str, tuple[int, int]]:
    """Return where each column begins and ends in a shard, in bytes after the header, in the order of the file."""
    places, begin = {}, 0
    # Columns are sorted by the size of their numbers, and the header fills whole words, so every column is aligned.
    for name in sorted(columns, key=lambda name: -columns[name].torch_dtype.itemsize):
        end = begin + rows * (columns[name].width or 1) * columns[name].torch_dtype.itemsize
        places[name] = begin, end
        begin = end
    return places


def shard_pieces(columns: Mapping[str, Column], blocks: Sequence[Mapping[str, Tensor]]) -> Iterator[memoryview]:
    """Yield a safetensors file of the blocks in pieces: joining them first would double the memory."""
    rows = sum(map(rows_of, blocks))
    places = layout(columns, rows)
    header = {
        name: {"dtype": _DTYPES[columns[name].dtype][1], "shape": columns[name].shape(rows), "data_offsets": place}
        for name, place in places.items()
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for name in places:
        for block in blocks:
            yield block[name].reshape(-1).view(torch.uint8).numpy().data


def rows_of(block: Mapping[str, Tensor]) -> int:
    """Return the number of rows of a block."""
    return len(next(iter(block.values())))


def write_whole(file: Path, pieces: Iterable[memoryview]) -> tuple[int, str]:
    """Write a file completely or not at all; return its size and its checksum."""
    digest, size = hashlib.sha256(), 0
    with atomic_write(file) as part, part.open("wb") as out:
        for piece in pieces:
            _write_piece(out, piece)
            digest.update(piece)
            size += piece.nbytes
        out.flush()
        os.fsync(out.fileno())
    if sys.platform != "win32":  # the new name is safe only after the folder is synced
        handle = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return size, digest.hexdigest()


def _write_piece(out: BinaryIO, piece: memoryview) -> None:
    out.write(piece)
