"""One vector from a file of any format that is read here, by the file's ending and content."""

from dataclasses import replace
from pathlib import Path

from interp_transfer.io import read_tensors
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.models.sites import site_name
from interp_transfer.names import quoted
from interp_transfer.vectors.exchange.gguf import from_gguf
from interp_transfer.vectors.exchange.layers import as_output
from interp_transfer.vectors.exchange.neuronpedia import from_neuronpedia
from interp_transfer.vectors.exchange.npz import from_npz
from interp_transfer.vectors.exchange.pt import from_pt
from interp_transfer.vectors.exchange.saklas import from_saklas
from interp_transfer.vectors.vector import SteeringVector

FOREIGN = (".gguf", ".npz", ".json", ".pt")
"""Endings of files of other tools. Those of saklas have our own, and tensors named "layer_N"."""


def is_own(path: str | Path) -> bool:
    """Whether a file is read as one of ``SteeringVector.save``.

    Raises:
        ValueError: for a missing or damaged file.
    """
    return Path(path).suffix not in FOREIGN and not any(name.startswith("layer_") for name in read_tensors(path)[0])


def read_vector(
    path: str | Path, model: HookedModel | ModelIdentity | None = None, site: str | int | None = None
) -> SteeringVector:
    """Read one steering vector of a file.

    Args:
        path: a file of llama.cpp or repeng (.gguf), of numpy (.npz), of Neuronpedia (.json) or of torch.save (.pt: one tensor,
            whose site must be given); any other is one of ``SteeringVector.save`` or of saklas.
        model: the model that it belongs to. Needed unless the file names it, as those of this package do.
        site: hook-point name, or the number of a block for its input. Needed where a file holds vectors of several sites.

    Raises:
        ValueError: for a file that is missing, damaged or of another kind, and for one without the site or of another model.
    """
    file, where = Path(path), None if site is None else site_name(site)
    if is_own(file):
        found = [SteeringVector.load(file)]
    elif file.suffix == ".gguf":
        found = from_gguf(file, model)
    elif model is None:
        raise ValueError(f"{str(path)!r} does not name the model of its vector: give the model")
    elif file.suffix == ".pt":
        if where is None:
            raise ValueError(f"{str(path)!r} does not name the site of its vector: give the site")
        found = [from_pt(file, where, model)]
    elif file.suffix == ".json":
        found = from_neuronpedia(file, model)
    else:
        found = (from_npz if file.suffix == ".npz" else from_saklas)(file, model)
    chosen = [vector for vector in found if where is None or vector.site in (where, as_output(where))]
    if len(chosen) != 1:
        sites = ", ".join(vector.site for vector in found[:20])
        raise ValueError(f"{str(path)!r} holds vectors at {sites}, not one at {quoted(where)}: choose a site of these")
    return replace(chosen[0], site=where or chosen[0].site)  # of the two names of a tensor, the one that was asked for
