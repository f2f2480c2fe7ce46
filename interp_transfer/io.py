"""The checkpoints of a run: which one to go on from, and whether they belong to the run that asks.

A process can be killed at any moment, so a checkpoint counts only when its last file is whole, and what the run was asked
for stands beside them: going on with other examples or another recipe would give a model that nobody described.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_REQUEST = "request.json"  # beside the checkpoints: what the run was asked for
_STATE = "trainer_state.json"  # the last file of a checkpoint that Trainer writes


def discard(checkpoints: Path) -> None:
    """Remove the checkpoints of a run that is finished, such that a half-removed one is never taken for a whole one."""
    for state in checkpoints.glob(f"checkpoint-*/{_STATE}"):
        state.unlink()
    shutil.rmtree(checkpoints, ignore_errors=True)


def hashed(value: Any) -> str:
    """A short hash of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def write_whole(file: Path, value: Any) -> None:
    """Write JSON such that the file is there whole or not at all."""
    half = file.with_name(f".{file.name}.half")
    half.write_text(json.dumps(value, indent=1) + "\n")
    half.replace(file)


def write_files(files: Mapping[Path, bytes]) -> list[Path]:
    """Write files; missing folders are made. All are written under temporary names first, so an error replaces none of them.

    Returns:
        Their paths.

    Raises:
        ValueError: when one cannot be written.
    """
    temporary = {file: file.with_name(f".{file.name}.part") for file in files}
    file = None
    try:
        for file, content in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary[file].write_bytes(content)
        for file, part in temporary.items():
            part.replace(file)
    except OSError as error:
        for part in temporary.values():
            part.unlink(missing_ok=True)
        raise ValueError(f"cannot write {file} ({error.strerror}): make the folder writable or copy it elsewhere") from error
    return list(files)


def resume(checkpoints: Path, asked: Mapping[str, Any]) -> str | None:
    """The last whole checkpoint, if the run that left it was asked for the same; half-written ones are removed."""
    for folder in sorted(checkpoints.glob("checkpoint-*"), key=lambda f: -int(f.name.split("-")[-1])):
        if _is_json(folder / _STATE):
            _check_same(checkpoints, asked)
            return str(folder)
        shutil.rmtree(folder)
    checkpoints.mkdir(parents=True, exist_ok=True)
    write_whole(checkpoints / _REQUEST, asked)
    return None


@contextmanager
def without_bars() -> Iterator[None]:
    """No bar of transformers for every checkpoint that is written."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _check_same(checkpoints: Path, asked: Mapping[str, Any]) -> None:
    before = json.loads((checkpoints / _REQUEST).read_text()) if _is_json(checkpoints / _REQUEST) else {}
    now = json.loads(json.dumps(asked))
    other = [
        f"{key}: {before.get(key, 'not known')} then, {now.get(key)} now"
        for key in {**before, **now}
        if before.get(key, "not known") != now.get(key)
    ]
    if other:
        raise ValueError(
            f"{checkpoints} holds an interrupted run that was asked for something else ({'; '.join(other[:4])}): ask for the "
            "same to go on with it, choose another folder, or remove that one to begin anew"
        )


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text())
    except (OSError, ValueError):
        return False
    return True


def initial_weights(model: Any) -> str:
    """A hash of a few values of each weight, which tells one beginning from another."""
    picked = []
    for name, value in model.named_parameters():
        flat = value.detach().reshape(-1)
        picked.append([name, list(value.shape), flat[:: max(1, flat.numel() // 8)].double().cpu().tolist()])
    return hashed(picked)
