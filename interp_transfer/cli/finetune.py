"""`interp-transfer finetune`: tune a model on a task or on pairs."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from interp_transfer.cli.options import Edition, Json, model_option, with_flags
from interp_transfer.cli.output import finish
from interp_transfer.finetuning.recipe import Recipe

RECIPE = [f.name for f in fields(Recipe)]
"""Fields whose defaults depend on the model and the task, so they are passed on where they are given."""


@with_flags(Recipe, where_given=RECIPE, show_default=False)
def finetune(
    options: dict[str, Any],
    model: Annotated[str, model_option("Model to tune: known name, hub name or folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must be missing or empty.")],
    task: Annotated[str | None, typer.Option(help="Tune on this task's training pairs.")] = None,
    edition: Edition = None,
    data: Annotated[Path | None, typer.Option(help="Or on this JSONL of prompt and response.")] = None,
    template: Annotated[str, typer.Option(help="Template of the JSONL's prompts: none, chat, alpaca.")] = "none",
    lora: Annotated[bool, typer.Option("--lora/--full", help="Low-rank corrections (peft), or all weights.")] = False,
    rank: Annotated[int, typer.Option(help="Rank of a LoRA.")] = 16,
    alpha: Annotated[float, typer.Option(help="A LoRA is scaled by alpha / rank.")] = 32.0,
    adapter_only: Annotated[bool, typer.Option("--adapter-only", help="Write the LoRA without its base.")] = False,
    skip_long: Annotated[bool, typer.Option("--skip-long", help="Leave longer ones out instead.")] = False,
    accumulate: Annotated[int, typer.Option(help="Number of parts of a batch that are computed in turn, to save memory.")] = 1,
    held_out: Annotated[float, typer.Option(help="Share of the prompts that the loss is measured on.")] = 0.05,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: a GPU if there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    as_json: Json = False,
) -> None:
    """Tune a model on a task or on your own pairs; the same command resumes after an interruption."""
    from interp_transfer.finetuning.tuning import Machine, tune
    from interp_transfer.models.adapters import Lora

    if adapter_only and not lora:
        raise ValueError("--adapter-only writes a LoRA: add --lora")
    examples, of_task = _training_data(task, edition, data, template, held_out=held_out, skip_long=skip_long)
    correction = Lora(rank, alpha, merge=not adapter_only) if lora else None
    card = tune(model, examples, out, of_task | options, lora=correction, machine=Machine(device, dtype, accumulate))
    lines = []
    for name in ("trained", "held_out"):
        before, after = card["loss"]["before"][name], card["loss"]["after"][name]
        if before is not None:
            lines.append(f"loss on {name.replace('_', ' ')} examples, nats per token: {before:.4f} before, {after:.4f} after")
    finish(as_json, {**card, "path": str(out)}, None, [*lines, f"load_model({str(out)!r}) loads it"], wrap=False)


def _training_data(task: str | None, edition: str | None, data: Path | None, template: str, **options: Any) -> tuple[Any, dict]:
    """The examples, and the fields of the recipe that a task brings."""
    from interp_transfer.evaluation.tasks import load_task
    from interp_transfer.finetuning.tuning import TrainingData, pairs_from_jsonl, training_of

    if (task is None) == (data is None):
        raise ValueError("give either --task NAME or --data FILE.jsonl")
    if data is not None:
        return TrainingData(pairs_from_jsonl(data), data.name, template, **options), {}
    if template != "none":
        raise ValueError(f"--template {template} is for --data: the prompts of a task are in their template")
    pairs, recipe = training_of(load_task(str(task), edition))
    return TrainingData(pairs, f"task {task}" + (f", {edition} edition" if edition else ""), **options), recipe
