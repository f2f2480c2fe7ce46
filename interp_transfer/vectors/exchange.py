"""Steering vectors from and for other tools: GGUF control vectors, and `.pt` files.

A GGUF control vector is what llama.cpp and repeng read: ``general.architecture`` is "controlvector", and a tensor
``direction.N`` is added to the residual stream that leaves block N, blocks counted from 0, at every token. That is
``blocks.N.hook_resid_post``, which is the same place as ``blocks.N+1.hook_resid_pre``. There is no ``direction.0``: llama.cpp
refuses the whole file if there is one. Sources: llama.cpp's ``common_control_vector_load_one`` puts direction N at N - 1 of a
buffer, ``llama_adapter_cvec::apply`` gives block N what lies there, and each model's graph adds it after the block's last sum;
repeng's ``ControlVector.export_gguf`` writes, and its ``ControlModel`` adds, likewise.

Such a file holds directions alone. Which model they belong to and which site was meant stand in keys of our own, which others
skip; the evidence cannot be kept, because llama.cpp refuses tensors of other names. ``SteeringVector.save`` keeps everything.

gguf is an optional dependency, imported where it is used.
"""

import json
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from typeguard import TypeCheckError, check_type

from interp_transfer.models.hooked_model import HookedModel, huggingface_model
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import check_site
from interp_transfer.vectors.vector import Reference, SteeringVector, check_same

ARCHITECTURE = "controlvector"
FORMAT = "interp_transfer.control_vector/1"
PLACES = ("hook_resid_post", "hook_resid_pre")

_BETWEEN_BLOCKS = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|in|resid_post|out)")  # a bridge has both names of each
_DIRECTION = re.compile(r"direction\.(\d+)")


def require_gguf() -> Any:
    """The module gguf.

    Raises:
        ValueError: if it is not installed, with the command that installs it.
    """
    try:
        import gguf
    except ImportError as error:
        raise ValueError("GGUF files need gguf, which is not installed: pip install 'interp-transfer[gguf]'") from error
    return gguf


def control_layer(site: str) -> int:
    """The N of ``direction.N`` for a site: the block whose output is the residual stream there.

    Raises:
        ValueError: for a site where control vectors are not added, with the reason.
    """
    match = _BETWEEN_BLOCKS.fullmatch(site)
    if not match:
        raise ValueError(
            f"{site!r} cannot be said in a GGUF control vector, which is added to the residual stream that leaves a block: "
            "take a vector at a hook_resid_post or hook_resid_pre, or keep this one with vector.save(path)"
        )
    layer = int(match[1]) - (match[2] in ("resid_pre", "in"))
    if layer < 1:
        raise ValueError(
            f"{site!r} cannot be said in a GGUF control vector: llama.cpp adds none to the embeddings or to what leaves block "
            "0; take a vector at blocks.1.hook_resid_post (blocks.2.hook_resid_pre) or later, or keep this one with "
            "vector.save(path)"
        )
    return layer


