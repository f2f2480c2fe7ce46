"""`interp-transfer run`: the whole pipeline."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from interp_transfer.cli.options import Json, Out, PairsOptions, TaskName, model_option, named_task, with_flags
from interp_transfer.cli.output import finish, resumable, show
from interp_transfer.studies.options import QUICK, RunOptions


@with_flags(PairsOptions, RunOptions, where_given=QUICK)
def run(
    options: dict[str, Any],
    task: TaskName = None,
    source: Annotated[str | None, model_option("Model that the vector is extracted from: name or folder.")] = None,
    target: Annotated[str | None, model_option("Model that the vector is moved to: name or folder.")] = None,
    repeat: Annotated[
        Path | None, typer.Option("--from", help="Repeat the run of this result.json; only --out and --json go with it.")
    ] = None,
    sites: Annotated[str | None, typer.Option(help="Site of both models: a hook point, a block's number, or auto.")] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Extract a vector from one model, move it to another, and compare it there with every baseline."""
    if repeat is not None:
        if task or options["pairs"] or source or target:
            raise ValueError("--from takes the task and the models from the file: leave them out")
        repeat_run(repeat, out, as_json)
        return
    if source is None or target is None or (task is None and options["pairs"] is None):
        raise ValueError("name a task, --source and --target (interp-transfer run TASK --source A --target B), or --from FILE")
    for side in ("source_site", "target_site"):
        options[side] = options[side] or sites
    run_and_show(named_task(task, options), source, target, out, as_json, **options)


def run_and_show(task: Any, source: str, target: str, out: Path | None, as_json: bool, **options: Any) -> None:
    """Run the pipeline and print its result."""
    from interp_transfer.studies.run import run as pipeline

    with resumable(out):
        result = pipeline(task, source, target, out=out, **options)
    _print(result, out, as_json)


def repeat_run(file: Path, out: Path | None, as_json: bool) -> None:
    """Repeat a run, and print its result and what differs."""
    from interp_transfer.studies.rerun import rerun

    result, differences = rerun(file, out=out)
    head = f"{len(differences)} figures differ from {file}" if differences else f"All figures are those of {file}"
    _print(result, out, as_json, [head, *differences])


def _print(result: Any, out: Path | None, as_json: bool, lines: Iterable[str] = ()) -> None:
    from interp_transfer.reporting.report import headline
    from interp_transfer.reporting.table import result_table

    plain = result.to_dict()
    finish(as_json, plain, result_table(result), [headline(plain)], out and out / "report.html")
    if not as_json:
        show(None, lines, wrap=False)
