"""Texts from a file or a data set: what models read when mappers are fitted."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from interp_transfer.io import parse_json
from interp_transfer.names import cut, first_line
from interp_transfer.prompts.chats import Prompt, as_prompt, as_user_message, with_answer

COLUMNS = ("text", "messages", "prompt")
"""Columns of which a row has one: a text, a list of messages, or what a user asks, with perhaps a ``response``."""
MOST = 10_000
"""Number of rows that are read from a data set."""


def read_texts(source: str | Path | Iterable[Any], most: int = MOST) -> list[Prompt]:
    """Return texts and chats, each once.

    Args:
        source: a JSONL file whose lines are texts, lists of messages, or objects with a column ``text``, ``messages``, or
            ``prompt`` and perhaps ``response`` (a chat); a text file with one text a line; a data set that the library
            ``datasets`` loads, with such columns, as NAME or NAME:SPLIT (the split "train" unless given); or an iterable of
            such rows.
        most: number of rows that are read from a data set or an iterable, from its beginning.

    Raises:
        ValueError: for a file that is missing or has a line of another form, with its number; a data set that cannot be loaded;
            and no texts.
    """
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        rows = _lines(path) if path.is_file() else _rows(str(source), most)
    else:
        rows = ((f"text {index}", row) for index, row in enumerate(islice(source, most)))
    texts = list(dict.fromkeys(_text(row, where) for where, row in rows))
    if not texts:
        raise ValueError(f"there are no texts in {source!r}: give at least one")
    return texts


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ValueError(f"cannot read {str(path)!r}: {reason}; give a JSONL or text file") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        if path.suffix.lower() not in (".jsonl", ".json"):
            yield where, line.rstrip("\r")
            continue
        try:
            yield where, parse_json(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON ({error.msg}, column {error.colno}); give one JSON value a line") from error
        except (ValueError, RecursionError) as error:  # digits without end, lists in lists
            raise ValueError(f"{where}: no JSON that can be read ({first_line(error)}); give one JSON value a line") from error


def _rows(name: str, most: int) -> Iterator[tuple[str, Any]]:
    """Rows of a data set of the hub or of a local folder, streamed."""
    folder = Path(name).expanduser().is_dir()
    if " " in name and not folder:
        raise ValueError(
            f"one string was given, {name[:60]!r}: give a list of the texts that both models should read, or a file"
        )
    if name.startswith((".", "/", "~")) and not folder or Path(name).suffix in (".jsonl", ".txt"):
        raise ValueError(f"there is no file {name!r}: give a JSONL or text file, or the name of a data set")
    import datasets
    from datasets.exceptions import DatasetsError

    dataset, _, split = name.partition(":")
    load: Any = datasets.load_dataset
    try:
        stream = load(dataset, split=split or "train", streaming=True)
        yield from ((f"{name}, row {index}", row) for index, row in enumerate(islice(stream, most)))
    except (OSError, ImportError, ValueError, DatasetsError) as error:
        raise ValueError(
            f"cannot read the texts {name!r}: it is no file, and no data set that can be loaded ({first_line(error)}): give a "
            "JSONL or text file"
        ) from error


def _text(row: Any, where: str) -> Prompt:
    try:
        if not isinstance(row, Mapping):
            return as_prompt(row)
        column = next((name for name in COLUMNS if row.get(name)), None)
        if column is None:
            there = cut(", ".join(map(str, row))) or "nothing"
            raise ValueError(f"none of the columns {', '.join(COLUMNS)} is among {there}")
        if column != "prompt":
            return as_prompt(row[column])
        return with_answer(as_user_message(row[column]), str(row.get("response") or ""))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
