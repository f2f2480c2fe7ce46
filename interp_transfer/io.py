"""Atomic writes, by which a file or folder appears whole or not at all, even after a kill; checked reads; the cache folder."""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from typeguard import TypeCheckError, check_type

from interp_transfer.escape import without_surrogates

T = TypeVar("T")

LOCK = ".lock"
"""Name of the file in a folder by which `locked_folder` locks it; it stays there."""
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``, which is renamed to it when the block ends without an exception.

    An older file of that name stays until then. The temporary file is removed if the block fails, and an ``OSError`` names
    the file.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: str | Path, size: int | None = None) -> Iterator[Path]:
    """Yield an empty temporary folder next to ``folder``, which is renamed to it when the block ends without an exception.

    The temporary folder is removed if the block fails; what a killed process left there, at the next call.

    Args:
        folder: the folder to make; missing or empty.
        size: number of bytes that will be written to a folder in the cache.

    Raises:
        ValueError: with a size, if the disk has less space than that, or cannot be written to.
    """
    folder = Path(folder)
    part = folder.with_name(f".{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        free = shutil.disk_usage(part).free
        if size is not None and free < size:
            raise ValueError(
                f"{str(folder.parent)!r} has {free / 1e9:.1f} GB of space, and {size / 1e9:.1f} GB are needed: free some, or "
                "set XDG_CACHE_HOME to a folder on a larger disk"
            )
        yield part
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except OSError as error:
        if size is None or error.errno not in _UNWRITABLE:
            raise
        raise ValueError(
            f"cannot write {str(folder)!r} ({error.strerror or error}): free some space, or set XDG_CACHE_HOME to another"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def locked_folder(folder: str | Path) -> Iterator[None]:
    """Keep other processes from writing to a folder, made if it is missing, by a lock that ends with the process.

    Raises:
        ValueError: if another one holds it.
    """
    from filelock import FileLock, Timeout

    Path(folder).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(folder) / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"another writer is at work in {str(folder)!r}: wait for it or end it, or write to another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def empty_folder(out: str | Path) -> Path:
    """The absolute path of an output folder; a ValueError for one that holds something already."""
    folder = Path(out).expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{str(out)!r} is not an empty folder: choose another one, or remove it first")
    return folder


def write_json(path: str | Path, data: Any) -> None:
    """Write data as JSON, atomically. Halves of surrogate pairs, which UTF-8 does not have, are written as JSON's escapes.

    Raises:
        ValueError: for NaN or infinity, which JSON does not have.
    """
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_files(files: Mapping[Path, bytes]) -> list[Path]:
    """Write files; missing folders are made. All are written under temporary names first, so an error replaces none of them.

    Returns:
        Their paths.

    Raises:
        ValueError: when one cannot be written.
    """
    file = None
    try:
        with ExitStack() as stack:
            for file, content in files.items():
                file.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(atomic_write(file)).write_bytes(content)
    except OSError as error:
        raise ValueError(f"cannot write {file} ({error.strerror}): make the folder writable or copy it elsewhere") from error
    return list(files)


def write_tensors(path: str | Path, tensors: Mapping[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write tensors and metadata as a safetensors file, atomically. Tensors may share memory."""
    from safetensors.torch import save

    plain = {key: without_surrogates(value) for key, value in (metadata or {}).items()}
    # Not by save_file, whose own temporary file would survive a kill.
    data = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, plain)
    with atomic_write(path) as part:
        part.write_bytes(data)


def read_tensors(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        ValueError: for a missing, truncated or foreign file, with its name.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is damaged or no safetensors file: {error}") from error


def checked(kind: type[T], plain: Mapping[str, Any]) -> T:
    """Return a dataclass made of plain data from a file, which may come from anywhere; the types of its fields are checked.

    Raises:
        TypeError: for a field that is missing, unknown or of another type, with its name.
    """
    hints = get_type_hints(kind)
    for name, value in plain.items():
        try:
            check_type(value, hints.get(name, Any))
        except TypeCheckError as error:
            raise TypeError(f"{name}: {error}") from None
    return kind(**plain)


def keep_alone(file: Path, pattern: str) -> None:
    """Remove all other files of a pattern from the folder of a file."""
    for other in file.parent.glob(pattern):
        if other.name != file.name:
            other.unlink()


def hashed(value: Any) -> str:
    """A short hash of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def cache_folder(*parts: str) -> Path:
    """The folder in the user's cache for one purpose, such as ``cache_folder("sites")``; it need not exist."""
    from platformdirs import user_cache_path

    return user_cache_path("interp_transfer").joinpath(*parts)
