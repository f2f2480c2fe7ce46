"""`interp-transfer features`: SAE features moved to another model."""

from typing import Annotated, Any

import typer

from interp_transfer.cli.options import Json, Out, PairsOptions, Seed, Source, Target, TaskName, named_task, with_flags
from interp_transfer.cli.output import finish, resumable
from interp_transfer.studies.options import TaskOptions


@with_flags(PairsOptions, TaskOptions)
def features(
    options: dict[str, Any],
    source: Source,
    target: Target,
    task: TaskName = None,
    source_sae: Annotated[
        str | None, typer.Option(help="Folder of the source's SAE; default: the shipped one, or train one.")
    ] = None,
    target_sae: Annotated[
        str | None, typer.Option(help="Folder of the target's SAE; default: the shipped one, or train one.")
    ] = None,
    source_site: Annotated[str | None, typer.Option(help="Where a source SAE is trained; default: the model's card.")] = None,
    target_site: Annotated[str | None, typer.Option(help="Where a target SAE is trained; default: the model's card.")] = None,
    mapper: Annotated[str, typer.Option(help="Kind of the maps there and back.")] = "affine",
    candidates: Annotated[int, typer.Option(help="Number of features that are tried causally.")] = 20,
    listed: Annotated[int, typer.Option(help="Largest number of features on the page.")] = 500,
    n: Annotated[int, typer.Option(help="Number of held-out prompts.")] = 200,
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Move the SAE features of one model to another: their meaning and effect in both."""
    from interp_transfer.reporting.table import features_table
    from interp_transfer.studies.features import features_study

    saes = {"source_sae": source_sae, "target_sae": target_sae, "source_site": source_site, "target_site": target_site}
    sizes: dict[str, Any] = {"candidates": candidates, "listed": listed, "n": n, "seed": seed}
    chosen = named_task(task, options)
    with resumable(out):
        result = features_study(chosen, source, target, how=TaskOptions(**options), mapper=mapper, out=out, **saes, **sizes)
    plain = result.to_dict()
    finish(as_json, plain, features_table(plain), result.sentences(), out and out / "features.html")
