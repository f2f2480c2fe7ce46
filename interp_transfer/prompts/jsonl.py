"""Read JSONL files of users: one object a line, with checked columns and errors that name the line."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from typeguard import TypeCheckError, check_type

from interp_transfer.io import parse_json
from interp_transfer.names import did_you_mean, first_line, quoted


def read_jsonl(
    path: str | Path, required: Collection[str], optional: Collection[str] = (), *, strict: bool = False, chats: bool = False
) -> list[tuple[int, dict[str, Any]]]:
    """The lines of a file with their numbers, counted from 1. Empty lines are left out.

    Args:
        path: the file, UTF-8.
        required: columns that each line must have; their values are strings.
        optional: columns that it may have; their values are strings, or null, which counts as absent.
        strict: refuse other columns, which may be misspelt optional ones; otherwise they are dropped.
        chats: accept lists of messages as values too, see ``prompts.chats``.

    Raises:
        ValueError: for an empty or unreadable file, and for the first invalid line.
    """
    path = Path(path).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ValueError(f"cannot read {str(path)!r}: {reason}; give a JSONL file, one object a line") from error
    rows = [
        (number, _row(line, f"{path}, line {number}", required, optional, strict, chats))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not rows:
        raise ValueError(f"{str(path)!r} is empty: give one object a line, with {_named(required)}")
    return rows


def _row(
    line: str, where: str, required: Collection[str], optional: Collection[str], strict: bool, chats: bool
) -> dict[str, Any]:
    expected = f"expected an object with {_named(required)}" + (f", and perhaps {_named(optional)}" if optional else "")
    try:
        row: Mapping[str, Any] = check_type(parse_json(line), dict[str, Any])
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg}, column {error.colno}); {expected}") from error
    except (ValueError, RecursionError) as error:  # digits without end, lists in lists
        raise ValueError(f"{where}: no JSON that can be read ({first_line(error)}); {expected}") from error
    except TypeCheckError as error:
        raise ValueError(f"{where}: not an object; {expected}") from error
    for column in required:
        if column not in row:
            hint = did_you_mean(column, row)
            raise ValueError(f"{where}: {column!r} is missing: {hint}{expected}, not {_named(list(row)[:20]) or 'nothing'}")
    others = [column for column in row if column not in (*required, *optional)]
    if strict and others:
        raise ValueError(f"{where}: unknown column {quoted(others[0])}; {expected}")
    kept = {k: v for k, v in row.items() if k in required or (k in optional and v is not None)}
    for column, value in kept.items():
        if not isinstance(value, str) and not (chats and isinstance(value, list)):
            raise ValueError(f"{where}: {column!r} is a {type(value).__name__}, not a string; {expected}")
    return kept


def _named(columns: Collection[str]) -> str:
    return ", ".join(map(quoted, columns))