def to_gguf(vectors: SteeringVector | Sequence[SteeringVector], path: str | Path, model: HookedModel | None = None) -> Path:
    """Write steering vectors as a GGUF control vector for llama.cpp and repeng.

    Lengths are kept, so the strength 1.0 of llama.cpp's ``--control-vector`` and of repeng's ``set_control`` is ours. Both add
    it at every token (``positions="all"``). Evidence is left behind.

    Args:
        vectors: one, or several of one model, at most one for each place between blocks.
        path: file to write; written under another name first, so that a killed process leaves no half file.
        model: the model that they belong to, for the file's ``model_hint`` (its architecture, which repeng compares); the
            model's name stands there without it.

    Returns:
        The path.

    Raises:
        ValueError: for vectors of several models, two at one place, or a site that the format cannot express; without gguf.
    """
    vectors = [vectors] if isinstance(vectors, SteeringVector) else list(vectors)
    if not vectors:
        raise ValueError("no vector given: a control vector has at least one direction")
    known, placed = vectors[0].model, {}
    for vector in vectors:
        check_same(vector.model, known, "the vectors of one file are")
        layer = control_layer(vector.site)
        if layer in placed:
            raise ValueError(
                f"two vectors at one place, {placed[layer].site!r} and {vector.site!r}: a file has one direction for each; add "
                "them first, or write two files"
            )
        placed[layer] = vector
    hint = known.name
    if model is not None:
        check_same(identity(model), known, "the model given and the vectors are")
        hint = _architecture(model) or hint
    about = {
        str(layer): {"site": v.site, "method": v.method, "positions": v.positions, "history": list(v.history)}
        for layer, v in placed.items()
    }
    target = Path(path)
    half = target.with_name(f".{target.name}.part")
    writer = require_gguf().GGUFWriter(half, ARCHITECTURE)
    try:
        writer.add_string(f"{ARCHITECTURE}.model_hint", hint)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(placed))
        writer.add_string("interp_transfer.format", FORMAT)
        writer.add_string("interp_transfer.model", known.name)
        writer.add_string("interp_transfer.fingerprint", known.fingerprint)
        writer.add_string("interp_transfer.processing", known.processing)
        writer.add_string("interp_transfer.vectors", json.dumps(about))
        for layer, vector in sorted(placed.items()):
            # llama.cpp takes one axis and float32 only
            writer.add_tensor(f"direction.{layer}", vector.direction.detach().float().cpu().contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    half.replace(target)
    return target


def from_gguf(
    path: str | Path, model: HookedModel | ModelIdentity | None = None, place: str = "hook_resid_post"
) -> list[SteeringVector]:
    """Read the steering vectors of a GGUF control vector, by block.

    They are bare directions. To move one through a mapper, give it activations to be looked at and use ``mode="delta"``:
    ``dataclasses.replace(vector, evidence=Reference(rows))``.

    Args:
        path: a file of ours, of repeng or of llama.cpp's cvector-generator.
        model: the model that they belong to. A file of ours says so itself and refuses another one; without ``model`` its
            vectors are of the model that it names, and ``vector.for_model(model)`` rebinds them on purpose.
        place: for files of others, what the place between two blocks is called: ``hook_resid_post`` of the block that it
            leaves, or ``hook_resid_pre`` of the next one. Files of ours say which was meant.

    Returns:
        A list, also for one direction.

    Raises:
        ValueError: for a file that is missing, damaged or no control vector, and for a model that it does not fit; without
            gguf.
    """
    if place not in PLACES:
        raise ValueError(f"place={place!r}: choose {' or '.join(map(repr, PLACES))}")
    texts, directions = _read_gguf(Path(path))
    ours = texts.get("interp_transfer.format") == FORMAT
    given = model if isinstance(model, ModelIdentity) or model is None else identity(model)
    owner = given
    if ours:
        owner = ModelIdentity(*(texts.get(f"interp_transfer.{key}", "") for key in ("model", "fingerprint", "processing")))
        if given is not None and given.fingerprint != owner.fingerprint:
            raise ValueError(
                f"{str(path)!r} holds vectors of {owner}, not of {given}: load the model that they belong to, or rebind them "
                "on purpose: [v.for_model(model) for v in from_gguf(path)]"
            )
        owner = given or owner  # the name under which it was loaded now
    if owner is None:
        hint = texts.get(f"{ARCHITECTURE}.model_hint", "none")
        raise ValueError(
            f"{str(path)!r} does not say which model its vectors belong to (model_hint {hint!r}): give it, "
            "from_gguf(path, model)"
        )
    about = _about(path, texts) if ours else {}
    note = f"read from {Path(path).name}, model_hint {texts.get(f'{ARCHITECTURE}.model_hint', 'none')!r}"
    found = []
    for layer, direction in sorted(directions.items()):
        site = f"blocks.{layer}.hook_resid_post" if place == "hook_resid_post" else f"blocks.{layer + 1}.hook_resid_pre"
        plain = about.get(str(layer), {"site": site, "method": "control vector", "positions": "", "history": [note]})
        if isinstance(model, HookedModel):
            _check_fits(model, plain["site"], direction, path)
        found.append(
            SteeringVector(direction, plain["site"], owner, (), plain["method"], plain["positions"], tuple(plain["history"]))
        )
    return found


def from_pt(
    path: str | Path,
    site: str,
    model: HookedModel | ModelIdentity,
    key: str | int | None = None,
    *,
    reference: Float[Tensor, "n d_model"] | None = None,
) -> SteeringVector:
    """Read a direction from a file of ``torch.save``: a tensor, or a dictionary of tensors.

    Such a file is a pickle, which can run code when it is read. It is read with ``weights_only=True``, which takes tensors and
    plain containers and refuses the rest; so does this function.

    The direction comes without evidence, so it can be added, but a mapper can move it only with ``mode="raw"``. With
    ``reference`` it can be moved by ``delta`` and ``jacobian``.

    Args:
        path: the file.
        site: where the direction belongs. Its maker must say; tools count layers differently (a ``hidden_states[i]`` of
            transformers is ``blocks.i.hook_resid_pre``, the output of ``layers[i]`` is ``blocks.i.hook_resid_post``).
        model: which model it belongs to.
        key: which tensor of a dictionary (a layer, often), or which row of a tensor with two axes, counted from 0. Not needed
            where there is one direction only.
        reference: activations of the model at the site, such as ``capture(model, texts, site)[site]``.

    Raises:
        ValueError: for a missing or damaged file, one that holds more than tensors, a direction that cannot be told or does
            not fit the model.
    """
    direction = _picked(_read_pt(Path(path)), key, path)
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
    """Finite float32 numbers along one axis; axes of length one beside it are dropped."""
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
    """Texts of the metadata, and directions by block."""
    gguf = require_gguf()
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    try:
        reader = gguf.GGUFReader(path)
        texts = {
            name: bytes(entry.parts[-1]).decode()
            for name, entry in reader.fields.items()
            if entry.types == [gguf.GGUFValueType.STRING]
        }
        plain = (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)
        tensors = {t.name: torch.tensor(t.data) if t.tensor_type in plain else None for t in reader.tensors}
    except (ValueError, KeyError, IndexError, OSError, OverflowError) as error:
        raise ValueError(f"{str(path)!r} is damaged or no GGUF file: {error}") from error
    found = texts.get("general.architecture")
    if found != ARCHITECTURE:
        raise ValueError(f"{str(path)!r} is no control vector: its general.architecture is {found!r}, not {ARCHITECTURE!r}")
    directions: dict[int, Tensor] = {}
    for name, values in tensors.items():
        match = _DIRECTION.fullmatch(name)
        if not match or values is None:
            raise ValueError(f"{str(path)!r}: tensor {name!r} is no direction of float32 numbers named direction.N")
        directions[int(match[1])] = _direction(values, f"{str(path)!r}: {name}")
    if not directions:
        raise ValueError(f"{str(path)!r} holds no direction")
    return texts, directions


def _about(path: str | Path, texts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What a file of ours says about its vectors, by block."""
    try:
        about = check_type(json.loads(texts.get("interp_transfer.vectors", "")), dict[str, dict[str, str | list[str]]])
        for layer, plain in about.items():
            for entry, kind in (("site", str), ("method", str), ("positions", str), ("history", list[str])):
                check_type(plain[entry], kind)
            if control_layer(str(plain["site"])) != int(layer):
                raise ValueError(f"{plain['site']} is not what leaves block {layer}")
    except (ValueError, KeyError, TypeCheckError) as error:
        raise ValueError(f"{str(path)!r} is damaged: interp_transfer.vectors: {error}") from error
    return about


def _read_pt(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    try:
        with warnings.catch_warnings():  # about pickle protocols, whose files are read or refused below
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        fault = f"holds more than tensors (it asks for {wanted[1]})" if wanted else "is damaged, or holds more than tensors"
        raise ValueError(
            f"{str(path)!r} {fault}: reading it could run "
            "code on this machine, so it is not read. Ask its maker for a safetensors file or a bare tensor; or, if you trust "
            "the maker, load it yourself with torch.load(path, weights_only=False) where it can do no harm, and save the "
            "direction alone with torch.save(direction, path)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        first = "".join(str(error).strip().splitlines()[:1])
        raise ValueError(f"{str(path)!r} is damaged or no file of torch.save ({type(error).__name__}: {first})") from error


def _picked(held: Any, key: str | int | None, path: str | Path) -> Float[Tensor, " d_model"]:
    """The one direction that is meant."""
    what = repr(str(path))
    if isinstance(held, Tensor):
        rows = len(held) if held.ndim == 2 and len(held) > 1 else 0
        if key is None and not rows:
            return _direction(held, what)
        if not isinstance(key, int) or not 0 <= key < rows:
            remedy = f"choose a row, key= from 0 to {rows - 1}" if rows else "leave key out"
            raise ValueError(f"{what} holds a tensor of shape {tuple(held.shape)}, key={key!r}: {remedy}")
        return _direction(held[key], f"{what}, row {key}")
    tensors = {name: value for name, value in held.items() if isinstance(value, Tensor)} if isinstance(held, dict) else {}
    if not tensors:
        raise ValueError(f"{what} holds no tensor but a {type(held).__name__}: save the direction alone, torch.save(d, path)")
    names = [key] if key in tensors else [name for name in tensors if key is None or str(name) == str(key)]
    if len(names) != 1:
        asked = "several tensors" if key is None else f"no tensor {key!r}"
        raise ValueError(f"{what} holds {asked}: choose one by key=, of {', '.join(map(repr, list(tensors)[:20]))}")
    return _direction(tensors[names[0]], f"{what}, {names[0]!r}")
