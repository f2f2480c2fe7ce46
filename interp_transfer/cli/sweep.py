"""`interp-transfer sweep`: where and how hard to steer."""

from pathlib import Path
from typing import Annotated, Any

import typer

from interp_transfer.cli.options import Json, ModelName, PairsOptions, Seed, TaskName, named_task, numbers, parts, with_flags
from interp_transfer.cli.output import finish
from interp_transfer.studies.options import TaskOptions


@with_flags(PairsOptions, TaskOptions)
def sweep(
    options: dict[str, Any],
    model: ModelName,
    task: TaskName = None,
    sites: Annotated[str | None, typer.Option(help="Hook points, joined by commas; default: the input of every block.")] = None,
    positions: Annotated[
        str | None,
        typer.Option(
            help="last, generated, response, all, prompt, trigger or an index, joined by commas; default: the first four."
        ),
    ] = None,
    strengths: Annotated[
        str | None, typer.Option(help="Strengths, joined by commas; default: searched up to the clean-KL budget.")
    ] = None,
    direction: Annotated[str | None, typer.Option(help="Direction of a task that has several.")] = None,
    n: Annotated[int, typer.Option(help="Number of prompts.")] = 100,
    split: Annotated[str, typer.Option(help="Split of the task's prompts.")] = "validation",
    seed: Seed = 0,
    budget: Annotated[float | None, typer.Option(help="Clean KL that a setting may cost; default: the task's.")] = None,
    early: Annotated[
        bool, typer.Option("--early", help="Drop settings that are probably worse after a quarter of the prompts.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for sweep.json and sweep.html; an interrupted sweep resumes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Try every site, rule of positions and strength: what each does, and what it costs."""
    from interp_transfer.reporting.table import sweep_table
    from interp_transfer.studies.sweep import sweep_study

    chosen = named_task(task, options)
    own: dict[str, Any] = {"n": n, "split": split, "seed": seed, "budget": budget, "early": early}
    if positions is not None:
        own["positions"] = [int(p) if p.lstrip("-").isdigit() else p for p in parts(positions) or []]
    if strengths is not None:
        own["strengths"] = numbers(strengths, "--strengths")
    how = TaskOptions(**options)
    swept = sweep_study(chosen, model, how=how, direction=direction, sites=parts(sites), out=out, **own)
    rules = ("pareto",) if early else ("pareto", "paper")
    lines = [f"By the rule {rule!r}: {swept.recommendation(rule)}" for rule in rules]
    finish(as_json, swept.to_dict(), sweep_table(swept), lines, out and out / "sweep.html")
