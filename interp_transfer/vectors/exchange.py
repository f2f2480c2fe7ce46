"""Read and write the steering vectors of other tools: GGUF control vectors and `.pt` files.

llama.cpp and repeng read GGUF control vectors: ``general.architecture`` is "controlvector", and a tensor ``direction.N`` is
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
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.extras import require
from interp_transfer.io import DIGEST, atomic_write, named_errors, parse_json, tensors_digest, typed
from interp_transfer.models.gguf import read_gguf
from interp_transfer.models.hooked_model import HookedModel, huggingface_model
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import check_site
from interp_transfer.names import first_line, quoted
from interp_transfer.vectors.vector import Reference, SteeringVector, check_same

ARCHITECTURE = "controlvector"
FORMAT = "interp_transfer.control_vector/1"
_OURS = "interp_transfer."
"""Begins the keys of our own."""
PLACES = ("hook_resid_post", "hook_resid_pre")

_BETWEEN_BLOCKS = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|in|resid_post|out)")  # a bridge has both names of each
_DIRECTION = re.compile(r"direction\.(\d+)")


def require_gguf() -> Any:
    """Import gguf, which is an optional dependency."""
    return require("gguf", "gguf", "a GGUF file")


def control_layer(site: str) -> int:
    """The N of ``direction.N`` for a site: the block whose output the site is.

    Raises:
        ValueError: for a site where control vectors cannot be added, with the reason.
    """
    match = _BETWEEN_BLOCKS.fullmatch(site)
    if not match:
        raise ValueError(
            f"{site!r} cannot be written to a GGUF control vector, which is added to the output of a block: "
            "take a vector at a hook_resid_post or hook_resid_pre, or keep this one with vector.save(path)"
        )
    layer = int(match[1]) - (match[2] in ("resid_pre", "in"))
    if layer < 1:
        raise ValueError(
            f"{site!r} cannot be written to a GGUF control vector: llama.cpp adds none to the embeddings or to the output of "
            "block 0; take a vector at blocks.1.hook_resid_post (blocks.2.hook_resid_pre) or later, or keep this one with "
            "vector.save(path)"
        )
    return layer


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
    vectors = [vectors] if isinstance(vectors, SteeringVector) else list(vectors)
    if not vectors:
        raise ValueError("no vector given: a control vector has at least one direction")
    known, by_layer = vectors[0].model, {}
    for vector in vectors:
        check_same(vector.model, known, "the vectors of one file are")
        layer = control_layer(vector.site)
        if layer in by_layer:
            raise ValueError(
                f"two vectors at the output of one block, {by_layer[layer].site!r} and {vector.site!r}: a file has one "
                "direction for each block; add them first, or write two files"
            )
        by_layer[layer] = vector
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
    directions = {layer: by_layer[layer].direction.detach().float().cpu().contiguous() for layer in sorted(by_layer)}
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
    if place not in PLACES:
        raise ValueError(f"place={place!r}: choose {' or '.join(map(repr, PLACES))}")
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
        site = f"blocks.{layer}.hook_resid_post" if place == "hook_resid_post" else f"blocks.{layer + 1}.hook_resid_pre"
        entry = about.get(str(layer), {"site": site, "method": "control vector", "positions": "", "history": [note]})
        if isinstance(model, HookedModel):
            _check_fits(model, entry["site"], direction, path)
        vectors.append(
            SteeringVector(direction, entry["site"], owner, (), entry["method"], entry["positions"], tuple(entry["history"]))
        )
    return vectors


def from_pt(
    path: str | Path,
    site: str,
    model: HookedModel | ModelIdentity,
    key: str | int | None = None,
    *,
    reference: Float[Tensor, "n d_model"] | None = None,
) -> SteeringVector:
    """Read a direction from a file of ``torch.save``: a tensor, or a dictionary of tensors.

    Such a file is a pickle, which can run code when it is read. So it is read with ``weights_only=True``, which accepts tensors
    and plain containers alone.

    Without evidence the direction can be added, but a mapper can move it with ``mode="raw"`` alone. With ``reference`` it can
    be moved by ``delta`` and ``jacobian``.

    Args:
        path: the file.
        site: the site of the direction. Tools count layers differently: ``hidden_states[i]`` of transformers is
            ``blocks.i.hook_resid_pre``, the output of ``layers[i]`` is ``blocks.i.hook_resid_post``.
        model: the model that it belongs to.
        key: the tensor of a dictionary (often a layer), or the row of a tensor with two axes, counted from 0. Not needed for a
            single direction.
        reference: activations of the model at the site, such as ``capture(model, texts, site)[site]``.

    Raises:
        ValueError: for a missing or damaged file, one that holds more than tensors, or a direction that is ambiguous or does
            not fit the model.
    """
    direction = _select_direction(_read_pt(Path(path)), key, path)
    if isinstance(model, HookedModel):
        _check_fits(model, site, direction, path)
    if reference is not None and reference.shape[1] != len(direction):
        raise ValueError(f"reference activations of width {reference.shape[1]} for a direction of {len(direction)}")
    return SteeringVector(
        direction,
        site,
        model if isinstance(model, ModelIdentity) else identity(model),
        () if reference is None else Reference(reference),
        history=(f"read from {Path(path).name}" + ("" if key is None else f", key {key!r}"),),
    )


def _digest(texts: Mapping[str, str], directions: Mapping[int, Tensor]) -> str:
    """The digest of a file of ``to_gguf``, from the text entries of its metadata and its directions."""
    covered = {key: text for key, text in texts.items() if key not in ("general.architecture", _OURS + DIGEST)}
    return tensors_digest({str(layer): direction for layer, direction in directions.items()}, covered)


def _architecture(model: HookedModel) -> str:
    config = getattr(huggingface_model(model), "config", None)
    return str(getattr(config, "model_type", ""))


def _check_fits(model: HookedModel, site: str, direction: Tensor, path: str | Path) -> None:
    check_site(model, site)
    if len(direction) != int(model.cfg.d_model):
        raise ValueError(
            f"{str(path)!r} holds a direction of {len(direction)} numbers, this model has d_model {model.cfg.d_model}: it was "
            "made for another model"
        )


def _direction(values: Tensor, what: str) -> Float[Tensor, " d_model"]:
    """Finite float32 numbers along one axis; other axes have length one and are dropped."""
    if not values.is_floating_point() or values.numel() == 0 or max(values.shape, default=0) != values.numel():
        raise ValueError(
            f"{what} has shape {tuple(values.shape)} and dtype {values.dtype}: a direction has floating-point numbers along "
            "one axis"
        )
    flat = values.detach().reshape(-1).to(torch.float32, copy=True)
    if not flat.isfinite().all():
        raise ValueError(f"{what} holds numbers that are not finite: extract it again")
    return flat


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
        directions[int(match[1])] = _direction(values, f"{str(path)!r}: {name}")
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


def _read_pt(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    try:
        _check_zip(path)
        with warnings.catch_warnings():  # about old pickle protocols
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        fault = f"holds more than tensors (it asks for {name[1]})" if name else "is damaged, or holds more than tensors"
        raise ValueError(
            f"{str(path)!r} {fault}: reading it could run "
            "code on this machine, so it is not read. Ask its maker for a safetensors file or a bare tensor; or, if you trust "
            "the maker, load it yourself with torch.load(path, weights_only=False) where it can do no harm, and save the "
            "direction alone with torch.save(direction, path)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"{str(path)!r} is damaged or no file of torch.save ({reason})") from error


def _check_zip(path: Path) -> None:
    """Compare the checksums in the zip archive that torch.save writes, which torch.load does not; older files have none.

    Raises:
        ValueError: for a member that was changed, or is larger than the file.
        BadZipFile: for a damaged archive.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise ValueError("its members are compressed, or larger than the file")
        if changed := archive.testzip():
            raise ValueError(f"the checksum of its member {quoted(changed)} does not fit, restore it from a copy")


