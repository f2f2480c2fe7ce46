"""Local copies of data sets: which files are meant, and which of a data set's own splits each holds."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

# What `datasets.load_dataset` calls the reader of each suffix.
READERS: Mapping[str, str] = MappingProxyType({".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"})
_ALIASES = MappingProxyType({"val": "validation", "valid": "validation", "dev": "validation"})

Files = str | Path | Sequence[str | Path] | Mapping[str, str | Path | Sequence[str | Path]]


def local_splits(files: Files, splits: Sequence[str]) -> dict[str, list[Path]]:
    """The files of each split.

    A mapping names its splits itself. In a folder (such as a clone of the data set's repository) a file belongs to the split
    that its name or that of a folder above it opens with, and files of no split are left alone if there are files of one;
    otherwise, and for single files and lists, everything is the split "train" (or the data set's only or first one).

    Args:
        files: a file, a folder, several, or a mapping from split to these.
        splits: the splits that the data set has.

    Raises:
        ValueError: if a path does not exist, a folder has no readable file, or a split is unknown.
    """
    if isinstance(files, Mapping):
        named = {_canonical(split, splits): _expand(several) for split, several in files.items()}
        unknown = [split for split in named if split not in splits]
        if unknown:
            raise ValueError(f"data_files: unknown splits {', '.join(map(repr, unknown))}: the splits are {', '.join(splits)}")
        return named
    found: dict[str, list[Path]] = {}
    paths = _expand(files)
    root = Path(files) if isinstance(files, str | Path) and Path(files).is_dir() else None
    for path in paths:
        split = _split_of(path.relative_to(root) if root else Path(path.name), splits)
        found.setdefault(split, []).append(path)
    if set(found) == {""}:
        return {"train" if "train" in splits else splits[0]: found[""]}
    if root is None and "" in found:
        plain = ", ".join(path.name for path in found[""])
        raise ValueError(f"data_files: no split is named by {plain}, but by the others; give a mapping from split to files")
    found.pop("", None)
    return found


def reader_of(paths: Sequence[Path]) -> str:
    """The name of the reader for these files.

    Raises:
        ValueError: if they need more than one.
    """
    readers = {READERS[_suffix(path)] for path in paths}
    if len(readers) > 1:
        raise ValueError(f"data_files: {', '.join(map(str, paths))} are of several formats; give files of one")
    return readers.pop()


def _expand(files: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files themselves, folders replaced by what is in them, sorted."""
    several = [files] if isinstance(files, str | Path) else list(files)
    found: list[Path] = []
    for path in map(Path, several):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and _suffix(p) in READERS)
            if not inside:
                raise ValueError(f"data_files: the folder {path} holds no file of the kinds {', '.join(READERS)}")
            found += inside
        elif not path.is_file():
            raise ValueError(f"data_files: {path} does not exist")
        elif _suffix(path) not in READERS:
            raise ValueError(f"data_files: {path} is of no kind that can be read: use {', '.join(READERS)}")
        else:
            found.append(path)
    if not found:
        raise ValueError("data_files: no file is named")
    return found


def _suffix(path: Path) -> str:
    """The suffix that tells the format; a `.gz` or `.zst` after it is no part of it."""
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".zst")]
    return suffixes[-1].lower() if suffixes else ""


def _split_of(path: Path, splits: Sequence[str]) -> str:
    for piece in reversed(path.parts):
        names = sorted([*splits, *(alias for alias, name in _ALIASES.items() if name in splits)], key=len, reverse=True)
        match = re.match(f"({'|'.join(map(re.escape, names))})(?![A-Za-z])", piece)
        if match:
            return _canonical(match[1], splits)
    return ""


def _canonical(split: str, splits: Sequence[str]) -> str:
    return split if split in splits else _ALIASES.get(split, split)
