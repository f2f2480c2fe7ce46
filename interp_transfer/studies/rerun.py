"""Repeat a run from its result.json, and list what differs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from interp_transfer.evaluation.compare import Result
from interp_transfer.reporting.run_folder import read_result
from interp_transfer.studies.options import RunOptions
from interp_transfer.studies.run import run


def rerun(path: str | Path, *, out: str | Path | None = None, progress: bool = True) -> tuple[Result, list[str]]:
    """Repeat a run from its ``result.json``.

    Args:
        path: the file, or its folder.
        out: folder for the new run, as for ``run``.
        progress: show bars for what takes longer than two seconds.

    Returns:
        The new result, and the differences from the file: other models or versions, other figures. On the machine that wrote
        the file there should be none; on another one a trained mapper may change a prompt or two.

    Raises:
        ValueError: for a file that is missing, damaged, of another schema or changed by hand, with the field; and for the run
            of a task or a model that was not named.
    """
    file = Path(path) / "result.json" if Path(path).is_dir() else Path(path)
    stored = read_result(file)
    request = stored.get("asked")
    if request is None:
        raise ValueError(
            f"{str(path)!r} has no field 'asked': only runs of a task and models that were named, not objects, can be repeated"
        )
    known = {"task", "source", "target", *(f.name for f in fields(RunOptions))}
    if unknown := [name for name in request if name not in known]:
        raise ValueError(f"{path}: this version knows no 'asked.{unknown[0]}': use the one that wrote the file")
    again = run(**request, out=out, progress=progress)
    fresh = json.loads(json.dumps(again.to_dict()))
    return again, [line for line in _differences(stored, fresh) if not line.startswith("digests")]


def _differences(stored: Any, fresh: Any, name: str = "") -> Iterator[str]:
    """Where two values of JSON differ, by their dotted names."""
    if (
        isinstance(stored, Sequence)
        and isinstance(fresh, Sequence)
        and not isinstance(stored, str)
        and len(stored) == len(fresh)
    ):
        stored, fresh = (dict(enumerate(each)) for each in (stored, fresh))
    if isinstance(stored, Mapping) and isinstance(fresh, Mapping):
        for key in dict.fromkeys([*stored, *fresh]):
            yield from _differences(stored.get(key), fresh.get(key), f"{name}.{key}" if name else str(key))
    elif stored != fresh:
        yield f"{name}: {stored} then, {fresh} now"
