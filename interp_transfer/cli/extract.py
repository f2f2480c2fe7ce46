"""`interp-transfer extract`: a steering vector from a contrast."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from interp_transfer.cli.options import Json, ModelName, PairsOptions, TaskName, named_task, with_flags
from interp_transfer.cli.output import finish
from interp_transfer.studies.options import TaskOptions


@with_flags(PairsOptions, TaskOptions)
def extract(
    options: dict[str, Any],
    model: ModelName,
    task: TaskName = None,
    site: Annotated[
        str | None, typer.Option(help="Hook point or number of a block; default: the one on the model's card, or a search.")
    ] = None,
    direction: Annotated[str | None, typer.Option(help="Direction of a task that has several.")] = None,
    read: Annotated[
        str | None, typer.Option(help="Tokens that are read: last, all, an index; default: the task's own.")
    ] = None,
    method: Annotated[str, typer.Option(help="difference_in_means, pca or probe.")] = "difference_in_means",
    out: Annotated[Path, typer.Option(help="File of the vector.")] = Path("vector.safetensors"),
    as_json: Json = False,
) -> None:
    """Extract a steering vector from the training pairs of a task or a file, and save it."""
    from interp_transfer.activations.positions import as_positions
    from interp_transfer.studies.folders import fresh_file
    from interp_transfer.studies.inputs import AUTO, check_before_loading, choose_site, find_task, open_model
    from interp_transfer.vectors.extract import extract as extracted

    file = fresh_file(out)
    if options["pairs"] is not None and options["judge"] is None:
        if site in (None, AUTO):
            raise ValueError("pairs without a judge do not say where to steer: give --site, or --judge to search for one")
        options["judge"] = "refusal"  # not asked for anything: the site is known
    named = named_task(task, options)
    how = TaskOptions(**options)
    chosen = find_task(named, how, models=(model,), direction=direction)
    chosen = chosen if read is None else replace(chosen, read=as_positions(read))
    check_before_loading(model, chosen, site)
    hooked = open_model(model, chosen, how)
    where = choose_site(hooked, chosen, site).name
    vector = extracted(hooked, chosen.contrast("train"), where, chosen.read, method=method)
    vector.save(file)
    facts = {"file": str(file), "site": vector.site, "model": vector.model.name, "norm": vector.norm}
    finish(as_json, facts, None, [repr(vector), f"Written to {file}"], wrap=False)
