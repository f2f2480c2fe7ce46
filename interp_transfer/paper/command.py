"""The command `interp-transfer reproduce`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from interp_transfer.cli.output import print_json, say

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]


def reproduce(
    names: Annotated[list[str] | None, typer.Argument(help="Experiments; all of them unless named. --list shows them.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A case or two of each, on few prompts, to see that it runs.")] = False,
    edition: Annotated[
        str, typer.Option(help="organisms; paper: the paper's models and data by their hub names; real: pretrained models.")
    ] = "organisms",
    data: Annotated[
        Path | None, typer.Option(help="Edition real: folder of the data sets, each in a folder of its own name.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the cells; a run that was killed resumes from it. Default: runs/reproduce.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="File of the page (figures and CSVs: in `results` beside it), or folder of tables.")
    ] = None,
    n: Annotated[int | None, typer.Option(help="Prompts of every figure, in place of each experiment's own.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random draws.")] = 0,
    jobs: Annotated[int | None, typer.Option(help="Processes; default: the number of cores.")] = None,
    kept: Annotated[bool, typer.Option("--kept", help="Measure nothing: write what the stored cells allow.")] = False,
    tables: Annotated[
        bool, typer.Option("--tables", help="The tables of the documentation in place of the paper's experiments.")
    ] = False,
    planned: Annotated[
        bool,
        typer.Option("--plan", help="Edition real: print the cases, their n and the minutes that they are planned to take."),
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="List the experiments, or with --tables the tables.")] = False,
    as_json: Json = False,
) -> None:
    """Measure the paper's tables, figures and claims, and write a page of figures that compares them with the paper's."""
    from interp_transfer.paper import experiment
    from interp_transfer.paper.page import ANSWERS
    from interp_transfer.paper.page import reproduce as write_results
    from interp_transfer.paper.real_page import ANSWERS as REACHED
    from interp_transfer.paper.real_page import reproduce_real
    from interp_transfer.paper.registered import plan, pretrained
    from interp_transfer.paper.tables import write_tables

    real = edition == experiment.REAL
    if (data is not None or planned) and (tables or not real):
        raise ValueError("--data and --plan are for the edition real: add --edition real, without --tables")
    known = experiment.tables() if tables else pretrained() if real else experiment.experiments()
    chosen = experiment.choose(names or [], known)
    if planned:
        _print_plan(plan(chosen, quick=quick, n=n), as_json)
        return
    if show:
        rows = [{"name": one.name, "title": one.title, "where": one.where, "cases": len(one.cases)} for one in chosen]
        if as_json:
            print_json(rows)
            return
        for row in rows:
            about = f"{row['title']} ({row['where']})" if row["title"] else f"{row['cases']} cases"
            say(f"{row['name']:28s} {about}")
        return
    folder = out if out is not None else Path("runs") / "reproduce"
    options: dict[str, Any] = {"quick": quick, "n": n, "seed": seed, "processes": jobs, "measure": not kept}
    if tables:
        written, failures = write_tables(chosen, folder, page if page is not None else folder / "made", **options)
        document: dict[str, Any] = {"written": list(map(str, written))}
        lines = [f"Read {path}" for path in written]
    else:
        if real and not kept and (data is None or not data.is_dir()):
            named = "is missing" if data is None else f"{str(data)!r} is no folder"
            raise ValueError(f"--data {named}: give the folder that holds the data sets, each in a folder of its own name")
        if real:
            result: Any = reproduce_real(chosen, folder, data=data, page=page, **options)
        else:
            result = write_results(chosen, folder, edition=edition, page=page, **options)
        failures = result.failures
        verdicts = {name: {"agrees": v.agrees, "sentence": v.sentence} for name, v in result.verdicts.items()}
        document = {"page": str(result.page), "verdicts": verdicts}
        words = {**ANSWERS, **REACHED} if real else ANSWERS
        lines = [f"{name}: {words.get(v['agrees'], v['agrees'])}. {v['sentence']}" for name, v in verdicts.items()]
        lines.append(f"Read {result.page}")
    if as_json:
        failed = [{"experiment": name, "case": case, "why": why} for (name, case), why in failures.items()]
        print_json({**document, "failed": failed})
    else:
        for line in lines:
            say(line)
    if failures:
        raise ValueError(f"{len(failures)} of the cases failed (see above): the same command measures what is missing")


def _print_plan(cases: list[dict[str, Any]], as_json: bool) -> None:
    """Print what each case is and how long it is planned to take."""
    total = sum(case["minutes"] for case in cases) / 60
    if as_json:
        print_json({"cases": cases, "hours": total})
        return
    for case in cases:
        built = "" if case["runs"] else "   cannot be run yet"
        say(f"{case['experiment']:10s} {case['case']:62s} n {case['n']:5d} {case['minutes']:4.0f} min{built}")
    say(f"{len(cases)} cases, {total:.1f} hours on two cores")
