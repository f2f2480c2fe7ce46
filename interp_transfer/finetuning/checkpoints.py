"""Checkpoints of a training: which one to resume from, and whether they belong to the same training.

A process can be killed at any moment, so a checkpoint counts only if its last file is complete. The settings of the training
are stored with its checkpoints: resuming with other examples or another recipe would give a model that nobody described.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp_transfer.io import write_json

_SETTINGS = "request.json"
_STATE = "trainer_state.json"  # the last file that Trainer writes into a checkpoint


def resume(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The last complete checkpoint in a folder, or None; incomplete ones are removed.

    Raises:
        ValueError: for a checkpoint of a training with other settings, with the differences.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[-1])):
        if _read_json(checkpoint / _STATE) is not None:
            _check_same(folder, settings)
            return str(checkpoint)
        shutil.rmtree(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _SETTINGS, settings)
    return None


def discard(folder: Path) -> None:
    """Remove the checkpoints of a finished training, so that a partly removed one is never taken for a complete one."""
    for state in folder.glob(f"checkpoint-*/{_STATE}"):
        state.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _check_same(folder: Path, settings: Mapping[str, Any]) -> None:
    before = _read_json(folder / _SETTINGS) or {}
    now = json.loads(json.dumps(settings))
    changed = [
        f"{key}: {before.get(key, 'unknown')} then, {now.get(key)} now"
        for key in {**before, **now}
        if before.get(key, "unknown") != now.get(key)
    ]
    if changed:
        raise ValueError(
            f"{folder} holds an interrupted training with other settings ({'; '.join(changed[:4])}): use the same ones to "
            "resume it, choose another folder, or remove that one to start again"
        )


def _read_json(file: Path) -> Any:
    """The content of a file, or None if it is missing or incomplete."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None
