"""What commands print: one JSON document, or tables and sentences."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer


def print_json(data: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(data, indent=1))


def finish(
    as_json: bool, data: Any, table: Any = None, lines: Iterable[str] = (), page: Path | None = None, *, wrap: bool = True
) -> None:
    """Print the result of a command: its data as one JSON document, or what `show` prints."""
    if as_json:
        print_json(data)
    else:
        show(table, lines, page, wrap=wrap)


@contextmanager
def resumable(out: Path | None) -> Iterator[None]:
    """Say, when work that writes to a folder is stopped, how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        resumes = "The same command resumes from what was computed" if out else "With --out FOLDER stopped work can be resumed"
        sys.stderr.write(f"\n{resumes}\n")
        raise


def console() -> Any:
    """The console that tables are printed on."""
    from rich.console import Console

    return Console()


def show(table: Any, lines: Iterable[str] = (), page: Path | None = None, *, wrap: bool = True) -> None:
    """Print a table, lines (wrapped at words, or left whole), and where the page is."""
    out = console()
    if table is not None:
        out.print(table)
    for line in lines:
        out.print(line, highlight=False, markup=False, soft_wrap=not wrap)
    if page is not None:
        out.print(f"Open {page}", highlight=False, soft_wrap=True, markup=False)