def _select_direction(content: Any, key: str | int | None, path: str | Path) -> Float[Tensor, " d_model"]:
    """The direction that ``key`` names in the content of a file."""
    what = repr(str(path))
    if isinstance(content, Tensor):
        rows = len(content) if content.ndim == 2 and len(content) > 1 else 0
        if key is None and not rows:
            return _direction(content, what)
        if not isinstance(key, int) or not 0 <= key < rows:
            remedy = f"choose a row, key= from 0 to {rows - 1}" if rows else "leave key out"
            raise ValueError(f"{what} holds a tensor of shape {tuple(content.shape)}, key={key!r}: {remedy}")
        return _direction(content[key], f"{what}, row {key}")
    entries = content.items() if isinstance(content, dict) else ()
    tensors = {name: value for name, value in entries if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(
            f"{what} holds no tensor but a {type(content).__name__}: save the direction alone, torch.save(d, path)"
        )
    names = [key] if key in tensors else [name for name in tensors if key is None or str(name) == str(key)]
    if len(names) != 1:
        problem = "several tensors" if key is None else f"no tensor {key!r}"
        raise ValueError(f"{what} holds {problem}: choose one by key=, of {', '.join(map(repr, list(tensors)[:20]))}")
    return _direction(tensors[names[0]], f"{what}, {names[0]!r}")
