"""What the files of a store are: its manifest, its shards, and how either is written such that it is whole or not there.

``manifest.json`` is the only place that says which shards count. A shard is a safetensors file, written here by hand, because
what is appended piece by piece can then be hashed and written without being joined first, and because a full disk shows as
the ``OSError`` that it is.
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
from typing import Any, BinaryIO, NotRequired, TypedDict

import torch
from torch import Tensor
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

FORMAT = "interp_transfer.store/1"
MANIFEST = "manifest.json"
_SUBFOLDER = re.compile(r"[\w-]*")  # of a store that several ranks have written; never a path out of the store

# By what a column may be stored as: torch's dtype, and how a safetensors header calls it.
_DTYPES: dict[str, tuple[torch.dtype, str]] = {
    "float32": (torch.float32, "F32"),
    "bfloat16": (torch.bfloat16, "BF16"),
    "float16": (torch.float16, "F16"),
    "int64": (torch.int64, "I64"),
    "int32": (torch.int32, "I32"),
}


@dataclass(frozen=True)
class Column:
    """What one column of a store holds.

    Attributes:
        dtype: what its numbers are stored as: "float32", "bfloat16", "float16", "int64" or "int32".
        width: how many numbers a row has; None for one number, without an axis of its own.

    Raises:
        ValueError: for a dtype or a width that cannot be.
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
        """The dtype as torch's own."""
        return _DTYPES[self.dtype][0]

    def shape(self, rows: int) -> tuple[int, ...]:
        """Shape of that many rows."""
        return (rows,) if self.width is None else (rows, self.width)


@dataclass(frozen=True)
class Shard:
    """One file of a store.

    Attributes:
        file: its name in the folder.
        rows: how many rows it holds.
        bytes: its size.
        sha256: checksum of the whole file.
        upto: how many texts are in the store once this shard is.
    """

    file: str
    rows: int
    bytes: int
    sha256: str
    upto: int


