"""`interp-transfer switch`: the safety switch."""

from typing import Annotated

import typer

from interp_transfer.cli.options import Edition, Json, Judge, Out, Pairs, Seed, task_from
from interp_transfer.cli.output import print_json, show


def switch(
    base: Annotated[str, typer.Option(help="Base model: known name, hub name or folder.")],
    subject: Annotated[
        str | None, typer.Argument(help="What fine-tuning brought: subject of the task that is registered as switch.")
    ] = None,
    pairs: Pairs = None,
    judge: Judge = None,
    tuned: Annotated[str | None, typer.Option(help="Its fine-tune; default: the one that is known for the subject.")] = None,
    direction: Annotated[str, typer.Option(help="to_base or to_tuned.")] = "to_base",
    edition: Edition = None,
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

    task = task_from("switch" if pairs is None else None, pairs, judge)
    named = {"subject": subject, "direction": direction, "edition": edition, "lora": lora}
    result = switch_study(task, base, tuned, **named, n=n, share=share, seed=seed, out=out)  # type: ignore[arg-type]
    if as_json:
        print_json(result.to_dict())
        return
    show(switch_table(result.to_dict()), [result.sentence()], None if out is None else out / "switch.html")
