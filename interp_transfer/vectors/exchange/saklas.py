"""What saklas keeps on disk: a profile, which is a direction for each layer, and the fit of a pack of two poles.

Layer N is the output of block N, blocks counted from 0: ``blocks.N.hook_resid_post``. A profile is a safetensors file of
tensors ``layer_N``. A fit holds ``layer_N.basis``, a unit vector, and ``layer_N.node_coords``, the place of both poles along
it; its direction is the basis, towards the first pole, times the layer's share in the JSON file beside it.
``saklas pack export gguf`` writes the same numbers.

saklas multiplies directions by a factor that it takes from the model's activations when it steers, so strength 1.0 there is not
strength 1.0 here. Layers and signs agree.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from interp_transfer.io import file_hash, named_errors, parse_json, read_tensors, typed
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.names import quoted
from interp_transfer.vectors.exchange.layers import check_file, check_place, layers_of, vectors_of
from interp_transfer.vectors.vector import SteeringVector

MOST_BYTES = 1 << 30
"""Of a file of tensors; the JSON file beside it has at most a hundredth."""

_BASIS = re.compile(r"(layer_\d{1,4})\.basis")


def from_saklas(path: str | Path, model: HookedModel | ModelIdentity, place: str = "hook_resid_post") -> list[SteeringVector]:
    """Read the steering vectors of a profile of saklas, or of one model's fit in a pack of two poles, by layer.

    Args:
        path: the safetensors file. Its JSON file, and a pack's ``manifold.json``, are expected beside it.
        model: the model that they belong to.
        place: ``hook_resid_post`` of block N for layer N, or ``hook_resid_pre`` of the next block, which is the same tensor.

    Returns:
        A list, also for one layer.

    Raises:
        ValueError: for a file that is missing, damaged, changed or too large, a fit of more than two poles or of a surface,
            which no direction stands for, and a model that it does not fit.
    """
    file = check_file(path, MOST_BYTES)
    about = _json(file.with_suffix(".json"))
    pack = _json(file.with_name("manifold.json"))
    tensors, _ = read_tensors(file)
    with named_errors(f"{str(path)!r} is damaged"):
        known = (about.get("tensor_sha256"), typed(pack.get("files", {}), dict[str, str]).get(file.name))
        if any(digest is not None and digest != file_hash(file) for digest in known):
            raise ValueError("its content does not fit its digest, so it was changed after it was written")
    if any(_BASIS.fullmatch(name) for name in tensors):
        with named_errors(f"{str(path)!r} is no fit of two poles along one line"):
            tensors = _poles(tensors, about)
    note = f", {quoted(pack['name'])} of saklas" if "name" in pack else ""
    return vectors_of(layers_of(tensors, path), model, path, check_place(place), note)


def _poles(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> dict[str, Tensor]:
    """The directions of a fit, towards its first pole."""
    labels = typed(about["node_labels"], list[str])
    shares = typed(about["mahalanobis_share_per_layer"], dict[str, float])
    if len(labels) != 2:
        raise ValueError(f"it has {len(labels)} nodes, and a direction is of 2: export one with saklas")
    directions: dict[str, Tensor] = {}
    for name, basis in tensors.items():
        if match := _BASIS.fullmatch(name):
            coordinates = tensors[f"{match[1]}.node_coords"]
            if len(basis) != 1 or coordinates.shape != (2, 1):
                raise ValueError(f"{match[1]} has {len(basis)} dimensions, and a direction 1: export one with saklas")
            towards = 1.0 if coordinates[0, 0] > coordinates[1, 0] else -1.0
            directions[match[1]] = basis[0] * (towards * shares[match[1].removeprefix("layer_")])
    return directions


def _json(file: Path) -> dict[str, Any]:
    """The content of a JSON file; nothing for one that is not there."""
    if not file.is_file():
        return {}
    with named_errors(f"{str(file)!r} is damaged"):
        text = check_file(file, MOST_BYTES // 100).read_text(encoding="utf-8")
        return typed(parse_json(text), dict[str, Any])
