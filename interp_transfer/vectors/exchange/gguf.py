"""GGUF control vectors, which llama.cpp and repeng read.

``general.architecture`` is "controlvector", and a tensor ``direction.N`` is
added to the output of block N, blocks counted from 0, at every token. That is ``blocks.N.hook_resid_post``, which is the same
tensor as ``blocks.N+1.hook_resid_pre``. llama.cpp refuses a file with ``direction.0``. Sources: llama.cpp's
``common_control_vector_load_one`` stores direction N at N - 1 of a buffer, ``llama_adapter_cvec::apply`` passes that entry to
block N, and each model's graph adds it after the block's last sum; repeng's ``ControlVector.export_gguf`` and ``ControlModel``
agree.

Such a file holds directions alone. The model and the site of each are stored in keys of our own, which other tools skip. The
evidence is lost, because llama.cpp refuses tensors with other names; ``SteeringVector.save`` keeps everything.

gguf is an optional dependency, imported where it is used.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_transfer.extras import require
from interp_transfer.io import DIGEST, atomic_write, named_errors, parse_json, tensors_digest, typed
from interp_transfer.models.gguf import read_gguf
from interp_transfer.models.hooked_model import HookedModel, huggingface_model
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.names import quoted
from interp_transfer.vectors.exchange.layers import block_output, by_block, check_fits, check_place, direction_of, site_after
from interp_transfer.vectors.vector import SteeringVector, check_same

ARCHITECTURE = "controlvector"
FORMAT = "interp_transfer.control_vector/1"
_OURS = "interp_transfer."
"""Begins the keys of our own."""
_DIRECTION = re.compile(r"direction\.(\d+)")


def require_gguf() -> Any:
    """Import gguf, which is an optional dependency."""
    return require("gguf", "gguf", "a GGUF file")


def control_layer(site: str) -> int:
    """The N of ``direction.N`` for a site: the block whose output the site is.

    Raises:
        ValueError: for a site where control vectors cannot be added, with the reason.
    """
    reason = "llama.cpp adds none to the embeddings or to the output of block 0"
    return block_output(site, "a GGUF control vector", 1, reason)


def to_gguf(vectors: SteeringVector | Sequence[SteeringVector], path: str | Path, model: HookedModel | None = None) -> Path:
    """Write steering vectors as a GGUF control vector for llama.cpp and repeng.

    Lengths are kept, so strength 1.0 of llama.cpp's ``--control-vector`` and of repeng's ``set_control`` is strength 1.0 here.
    Both add the vector at every token (``positions="all"``). The evidence is not written.

    Args:
        vectors: one vector, or several of one model, at most one for the output of each block.
        path: the file, written atomically.
        model: the model that they belong to, for the file's ``model_hint`` (its architecture, which repeng compares); the
            model's name is written without it.

    Returns:
        The path.

    Raises:
        ValueError: for vectors of several models, two of one block, or a site that the format cannot express; without gguf.
    """
    by_layer = by_block(vectors, control_layer)
    known = next(iter(by_layer.values())).model
    hint = known.name
    if model is not None:
        check_same(identity(model), known, "the model and the vectors are")
        hint = _architecture(model) or hint
    about = {
        str(layer): {"site": v.site, "method": v.method, "positions": v.positions, "history": list(v.history)}
        for layer, v in by_layer.items()
    }
    texts = {
        f"{ARCHITECTURE}.model_hint": hint,
        f"{_OURS}format": FORMAT,
        f"{_OURS}model": known.name,
        f"{_OURS}fingerprint": known.fingerprint,
        f"{_OURS}processing": known.processing,
        f"{_OURS}vectors": json.dumps(about),
    }
    # llama.cpp reads one axis and float32 only
    directions = {layer: by_layer[layer].direction.detach().float().cpu().contiguous() for layer in by_layer}
    with atomic_write(path) as part, closing(require_gguf().GGUFWriter(part, ARCHITECTURE)) as writer:
        for key, text in {**texts, _OURS + DIGEST: _digest(texts, directions)}.items():
            writer.add_string(key, text)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(by_layer))
        for layer, direction in directions.items():
            writer.add_tensor(f"direction.{layer}", direction.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    return Path(path)


def from_gguf(
    path: str | Path, model: HookedModel | ModelIdentity | None = None, place: str = "hook_resid_post"
) -> list[SteeringVector]:
    """Read the steering vectors of a GGUF control vector, by block.

    They have no evidence. To move one through a mapper, give it reference activations and use ``mode="delta"``:
    ``dataclasses.replace(vector, evidence=Reference(rows))``.

    Args:
        path: a file of ``to_gguf``, of repeng or of llama.cpp's cvector-generator.
        model: the model that they belong to. A file of ``to_gguf`` names its model and refuses another one; it can be read
            without ``model``, and ``vector.for_model(model)`` rebinds its vectors on purpose.
        place: for files of other tools, the site between two blocks: ``hook_resid_post`` of the earlier block or
            ``hook_resid_pre`` of the later one. Files of ``to_gguf`` store their sites.

    Returns:
        A list, also for one direction.

    Raises:
        ValueError: for a file that is missing, damaged or no control vector, and for a model that it does not fit; without
            gguf.
    """
    check_place(place)
    texts, directions = _read_gguf(Path(path))
    ours = texts.get(f"{_OURS}format") == FORMAT
    requested = model if isinstance(model, ModelIdentity) or model is None else identity(model)
    owner = requested
    if ours:
        with named_errors(f"{str(path)!r} is damaged"):
            owner = ModelIdentity(*(texts[f"{_OURS}{key}"] for key in ("model", "fingerprint", "processing")))
        if requested is not None and requested.fingerprint != owner.fingerprint:
            raise ValueError(
                f"{str(path)!r} holds vectors of {owner}, not of {requested}: load the model that they belong to, or rebind "
                "them on purpose: [v.for_model(model) for v in from_gguf(path)]"
            )
        owner = requested or owner  # with the name that the model was loaded by
    if owner is None:
        hint = texts.get(f"{ARCHITECTURE}.model_hint", "none")
        raise ValueError(
            f"{str(path)!r} does not name the model of its vectors (model_hint {quoted(hint)}): call from_gguf(path, model)"
        )
    about = _about(path, texts) if ours else {}
    if ours and texts.get(_OURS + DIGEST, digest := _digest(texts, directions)) != digest:
        raise ValueError(f"{str(path)!r} is damaged: it was changed after it was written; restore it from a copy")
    note = f"read from {Path(path).name}, model_hint {texts.get(f'{ARCHITECTURE}.model_hint', 'none')!r}"
    vectors = []
    for layer, direction in sorted(directions.items()):
        entry = about.get(
            str(layer), {"site": site_after(layer, place), "method": "control vector", "positions": "", "history": [note]}
        )
        if model is not None:
            check_fits(model, entry["site"], direction, path)
        vectors.append(
            SteeringVector(direction, entry["site"], owner, (), entry["method"], entry["positions"], tuple(entry["history"]))
        )
    return vectors


def _digest(texts: Mapping[str, str], directions: Mapping[int, Tensor]) -> str:
    """The digest of a file of ``to_gguf``, from the text entries of its metadata and its directions."""
    covered = {key: text for key, text in texts.items() if key not in ("general.architecture", _OURS + DIGEST)}
    return tensors_digest({str(layer): direction for layer, direction in directions.items()}, covered)


def _architecture(model: HookedModel) -> str:
    config = getattr(huggingface_model(model), "config", None)
    return str(getattr(config, "model_type", ""))


def _read_gguf(path: Path) -> tuple[dict[str, str], dict[int, Tensor]]:
    """String entries of the metadata, and directions by block."""
    gguf = require_gguf()
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    with named_errors(f"{str(path)!r} is damaged or no GGUF file"):
        reader = read_gguf(path)
        texts = {
            name: bytes(entry.parts[-1]).decode()
            for name, entry in reader.fields.items()
            if entry.types == [gguf.GGUFValueType.STRING]
        }
        plain = (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)
        tensors = {t.name: torch.tensor(t.data) if t.tensor_type in plain else None for t in reader.tensors}
    architecture = texts.get("general.architecture")
    if architecture != ARCHITECTURE:
        raise ValueError(
            f"{str(path)!r} is no control vector: its general.architecture is {quoted(architecture)}, not {ARCHITECTURE!r}"
        )
    directions: dict[int, Tensor] = {}
    for name, values in tensors.items():
        match = _DIRECTION.fullmatch(name)
        if not match or values is None:
            raise ValueError(f"{str(path)!r}: tensor {quoted(name)} is no direction of float32 numbers named direction.N")
        directions[int(match[1])] = direction_of(values, f"{str(path)!r}: {name}")
    if not directions:
        raise ValueError(f"{str(path)!r} holds no direction")
    return texts, directions


def _about(path: str | Path, texts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Site, method, positions and history of the vectors of a file of ``to_gguf``, by block."""
    with named_errors(f"{str(path)!r} is damaged: interp_transfer.vectors"):
        about = typed(parse_json(texts.get(f"{_OURS}vectors", "")), dict[str, dict[str, str | list[str]]])
        for layer, entry in about.items():
            for name, kind in (("site", str), ("method", str), ("positions", str), ("history", list[str])):
                typed(entry[name], kind)
            if control_layer(str(entry["site"])) != int(layer):
                raise ValueError(f"{entry['site']} is not the output of block {layer}")
    return about
