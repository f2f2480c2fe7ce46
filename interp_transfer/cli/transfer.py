"""`interp-transfer transfer`: a saved vector moved to another model."""

from pathlib import Path
from typing import Annotated

import typer

from interp_transfer.cli.options import Json, model_option
from interp_transfer.cli.output import finish


def transfer(
    vector: Annotated[Path, typer.Argument(help="File of the vector.")],
    mapper: Annotated[
        Path, typer.Option(help="Folder of a mapper; with --target, the new folder of one that is fitted for this vector.")
    ],
    target: Annotated[str | None, model_option("Model that the vector is moved to, to fit a mapper.")] = None,
    source: Annotated[str | None, model_option("Model of the vector; default: the one that is stored with it.")] = None,
    target_site: Annotated[str | None, typer.Option(help="Hook point of the target, to fit a mapper.")] = None,
    texts: Annotated[
        str | None, typer.Option(help="Texts to fit a mapper on: a JSONL or text file, or the name of a data set.")
    ] = None,
    kind: Annotated[str, typer.Option(help="Kind of a mapper that is fitted.")] = "affine",
    mode: Annotated[str, typer.Option(help="How the vector is moved: difference, delta, jacobian or raw.")] = "difference",
    dtype: Annotated[
        str, typer.Option(help="Dtype of models that are loaded: auto (the checkpoint's), float32, bfloat16 or float16.")
    ] = "auto",
    device: Annotated[str | None, typer.Option(help="Their device; default: a GPU if there is one.")] = None,
    out: Annotated[Path, typer.Option(help="File of the moved vector.")] = Path("moved.safetensors"),
    as_json: Json = False,
) -> None:
    """Move a saved vector through a saved mapper, or through one that is fitted on texts which both models read."""
    from interp_transfer.mapping.mappers import Mapper
    from interp_transfer.studies.folders import fresh_file
    from interp_transfer.studies.moved import fit_for
    from interp_transfer.vectors.vector import SteeringVector

    file, loaded = fresh_file(out), SteeringVector.load(vector)
    if target is None:
        if source or target_site or texts:
            raise ValueError("--source, --target-site and --texts are for a mapper that is fitted: name its --target too")
        through = Mapper.load(mapper)
    elif target_site is None or texts is None:
        raise ValueError("a mapper is fitted at a site and on texts: give --target-site and --texts with --target")
    else:
        models = (source or loaded.model.name, target)
        through = fit_for(loaded, models, target_site, texts, mapper, kind=kind, dtype=dtype, device=device)
    moved = through.transfer(loaded, mode)
    moved.save(file)
    facts = {"site": moved.site, "model": moved.model.name, "norm": moved.norm, "fvu": through.card.fvu}
    fit = f"The mapper leaves {through.card.fvu:.1%} of the variance of held-out activations unexplained."
    finish(as_json, {"file": str(file), **facts}, None, [repr(moved), fit, f"Written to {file}"], wrap=False)
