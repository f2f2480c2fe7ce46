"""Atomic writes, by which a file or folder appears whole or not at all, even after a kill; checked reads; the cache folder."""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from interp_transfer.escape import without_surrogates
from interp_transfer.names import first_line, quoted

T = TypeVar("T")

LOCK = ".lock"
"""Name of the file in a folder by which `locked_folder` locks it; it stays there."""
DIGEST = "digest"
"""Name under which a file stores the digest of its own content."""

_CHANGED = "its content does not fit its digest, so it was changed after it was written: restore it from a copy"
_OF_CONTENT = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, OSError, TypeCheckError)
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
    """Write tensors and metadata, with their digest, as a safetensors file, atomically. Tensors may share memory."""
    from safetensors.torch import save

    plain = {key: without_surrogates(value) for key, value in (metadata or {}).items()}
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    # Not by save_file, whose own temporary file would survive a kill.
    data = save(whole, {**plain, DIGEST: tensors_digest(whole, plain)})
    with atomic_write(path) as part:
        part.write_bytes(data)


def read_tensors(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors and metadata of a safetensors file. The digest of ``write_tensors``, if it has one, is checked and left out.

    Raises:
        ValueError: for a missing, truncated, changed or foreign file, with its name.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{str(path)!r} is damaged or no safetensors file: {first_line(error)}") from error
    digest = metadata.pop(DIGEST, None)
    if digest is not None and digest != tensors_digest(tensors, metadata):
        raise ValueError(f"{str(path)!r} is damaged: {_CHANGED}")
    return tensors, metadata


def tensors_digest(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> str:
    """The SHA-256 of tensors and metadata, whatever their order."""
    import torch

    digest = hashlib.sha256(json.dumps(dict(metadata or {}), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def with_digest(plain: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """Plain data with a digest of it, and of ``more``, such as the digests of files that belong to it.

    Halves of surrogate pairs are replaced, because ``parse_json`` refuses them.
    """
    stored = json.loads(without_surrogates(json.dumps(plain, ensure_ascii=False)))
    return {**stored, DIGEST: hashed([stored, *more])}


def check_digest(plain: dict[str, Any], *more: str) -> dict[str, Any]:
    """Return data of ``with_digest`` without the digest; data of older versions, which have none, as they are.

    Raises:
        ValueError: if they were changed.
    """
    rest = {name: value for name, value in plain.items() if name != DIGEST}
    if DIGEST in plain and plain[DIGEST] != hashed([rest, *more]):
        raise ValueError(_CHANGED)
    return rest


@contextmanager
def named_errors(where: str, remedy: str = "") -> Iterator[None]:
    """Turn whatever the content of a damaged file makes Python raise into one ValueError of one line.

    Args:
        where: begins the error; names the file and ends in words such as "is damaged".
        remedy: ends it.
    """
    try:
        yield
    except _OF_CONTENT as error:
        raise ValueError(f"{where}: {first_line(error)}{remedy}") from error


def parse_json(text: str) -> Any:
    """Return the value of a JSON text from a file.

    Raises:
        ValueError: for a text that is no JSON, a number that is none or beyond 64 bits, and half of a surrogate pair, which
            cannot be written or tokenized.
        RecursionError: for lists in lists in lists.
    """
    value = json.loads(text, parse_int=_integer, parse_constant=_refused)
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _integer(digits: str) -> int:
    if abs(number := int(digits)) >= 2**63:
        raise ValueError(f"the number {digits[:20]}... is beyond 64 bits")
    return number


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is not a number")


def typed(value: Any, kind: Any) -> Any:
    """Return plain data from a file if it is of a type, every item of it.

    Raises:
        TypeCheckError: otherwise.
    """
    return check_type(value, kind, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)


def checked(kind: type[T], plain: Mapping[str, Any]) -> T:
    """Return a dataclass made of plain data from a file, which may come from anywhere; the types of its fields are checked.

    Raises:
        TypeError: for a field that is missing, unknown or of another type, with its name.
    """
    if not isinstance(plain, Mapping):
        raise TypeError(f"{quoted(plain)} stands where the fields of a {kind.__name__} should be")
    hints = get_type_hints(kind)
    for name, value in plain.items():
        try:
            typed(value, hints.get(name, Any))
        except TypeCheckError as error:
            raise TypeError(f"{quoted(name)}: {first_line(error)}") from None
    return kind(**plain)


def keep_alone(file: Path, pattern: str) -> None:
    """Remove all other files of a pattern from the folder of a file."""
    for other in file.parent.glob(pattern):
        if other.name != file.name:
            other.unlink()


def hashed(value: Any) -> str:
    """A short hash of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_hash(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def cache_folder(*parts: str) -> Path:
    """The folder in the user's cache for one purpose, such as ``cache_folder("sites")``; it need not exist."""
    from platformdirs import user_cache_path

    return user_cache_path("interp_transfer").joinpath(*parts)
