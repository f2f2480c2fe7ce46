"""`interp-transfer judge`: the completions of a run, judged by a model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from interp_transfer.cli.options import Json, parts
from interp_transfer.cli.output import finish, say


def judge(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    kind: Annotated[
        str, typer.Option("--with", help="perplexity, repetition, similarity, guard, rubric-similarity or rubric-coherence.")
    ],
    model: Annotated[str | None, typer.Option(help="The judge, or the endpoint's name for it; none for repetition.")] = None,
    base_url: Annotated[
        str | None,
        typer.Option(help="OpenAI-compatible endpoint; default: OPENAI_BASE_URL. The key is read from OPENAI_API_KEY."),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Put the rubric to a model on this machine.")] = False,
    budget: Annotated[int | None, typer.Option(help="Largest number of requests; the same command resumes.")] = None,
    against: Annotated[
        str | None, typer.Option(help="Condition that similarity is measured to; default: native, else unsteered.")
    ] = None,
    unsafe: Annotated[str, typer.Option(help="Labels of a classifying guard that mean unsafe, joined by commas.")] = "unsafe",
    as_json: Json = False,
) -> None:
    """Judge a run's completions by a model: fluency, repetition, similarity, safety, or marks by a rubric."""
    from interp_transfer.studies.judge import judge_run

    options: dict[str, Any] = {"base_url": base_url, "local": local, "budget": budget, "against": against}
    judged = judge_run(folder, kind, model, unsafe=parts(unsafe) or [], **options)
    for line in judged.every.damaged:
        say(f"damaged, asked again: {line}", err=True)
    lines = [*_lines(judged), f"Written to {folder / f'judged-{kind}.json'}"]
    finish(as_json, judged.to_dict(), _table(judged), lines, wrap=False)


def _table(judged: Any) -> Any:
    from rich.table import Table

    compared = f", compared with {judged.against.replace('_', ' ')}" if judged.against else ""
    table = Table(title=f"{judged.judge}{compared}", caption=judged.scale)
    table.add_column("condition", no_wrap=True)
    for name in ("mean", "95% interval", "n", "missing", "left to do"):
        table.add_column(name, justify="right")
    for name, condition in judged.conditions.items():
        mean = judged.mean(name)
        shown = ("-", "-") if mean is None else (f"{mean.value:.3f}", f"{mean.low:.3f} to {mean.high:.3f}")
        counts = (str(len(condition.scores)), str(condition.missing), str(len(condition.left)))
        table.add_row(name.replace("_", " "), *shown, *counts)
    return table


def _lines(judged: Any) -> list[str]:
    lines = []
    every = judged.every
    if every.missing:
        reasons = ", ".join(f"{count} {kind}" for kind, count in every.why_missing.items())
        lines.append(f"{every.missing} missing: {reasons}")
    if every.left:
        first = every.opinions[every.left[0]].reason
        lines += [f"{len(every.left)} left to do: the same command resumes", f"the first of them: {first}"]
    return lines
