"""`interp-transfer switch`: the safety switch."""

from typing import Annotated, Any

import typer

from interp_transfer.cli.options import Json, Out, PairsOptions, Seed, model_option, named_task, with_flags
from interp_transfer.cli.output import finish, resumable
from interp_transfer.studies.options import TaskOptions


@with_flags(PairsOptions, TaskOptions)
def switch(
    options: dict[str, Any],
    base: Annotated[str, model_option("Base model: known name, hub name or folder.")],
    subject: Annotated[
        str | None, typer.Argument(help="What fine-tuning brought: subject of the task that is registered as switch.")
    ] = None,
    tuned: Annotated[str | None, model_option("Its fine-tune; default: the one that is known for the subject.")] = None,
    direction: Annotated[str, typer.Option(help="to_base or to_tuned.")] = "to_base",
    lora: Annotated[int | None, typer.Option(help="Rank of a LoRA that is trained for comparison; default: none.")] = None,
    n: Annotated[int, typer.Option(help="Number of held-out prompts, and of prompts of each skill.")] = 200,
    share: Annotated[float, typer.Option(help="Size of the low-rank map as a share of the model's parameters.")] = 0.005,
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Make a fine-tuned model behave as its base, or back, at one layer, and compare all other ways."""
    from interp_transfer.reporting.table import switch_table
    from interp_transfer.studies.switch import switch_study

    task = named_task("switch" if options["pairs"] is None else None, options)
    own: dict[str, Any] = {"subject": subject, "direction": direction, "lora": lora, "n": n, "share": share, "seed": seed}
    with resumable(out):
        result = switch_study(task, base, tuned, how=TaskOptions(**options), out=out, **own)
    plain = result.to_dict()
    finish(as_json, plain, switch_table(plain), [result.sentence()], out and out / "switch.html")