@dataclass(frozen=True)
class Manifest:
    """What a store holds: the only place that says which shards count.

    Attributes:
        columns: what each column holds.
        meta: what the rows belong to (fingerprints, sites, alignment), as plain JSON.
        shards: the files, in the order of their rows.
        upto: how many texts are in; the last of them may have left no row in any shard.
        dropped: how many rows were left out because they held NaN or infinity.
        state: what the one who appends keeps about all that is in, as plain JSON; it changes as the store grows.
    """

    columns: dict[str, Column]
    meta: dict[str, Any]
    shards: tuple[Shard, ...] = ()
    upto: int = 0
    dropped: int = 0
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows all shards hold together."""
        return sum(shard.rows for shard in self.shards)


class _PlainColumn(TypedDict):
    dtype: str
    width: int | None


class _PlainShard(TypedDict):
    file: str
    rows: int
    bytes: int
    sha256: str
    upto: int


class _PlainManifest(TypedDict):
    format: str
    columns: dict[str, _PlainColumn]
    meta: dict[str, Any]
    shards: list[_PlainShard]
    upto: int
    dropped: int
    state: NotRequired[dict[str, Any]]


def columns_like(block: Mapping[str, Tensor], dtype: str | None = "float32") -> dict[str, Column]:
    """Columns for blocks such as this one.

    Args:
        block: some rows, or none: only dtypes and widths are looked at.
        dtype: what to store the floating-point columns as; None for what they are (float32 for wider ones). int32 stays,
            other integers become int64.
    """
    out = {}
    for name, rows in block.items():
        whole = "int32" if rows.dtype == torch.int32 else "int64"
        width = None if rows.ndim == 1 else int(rows.shape[1])
        own = str(rows.dtype).removeprefix("torch.")
        floating = dtype if dtype is not None else own if own in _DTYPES else "float32"
        out[name] = Column(floating if rows.is_floating_point() else whole, width)
    return out


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a store.

    Raises:
        ValueError: for a folder without one, a damaged one, or one of another format.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ValueError(f"{str(folder)!r} holds no store: there is no {MANIFEST}; give the folder that a StoreWriter wrote to")
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(plain, dict) and plain.get("format", FORMAT) != FORMAT:
            raise ValueError(f"its format is {plain['format']!r}, and this version reads {FORMAT!r}")
        said = check_type(plain, _PlainManifest, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
        shards = tuple(Shard(**shard) for shard in said["shards"])
        for folder_name, files in groupby((shard.file for shard in shards), lambda file: file.rpartition("/")[0]):
            numbered = [f"{folder_name}/{file_name(i)}".lstrip("/") for i in range(len(shards))]
            if not _SUBFOLDER.fullmatch(folder_name) or (names := list(files)) != numbered[: len(names)]:
                raise ValueError("its shards are not numbered from 0 without a gap")
        columns = {name: Column(**column) for name, column in said["columns"].items()}
    except (ValueError, RecursionError, TypeCheckError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged or foreign: {error}; restore it from a copy, the shards cannot be read without it"
        ) from error
    return Manifest(columns, said["meta"], shards, said["upto"], said["dropped"], said.get("state", {}))


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
    """What is wrong with a shard's file, or None.

    Args:
        folder: where the store is.
        shard: what the manifest says of the file.
        checksum: sha256 of a file, if its contents are to be looked at: missing and truncated files show without.
    """
    try:
        size = (folder / shard.file).stat().st_size
    except FileNotFoundError:
        return f"{shard.file} is missing"
    if size != shard.bytes:
        return f"{shard.file} is {'truncated' if size < shard.bytes else 'too long'}: {size} bytes instead of {shard.bytes}"
    if checksum is not None and (now := checksum(folder / shard.file)) != shard.sha256:
        return f"{shard.file} has changed since it was written: its checksum is {now[:12]}... instead of {shard.sha256[:12]}..."
    return None


def plain_meta(meta: Mapping[str, Any], what: str = "meta") -> dict[str, Any]:
    """What ``meta`` is once it has been written and read: tuples are lists then."""
    try:
        return json.loads(json.dumps(dict(meta), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{what} cannot be written as JSON ({error}): give strings, finite numbers, lists and dicts"
        ) from error


def differences(have: Any, want: Any, *, partly: bool = False, at: str = "meta") -> Iterator[str]:
    """Where two plain values differ, each place with both values.

    Args:
        have: what is in the store.
        want: what it is compared with.
        partly: in mappings, look only at the keys of ``want``.
        at: what the whole is called.
    """
    if isinstance(have, dict) and isinstance(want, dict):
        for key in want if partly else {**have, **want}:
            if key not in have:
                yield f"{at}[{key!r}] is not in the store, and {want[key]!r} is asked for"
            elif key not in want:
                yield f"{at}[{key!r}] is {have[key]!r} in the store, and not given"
            else:
                yield from differences(have[key], want[key], partly=partly, at=f"{at}[{key!r}]")
    elif have != want:
        yield f"{at} is {have!r} in the store, and {want!r} is asked for"


def file_name(index: int) -> str:
    """What the shard of this index, counted from 0, is called."""
    return f"shard-{index:05d}.safetensors"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace a store's manifest."""
    text = json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1) + "\n"
    write_whole(folder / MANIFEST, [memoryview(text.encode())])


def layout(columns: Mapping[str, Column], rows: int) -> dict[str, tuple[int, int]]:
    """Where each column begins and ends in a shard, in bytes after the header, in the order in which they come."""
    places, begin = {}, 0
    # The widest numbers come first, and the header fills whole words, so that every column is aligned.
    for name in sorted(columns, key=lambda name: -columns[name].torch_dtype.itemsize):
        end = begin + rows * (columns[name].width or 1) * columns[name].torch_dtype.itemsize
        places[name] = begin, end
        begin = end
    return places


def shard_pieces(columns: Mapping[str, Column], blocks: Sequence[Mapping[str, Tensor]]) -> Iterator[memoryview]:
    """A safetensors file of the blocks one after the other, in pieces: joining them first would take the memory twice."""
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
    """How many rows a block of equally long columns has."""
    return len(next(iter(block.values())))


def write_whole(file: Path, pieces: Iterable[memoryview]) -> tuple[int, str]:
    """Write a file such that it is there whole or not at all, whatever happens; its size and its checksum."""
    half = file.with_name(f".{file.name}.part")
    digest, size = hashlib.sha256(), 0
    try:
        with half.open("wb") as out:
            for piece in pieces:
                _write_piece(out, piece)
                digest.update(piece)
                size += piece.nbytes
            out.flush()
            os.fsync(out.fileno())
        half.replace(file)
    finally:
        half.unlink(missing_ok=True)
    if sys.platform != "win32":  # the new name is on disk only when the folder is
        handle = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return size, digest.hexdigest()


def _write_piece(out: BinaryIO, piece: memoryview) -> None:
    out.write(piece)
