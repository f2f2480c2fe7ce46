"""Output folders of studies: checked before any work, and written whole or not at all."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm.auto import tqdm


def fresh_folder(out: str | Path | None) -> Path | None:
    """The absolute path of an output folder; None for None.

    Raises:
        ValueError: for a folder that holds something already, or that cannot be written.
    """
    if out is None:
        return None
    folder = Path(out).expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{str(out)!r} is not an empty folder: choose another one, or remove it first")
    _check_writable(folder.parent)
    return folder


def work_folder(folder: Path | None, progress: bool = True) -> Path | None:
    """The folder beside an output folder in which a study keeps what it has computed so far; None for None.

    One that a stopped study left is announced.
    """
    if folder is None:
        return None
    work = folder.with_name(f".{folder.name}.resume")
    if progress and work.is_dir():
        tqdm.write(f"Resuming: {work} holds what an earlier run into this folder had computed when it was stopped", sys.stderr)
    return work


def fresh_file(path: str | Path) -> Path:
    """The absolute path of a file that is to be written, in a folder that is made if it is missing.

    Raises:
        ValueError: for a file that exists, or a folder that cannot be written.
    """
    file = Path(path).expanduser().absolute()
    if file.exists():
        raise ValueError(f"{str(path)!r} exists: choose another file, or remove it first")
    _check_writable(file.parent)
    return file


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"cannot write to {str(folder)!r}: {error.strerror}; choose another folder") from error


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``folder`` when the block ends, or is removed when it fails."""
    half = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield half
        half.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        half.rename(folder)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise


def free_folder(folder: Path) -> Path:
    """The folder, or the first of folder-2, folder-3, ... that does not exist."""
    number, chosen = 1, folder
    while chosen.exists():
        number += 1
        chosen = folder.with_name(f"{folder.name}-{number}")
    return chosen
