"""The tables and pictures of the documentation, written from their cells."""

import shutil
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from plotly.graph_objects import Figure

from interp_transfer.io import write_files
from interp_transfer.paper import markdown
from interp_transfer.paper.cells import jobs_of, read_cell
from interp_transfer.paper.experiment import Experiment
from interp_transfer.paper.kinds import kind
from interp_transfer.paper.rows import Row, RowsByCase
from interp_transfer.paper.runner import measure_missing
from interp_transfer.reporting.png_export import BROWSERS, png
from interp_transfer.reporting.render import write_page


def write_tables(
    chosen: Sequence[Experiment],
    out: Path,
    folder: Path,
    *,
    quick: bool = False,
    n: int | None = None,
    seed: int = 0,
    processes: int | None = None,
    measure: bool = True,
    progress: bool = True,
) -> tuple[list[Path], Mapping[tuple[str, str], str]]:
    """Measure what is missing of some tables, and write those whose cells are all there.

    Args:
        chosen: which; see ``experiment.choose``.
        out: folder of the cells.
        folder: that Markdown files and pictures are written to. Files of tables that lack a cell are left as they are.
        quick: only the quick cases, on few prompts.
        n: prompts of every figure, in place of each table's own.
        seed: seed of all random draws.
        processes: how many run at once; the number of cores unless given.
        measure: False writes what can be written from the cells that there are.
        progress: show a bar.

    Returns:
        The files that were written, and why cases failed, by table and case.

    Raises:
        ValueError: for anything unknown and for damaged cells, before any work.
    """
    jobs = jobs_of(chosen, quick=quick, n=n, seed=seed)
    failures = measure_missing(jobs, out, processes=processes, progress=progress) if measure else {}
    written: list[Path] = []
    for one in chosen:
        cells = {job.case.name: read_cell(job, out) for job in jobs if job.experiment is one}
        rows_by_case = {name: cell.rows for name, cell in cells.items() if cell is not None}
        if cells and len(rows_by_case) == len(cells):
            written += _write(one, rows_by_case, folder)
    return written, failures


def _write(one: Experiment, rows_by_case: RowsByCase, folder: Path) -> list[Path]:
    module = kind(one.kind).module
    as_rows = getattr(module, "tables", _with_case)
    written = []
    for name, rows in as_rows(one.name, rows_by_case).items():
        blocks = [block for _, alike in groupby(rows, tuple) for block in markdown.tables(_without_empty(list(alike)))]
        text = "\n\n".join(f"<!-- table {k} -->\n{block}" for k, block in enumerate(blocks, 1))
        written.append(write_page(f"{text}\n\n{f'{one.note}{chr(10)}' if one.note else ''}", folder / f"{name}.md"))
    figures: Mapping[str, Figure] = module.figures(rows_by_case) if hasattr(module, "figures") else {}
    return [*written, *(path for name, figure in figures.items() if (path := write_picture(figure, folder / name)))]


def _without_empty(rows: Sequence[Row]) -> list[tuple[Row, dict[str, str], dict[str, str]]]:
    """Rows of the same columns, without the columns that have no value in any."""
    columns = [column for column in rows[0] if any(row[column] is not None for row in rows)]
    return [({column: row[column] for column in columns}, {}, {}) for row in rows]


def _with_case(name: str, rows_by_case: RowsByCase) -> dict[str, list[Row]]:
    return {name: [{"case": case, **row} for case, rows in rows_by_case.items() for row in rows]}


def write_picture(figure: Figure, out: Path) -> Path | None:
    """Write a plotly figure as PNG by Chromium or Chrome; nothing where neither is installed."""
    if not any(map(shutil.which, BROWSERS)):
        return None
    layout: Any = figure.layout
    title, width = layout.title.text or "", layout.width
    return write_files({out: png(figure.update_layout(title=None), title, "", width)})[0]
