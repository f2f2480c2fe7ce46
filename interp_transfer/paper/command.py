"""The command `interp-transfer reproduce`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]


def reproduce(
    names: Annotated[list[str] | None, typer.Argument(help="Experiments; all of them unless named. --list shows them.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A case or two of each, on few prompts: to see that it runs.")] = False,
    edition: Annotated[str, typer.Option(help="organisms, or paper: its models and data, by their hub names.")] = "organisms",
    out: Annotated[
        Path | None, typer.Option(help="Folder of what was measured; goes on where one was killed. Default: runs/reproduce.")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="File of the page; default: RESULTS.md in the folder.")] = None,
    n: Annotated[int | None, typer.Option(help="Prompts of every figure, in place of each experiment's own.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    jobs: Annotated[int | None, typer.Option(help="Processes; default: as many as there are cores.")] = None,
    kept: Annotated[bool, typer.Option("--kept", help="Measure nothing: write the page from what the folder holds.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Show the experiments and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """The paper's tables, figures and claims, measured, beside what the paper reported."""
    from interp_transfer.paper.page import ANSWERS
    from interp_transfer.paper.page import reproduce as measured
    from interp_transfer.paper.plan import chosen

    experiments = chosen(names or [])
    if show:
        rows = [{"name": one.name, "title": one.title, "where": one.where, "cases": len(one.cases)} for one in experiments]
        if as_json:
            typer.echo(json.dumps(rows, indent=1))
            return
        for row in rows:
            typer.echo(f"{row['name']:28s} {row['title']} ({row['where']})")
        return
    folder = out if out is not None else Path("runs") / "reproduce"
    options: dict[str, Any] = {
        "edition": edition,
        "quick": quick,
        "n": n,
        "seed": seed,
        "jobs": jobs,
        "page": page,
        "kept_only": kept,
    }
    found = measured(experiments, folder, **options)
    if as_json:
        said = {name: {"agrees": v.agrees, "sentence": v.sentence} for name, v in found.verdicts.items()}
        failed = [{"experiment": name, "case": case, "why": why} for (name, case), why in found.failed.items()]
        typer.echo(json.dumps({"page": str(found.page), "verdicts": said, "failed": failed}, indent=1))
    else:
        for name, verdict in found.verdicts.items():
            typer.echo(f"{name}: {ANSWERS[verdict.agrees]}. {verdict.sentence}")
        typer.echo(f"Read {found.page}")
    if found.failed:
        raise ValueError(
            f"{len(found.failed)} of the cases failed (above, and on the page): the same command measures what is missing"
        )
