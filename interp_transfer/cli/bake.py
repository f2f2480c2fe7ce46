"""`interp-transfer bake`: a model with saved vectors in its weights, as a Hugging Face folder."""

from pathlib import Path
from typing import Annotated

import typer

from interp_transfer.cli.options import Json, model_option
from interp_transfer.cli.output import finish


def bake(
    vectors: Annotated[list[Path], typer.Option("--vector", help="File of a vector; may be repeated.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the model; must be missing or empty.", show_default=False)],
    model: Annotated[str | None, model_option("Model; default: the one that is stored with the first vector.")] = None,
    strength: Annotated[
        float | None, typer.Option(help="Strength of every vector; default: the one that is stored with it, or 1.")
    ] = None,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Remove the vectors' directions everywhere, instead of adding the vectors.")
    ] = False,
    dtype: Annotated[
        str, typer.Option(help="Dtype of the weights: auto (the checkpoint's), float32, bfloat16 or float16.")
    ] = "auto",
    device: Annotated[str | None, typer.Option(help="Device of the model; default: a GPU if there is one.")] = None,
    as_json: Json = False,
) -> None:
    """Write a model with vectors added at every token, or removed, in its weights: other programs load it as any model."""
    from interp_transfer.deployment.bake import bake as write
    from interp_transfer.studies.answers import model_and_vectors, stored_strength
    from interp_transfer.studies.folders import fresh_folder

    if ablate and strength is not None:
        raise ValueError("--ablate removes a direction as a whole: leave --strength out")
    fresh_folder(out)
    hooked, loaded = model_and_vectors(vectors, model, dtype=dtype, device=device)
    chosen = [(loaded[str(file)], stored_strength(file) if strength is None else strength) for file in vectors]
    steps = [vector.ablate(everywhere=True) if ablate else vector.add(times) for vector, times in chosen]
    result = write(hooked, steps, out)
    kind = "a whole checkpoint" if result.form == "weights" else "an adapter of peft, which needs its base"
    facts = {"form": result.form, "architecture": result.architecture, "dtype": result.dtype}
    figures = {"difference": result.difference, "bound": result.bound}
    lines = [
        f"{result.architecture} in {result.dtype}, {kind}.",
        f"Its logits differ from those of the steered model by {result.difference:.1g} of their size; rounding explains "
        f"{result.bound:g}.",
        f"Written to {result.folder}",
    ]
    finish(as_json, {"folder": str(result.folder), **facts, **figures}, None, lines, wrap=False)
