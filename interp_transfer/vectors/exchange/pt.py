"""`.pt` files, which torch.save writes: a tensor, a dictionary of tensors, or the folder of tensors that CAA writes.

Such a file is a pickle, which can run code when it is read. So it is read with ``weights_only=True``, which makes tensors and
plain containers alone.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.names import first_line, quoted
from interp_transfer.vectors.exchange.layers import check_fits, direction_of, vectors_of
from interp_transfer.vectors.vector import Reference, SteeringVector

_CAA = re.compile(r"vec_layer_(\d{1,4})_(.+)\.pt")


def from_pt(
    path: str | Path,
    site: str,
    model: HookedModel | ModelIdentity,
    key: str | int | None = None,
    *,
    reference: Float[Tensor, "n d_model"] | None = None,
) -> SteeringVector:
    """Read a direction from a file of ``torch.save``: a tensor, or a dictionary of tensors.

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
    direction = _select_direction(read_pt(Path(path)), key, path)
    check_fits(model, site, direction, path)
    if reference is not None and reference.shape[1] != len(direction):
        raise ValueError(f"reference activations of width {reference.shape[1]} for a direction of {len(direction)}")
    return SteeringVector(
        direction,
        site,
        model if isinstance(model, ModelIdentity) else identity(model),
        () if reference is None else Reference(reference),
        history=(f"read from {Path(path).name}" + ("" if key is None else f", key {key!r}"),),
    )


def from_caa(folder: str | Path, model: HookedModel | ModelIdentity, name: str | None = None) -> list[SteeringVector]:
    """Read the steering vectors of a folder that CAA (Panickssery et al. 2024) writes, by layer.

    A file ``vec_layer_13_NAME.pt`` holds mean(positive) - mean(negative) of the output of block 13, blocks counted from 0,
    which is ``blocks.13.hook_resid_post``. CAA adds it there, times a multiplier, at the tokens after the instruction.

    Args:
        folder: of one behaviour.
        model: the model that the vectors belong to.
        name: which vectors, where the folder has those of several models: the part of the files' names after the layer, such
            as "Llama-2-7b-chat-hf".

    Returns:
        A list, also for one vector.

    Raises:
        ValueError: for a folder without such files, with those of several models, or of another model than ``model``.
    """
    matches = {file: match for file in sorted(Path(folder).glob("vec_layer_*.pt")) if (match := _CAA.fullmatch(file.name))}
    names = sorted({match[2] for match in matches.values()})
    if not names:
        raise ValueError(f"{str(folder)!r} holds no file named vec_layer_N_NAME.pt: give the folder of one behaviour of CAA")
    if name is None and len(names) > 1 or name is not None and name not in names:
        raise ValueError(
            f"{str(folder)!r} holds vectors of {', '.join(map(quoted, names[:20]))}: choose by name=, not {name!r}"
        )
    vectors: dict[int, SteeringVector] = {}
    for file, match in matches.items():
        if match[2] != (name or names[0]):
            continue
        layer = int(match[1])
        if layer in vectors:
            raise ValueError(f"{str(folder)!r} holds two directions of layer {layer}: leave one")
        direction = _select_direction(read_pt(file), None, file)
        [vectors[layer]] = vectors_of({layer: direction}, model, file, "hook_resid_post")
    return [vectors[layer] for layer in sorted(vectors)]


def read_pt(path: Path, stand_ins: Mapping[str, type] | None = None) -> Any:
    """The content of a file of ``torch.save``: tensors and plain containers.

    Args:
        path: the file.
        stand_ins: classes of ours that take the place of others, by the dotted names of those.

    Raises:
        ValueError: for a missing or damaged file, and for one that holds anything else, with what it asks for.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    try:
        _check_zip(path)
        with warnings.catch_warnings():  # about old pickle protocols
            warnings.simplefilter("ignore", UserWarning)
            with torch.serialization.safe_globals([(kind, name) for name, kind in (stand_ins or {}).items()]):
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
            return direction_of(content, what)
        if not isinstance(key, int) or not 0 <= key < rows:
            remedy = f"choose a row, key= from 0 to {rows - 1}" if rows else "leave key out"
            raise ValueError(f"{what} holds a tensor of shape {tuple(content.shape)}, key={key!r}: {remedy}")
        return direction_of(content[key], f"{what}, row {key}")
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
    return direction_of(tensors[names[0]], f"{what}, {names[0]!r}")
