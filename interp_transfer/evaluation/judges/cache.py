"""Opinions on disk, by a hash of the question.

Each judge has one JSONL file, with a line for each final opinion that is appended in one write as it arrives: a killed process
loses at most the line that it was writing, and two processes may share a folder. The key of a line is a hash of all that the
opinion depends on: the judge's identity (model, wording, settings) and the texts. Each line holds a hash of itself; a damaged
line is reported, stays in the file, and its question is asked again.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from typeguard import TypeCheckError, check_type

from interp_transfer.evaluation.judges.opinion import Item, Opinion
from interp_transfer.names import first_line

FORMAT = "interp_transfer.opinions/1"


def key_of(identity: Mapping[str, Any], item: Item) -> str:
    """Return the hash of a question: the judge's identity and the texts."""
    return _hash([dict(identity), item.prompt, item.completion, item.reference])


@dataclass(frozen=True)
class OpinionCache:
    """The opinions of one judge in a folder.

    Attributes:
        file: the JSONL file.
        known: opinions by key, as they were when the file was opened.
        damaged: lines that could not be read, with file, number and reason.
    """

    file: Path
    known: Mapping[str, Opinion]
    damaged: tuple[str, ...]

    @classmethod
    def open(cls, folder: str | Path, identity: Mapping[str, Any]) -> "OpinionCache":
        """Read a judge's stored opinions; a missing folder is made.

        Raises:
            ValueError: when the folder or its file cannot be read or made.
        """
        where = Path(folder).expanduser()
        file = where / f"opinions-{_hash(dict(identity))[:16]}.jsonl"
        try:
            where.mkdir(parents=True, exist_ok=True)
            raw = file.read_bytes() if file.exists() else b""
            if not raw:
                _append(file, {"format": FORMAT, "judge": dict(identity)})
            elif not raw.endswith(b"\n"):  # the last writer was killed: its half line must not swallow the next
                with file.open("ab") as stream:
                    stream.write(b"\n")
        except OSError as error:
            raise ValueError(f"cannot keep opinions in {str(where)!r} ({error.strerror}): give another folder") from error
        known, damaged = {}, []
        for number, line in enumerate(raw.split(b"\n"), 1):
            try:
                known.update(_read(line))
            except (ValueError, RecursionError, TypeCheckError) as error:
                damaged.append(f"{file}, line {number}: {first_line(error)}")
        return cls(file, known, tuple(damaged))

    def add(self, key: str, opinion: Opinion) -> None:
        """Store a final opinion."""
        plain = {"key": key, "score": opinion.score, "reason": opinion.reason}
        _append(self.file, {**plain, "check": _hash(plain)})


def _append(file: Path, entry: Mapping[str, Any]) -> None:
    line = (json.dumps(entry, allow_nan=False) + "\n").encode("ascii")
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        written = os.write(descriptor, line)  # one write: lines of two processes do not mix
    finally:
        os.close(descriptor)
    if written != len(line):
        raise OSError(f"{file}: no room for an opinion, {written} of {len(line)} bytes were written")


def _read(line: bytes) -> Iterator[tuple[str, Opinion]]:
    if not line.strip():
        return
    entry = check_type(json.loads(line), dict[str, Any])
    if "format" in entry:
        if entry["format"] != FORMAT:
            raise ValueError(f"format {entry['format']!r}, expected {FORMAT!r}")
        return
    plain = {name: entry.get(name) for name in ("key", "score", "reason")}
    if entry.get("check") != _hash(plain):
        raise ValueError("it was changed or cut off: its hash is another")
    score = check_type(plain["score"], float | None)
    if score is not None and not isfinite(score):
        raise ValueError(f"a score of {score}")
    yield check_type(plain["key"], str), Opinion(score, check_type(plain["reason"], str))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("ascii")).hexdigest()
