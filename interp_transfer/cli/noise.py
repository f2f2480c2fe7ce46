"""`interp-transfer noise`: noise at a backdoor's trigger."""

from typing import Annotated

import typer

from interp_transfer.cli.options import Edition, Json, Judge, ModelName, Out, Pairs, Seed, TaskName, numbers, task_from
from interp_transfer.cli.output import print_json, show


def noise(
    model: ModelName,
    task: TaskName = None,
    pairs: Pairs = None,
    judge: Judge = None,
    edition: Edition = None,
    site: Annotated[str | None, typer.Option(help="Hook point of the noise; default: the model's card.")] = None,
    doses: Annotated[
        str | None,
        typer.Option(help="Standard deviations, joined by commas; default: multiples of the site's typical coordinate."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the activation instead of adding to it.")] = False,
    n: Annotated[int, typer.Option(help="Number of prompts with the trigger, and with its harmless twin.")] = 50,
    draws: Annotated[int, typer.Option(help="Draws of the noise for each prompt.")] = 10,
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Add noise at a backdoor's trigger and at its harmless twin: what removes the backdoor, and what induces it."""
    from interp_transfer.studies.noise import noise_json, noise_study

    sizes = {"n": n, "draws": draws, "seed": seed, "replace": replace}
    chosen = task_from(task, pairs, judge)
    measured = noise_study(chosen, model, edition=edition, site=site, doses=numbers(doses, "--doses"), out=out, **sizes)
    if as_json:
        print_json(noise_json(measured))
        return
    lines = [f"{name}: {curves!r}" for name, curves in measured.items()]
    show(None, lines, None if out is None else out / "noise.html")
