"""`interp-transfer noise`: noise at a backdoor's trigger."""

from typing import Annotated, Any

import typer

from interp_transfer.cli.options import Json, ModelName, Out, PairsOptions, Seed, TaskName, named_task, numbers, with_flags
from interp_transfer.cli.output import finish, resumable
from interp_transfer.studies.options import TaskOptions


@with_flags(PairsOptions, TaskOptions)
def noise(
    options: dict[str, Any],
    model: ModelName,
    task: TaskName = None,
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

    own = {"n": n, "draws": draws, "seed": seed, "replace": replace, "doses": numbers(doses, "--doses")}
    chosen = named_task(task, options)
    with resumable(out):
        measured = noise_study(chosen, model, how=TaskOptions(**options), site=site, out=out, **own)
    lines = [f"{name}: {curves!r}" for name, curves in measured.items()]
    finish(as_json, noise_json(measured), None, lines, out and out / "noise.html")
