"""Output folders of studies: checked before any work."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from interp_transfer.io import empty_folder
from interp_transfer.progress import write_line

if TYPE_CHECKING:
    from interp_transfer.evaluation.kept import Kept


def fresh_folder(out: str | Path | None) -> Path | None:
    """The absolute path of an output folder; None for None.

    Raises:
        ValueError: for a folder that holds something already, or that cannot be written.
    """
    if out is None:
        return None
    try:
        folder = empty_folder(out)
    except ValueError:
        whole = Path(out).expanduser().absolute()
        if any(whole.glob("*.json")):  # by a process that was killed when it had written its result
            shutil.rmtree(_work_folder(whole), ignore_errors=True)
        raise
    _check_writable(folder.parent)
    return folder


@contextmanager
def kept_beside(folder: Path | None, progress: bool = True) -> "Iterator[Kept]":
    """What a study keeps, until the block ends, in a folder beside its output folder; nothing is kept for None.

    What a stopped study left there is announced.

    Raises:
        ValueError: if another process is at work on the same output folder, or has finished it meanwhile.
    """
    from interp_transfer.evaluation.kept import Kept

    if folder is None:
        yield Kept()
        return
    work = _work_folder(folder)
    resumes = work.is_dir()
    with Kept(work).alone() as kept:
        empty_folder(folder)
        if progress and resumes:
            write_line(f"Resuming: {work} holds what an earlier run into this folder had computed when it was stopped")
        yield kept


def _work_folder(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.resume")


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


def free_folder(folder: Path) -> Path:
    """The folder, or the first of folder-2, folder-3, ... that does not exist."""
    number, chosen = 1, folder
    while chosen.exists():
        number += 1
        chosen = folder.with_name(f"{folder.name}-{number}")
    return chosen
