"""One vector from a file of any format that is read here, by the file's ending and content."""

from pathlib import Path

from interp_transfer.io import read_tensors
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.models.sites import site_name
from interp_transfer.names import quoted
from interp_transfer.vectors.exchange.gguf import from_gguf
from interp_transfer.vectors.exchange.layers import PLACES
from interp_transfer.vectors.exchange.neuronpedia import from_neuronpedia
from interp_transfer.vectors.exchange.npz import from_npz
from interp_transfer.vectors.exchange.pt import from_pt
from interp_transfer.vectors.exchange.saklas import from_saklas
from interp_transfer.vectors.vector import FORMAT, SteeringVector

ENDINGS = (".safetensors", ".gguf", ".npz", ".json", ".pt")


def is_own(path: str | Path) -> bool:
    """Whether a file is one of ``SteeringVector.save``, or claims to be by its ending and cannot be read."""
    return Path(path).suffix == ".safetensors" and read_tensors(path)[1].get("format") == FORMAT


def read_vector(
    path: str | Path, model: HookedModel | ModelIdentity | None = None, site: str | int | None = None
) -> SteeringVector:
    """Read one steering vector of a file.

    Args:
        path: a file of ``SteeringVector.save`` or saklas (.safetensors), of llama.cpp or repeng (.gguf), of numpy (.npz), of
            Neuronpedia (.json), or of torch.save (.pt: one tensor, whose site must be given).
        model: the model that it belongs to. Needed unless the file names it, as those of this package do.
        site: hook-point name, or the number of a block for its input. Needed where a file holds vectors of several sites.

    Raises:
        ValueError: for a file that is missing, damaged or of another kind, and for one without the site or of another model.
    """
    file, where = Path(path), None if site is None else site_name(site)
    if file.suffix not in ENDINGS:
        raise ValueError(f"{str(path)!r} is no file of a vector: its name ends in none of {', '.join(ENDINGS)}")
    if is_own(file):
        found = [SteeringVector.load(file)]
    elif file.suffix == ".gguf":
        found = from_gguf(file, model, _place(where))
    elif model is None:
        raise ValueError(f"{str(path)!r} does not name the model of its vector: give the model")
    elif file.suffix == ".pt":
        if where is None:
            raise ValueError(f"{str(path)!r} does not name the site of its vector: give the site")
        found = [from_pt(file, where, model)]
    elif file.suffix == ".json":
        found = from_neuronpedia(file, model)
    else:
        found = (from_npz if file.suffix == ".npz" else from_saklas)(file, model, _place(where))
    chosen = [vector for vector in found if where in (None, vector.site)]
    if len(chosen) != 1:
        sites = ", ".join(vector.site for vector in found[:20])
        raise ValueError(f"{str(path)!r} holds vectors at {sites}, not one at {quoted(where)}: choose a site of these")
    return chosen[0]


def _place(site: str | None) -> str:
    """The name by which a site between two blocks is asked for."""
    return PLACES[1] if site is not None and site.endswith(PLACES[1]) else PLACES[0]
