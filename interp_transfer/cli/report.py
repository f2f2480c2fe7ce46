"""`interp-transfer report`: the page of a run, or of two runs."""

from pathlib import Path
from typing import Annotated

import typer

from interp_transfer.cli.output import say


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    against: Annotated[Path | None, typer.Option(help="Folder of another run of the task: one page on both instead.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Also write the run's numbers and completions as CSV.")] = False,
    png: Annotated[bool, typer.Option("--png", help="Also draw its figures as PNG, with Chromium or Chrome.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="The page to write with --against.")] = None,
) -> None:
    """Draw a run's report.html again from its result.json and completions.json, or compare the run with another."""
    if against is not None:
        from interp_transfer.reporting.two_runs_page import write_two_runs

        if csv or png:
            raise ValueError("--csv and --png are for one run: give them without --against")
        say(write_two_runs(folder, against, out))
        return
    if out is not None:
        raise ValueError("--out needs --against: a run's own report is report.html in its folder")
    from interp_transfer.reporting.csv_export import write_csv
    from interp_transfer.reporting.png_export import write_png
    from interp_transfer.reporting.report import write_report

    drawn = write_png(folder) if png else []  # first, because it may fail
    for path in (write_report(folder), *(write_csv(folder) if csv else []), *drawn):
        say(path)
