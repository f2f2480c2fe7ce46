"""Vectors of Neuronpedia, as JSON.

Neuronpedia keeps a vector's numbers, the name of its hook point as transformer-lens has it (``blocks.12.hook_resid_pre``, which
is the site here), its own name of the model ("gemma-2-2b"), a label and a strength. It adds strength times the vector, so
strength 1.0 there is strength 1.0 here. The same facts have other names in each of its documents: what its API takes for a new
vector, its answer to that, its answer for a vector that it has, and ``NPVector`` of its Python package. All are read.

Nothing here reaches the network.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from interp_transfer.io import named_errors, parse_json, typed, write_json
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.names import quoted
from interp_transfer.vectors.exchange.layers import check_file, vectors_of
from interp_transfer.vectors.vector import SteeringVector

MOST_BYTES = 1 << 26
LONGEST = 24576
"""Numbers of a vector that Neuronpedia takes at most."""
STRONGEST = 100.0
"""Strength that it takes at most, of either sign."""
HOOKS = ("hook_resid_pre", "hook_resid_post")
"""Last parts of the names of hook points at which it takes a vector."""


def from_neuronpedia(
    source: str | Path | Mapping[str, Any], model: HookedModel | ModelIdentity, site: str | None = None
) -> list[SteeringVector]:
    """Read the vectors of a JSON document of Neuronpedia.

    Args:
        source: a file, or the document: one vector, the API's answer about one (``{"vector": {...}}``) or several
            (``{"vectors": [...]}``).
        model: the model that they belong to. Neuronpedia's own name of it is only noted.
        site: the site of each, where the document does not name it.

    Returns:
        A list, also for one vector.

    Raises:
        ValueError: for a document that is missing, damaged, too large or names no hook point, another site than ``site``, and a
            model that a vector does not fit.
    """
    name = "the document" if isinstance(source, Mapping) else str(source)
    with named_errors(f"{name!r} is no vector of Neuronpedia"):
        text = None if isinstance(source, Mapping) else check_file(source, MOST_BYTES).read_text(encoding="utf-8")
        document = typed(source if text is None else parse_json(text), Mapping[str, Any])
        inner = document.get("vector")
        several = document["vectors"] if "vectors" in document else [inner if isinstance(inner, Mapping) else document]
        entries = [_entry(one) for one in typed(several, list[Mapping[str, Any]])]
    vectors = []
    for values, hook, note in entries:
        if hook is None and site is None:
            raise ValueError(f"{name!r} names no hook point: give site=")
        if site is not None and hook not in (None, site):
            raise ValueError(f"{name!r} holds a vector at {quoted(hook)}, not at {site!r}")
        vectors += vectors_of({0: torch.tensor(values, dtype=torch.float64)}, model, name, str(site or hook), note)
    return vectors


def to_neuronpedia(vector: SteeringVector, path: str | Path, model_id: str, label: str, strength: float | int = 1.0) -> Path:
    """Write the JSON document that Neuronpedia's API takes for a new vector (a POST to ``/api/vector/new``).

    Args:
        vector: at the input or the output of a block.
        path: the file, written atomically.
        model_id: Neuronpedia's name of the model, such as "gemma-2-2b".
        label: what the vector is called there.
        strength: the strength that it is tried with there at first.

    Returns:
        The path.

    Raises:
        ValueError: for a site, a length or a strength that Neuronpedia does not take, or no label.
    """
    block, _, hook = vector.site.removeprefix("blocks.").partition(".")
    if not block.isdecimal() or hook not in HOOKS:
        raise ValueError(
            f"{vector.site!r} cannot be written for Neuronpedia, which takes vectors at {' and '.join(HOOKS)} of a block: keep "
            "this one with vector.save(path)"
        )
    if len(vector.direction) > LONGEST:
        raise ValueError(f"a vector of {len(vector.direction)} numbers: Neuronpedia takes at most {LONGEST}")
    if not abs(strength) <= STRONGEST:
        raise ValueError(f"strength={strength}: Neuronpedia takes from -{STRONGEST:g} to {STRONGEST:g}")
    if not model_id.strip() or not label.strip():
        raise ValueError(f"model_id={model_id!r}, label={label!r}: Neuronpedia needs both")
    document = {
        "modelId": model_id,
        "layerNumber": int(block),
        "hookType": hook,
        "vector": vector.direction.detach().float().cpu().tolist(),
        "vectorDefaultSteerStrength": float(strength),
        "vectorLabel": label,
    }
    write_json(path, document)
    return Path(path)


def _entry(one: Mapping[str, Any]) -> tuple[list[float], str | None, str]:
    """Numbers, hook point and a note of one vector, by whichever names its document has for them."""

    def first(*names: str) -> Any:
        return next((one[name] for name in names if one.get(name) not in (None, "")), None)

    hook, layer = first("hookName", "hook_name"), one.get("layerNumber")
    if hook is None and layer is not None:
        kind = typed(one["hookType"], str).replace("-", "_")
        hook = f"blocks.{typed(layer, int)}.{kind if kind.startswith('hook_') else f'hook_{kind}'}"
    facts = {
        "label": first("vectorLabel", "label"),
        "model": first("modelId", "model_id"),
        "strength": first("vectorDefaultSteerStrength", "defaultSteerStrength", "default_steer_strength"),
    }
    note = "".join(f", {name} {quoted(value)}" for name, value in facts.items() if value is not None)
    return typed(first("vector", "values"), list[float]), typed(hook, str | None), f" of Neuronpedia{note}"
