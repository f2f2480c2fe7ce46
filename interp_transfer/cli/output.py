"""What commands print: one JSON document, or tables and sentences. Names and texts in it are shown by ``escape.visible``."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from interp_transfer.escape import visible


def print_json(data: Any) -> None:
    """Print one JSON document; all in it is ASCII, and nothing a control character."""
    typer.echo(json.dumps(data, indent=1).replace("\x7f", "\\u007f"))


def say(text: object, *, err: bool = False) -> None:
    """Print a text on stdout, or on stderr."""
    typer.echo(visible(str(text)), err=err)


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
        say(f"\n{resumes}", err=True)
        raise


def console(**options: Any) -> Any:
    """The console that tables are printed on. It reads no markup and no names of emoji in strings."""
    from rich.console import Console

    class Plain(Console):
        def render_str(self, text: str, **options: Any) -> Any:
            return super().render_str(visible(text), **options)

    return Plain(markup=False, emoji=False, **options)


def show(table: Any, lines: Iterable[str] = (), page: Path | None = None, *, wrap: bool = True) -> None:
    """Print a table, lines (wrapped at words, or left whole), and where the page is."""
    out = console()
    if table is not None:
        out.print(table)
    for line in lines:
        out.print(line, highlight=False, soft_wrap=not wrap)
    if page is not None:
        out.print(f"Open {page}", highlight=False, soft_wrap=True)
