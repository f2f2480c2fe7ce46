"""`.npz` files, in which numpy keeps arrays by name: what users of repeng write of a control vector's ``directions``.

repeng 0.4 itself writes GGUF alone; its ``ControlVector.directions`` are arrays by layer, and
``np.savez(path, **{str(layer): values for layer, values in vector.directions.items()})`` keeps them. repeng counts blocks from
0 and adds to what a block returns, which is ``blocks.N.hook_resid_post``.

The file is a zip archive, whose members may be far larger unpacked. Sizes are compared before anything is unpacked, and an
array of Python objects, which is a pickle, is refused by its dtype.
"""

import io
import math
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from interp_transfer.io import named_errors
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.names import quoted
from interp_transfer.vectors.exchange.layers import check_file, check_place, layers_of, vectors_of
from interp_transfer.vectors.vector import SteeringVector

MOST_BYTES = 1 << 28
"""Of a file, and of its members unpacked: a hundred directions of 300,000 float64 numbers."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def from_npz(path: str | Path, model: HookedModel | ModelIdentity, place: str = "hook_resid_post") -> list[SteeringVector]:
    """Read the steering vectors of an `.npz` file, one array for each layer, named "12", "layer_12" or "direction.12".

    Args:
        path: the file.
        model: the model that they belong to.
        place: the site between two blocks: ``hook_resid_post`` of block N for layer N, or ``hook_resid_pre`` of the next block,
            which is the same tensor.

    Returns:
        A list by layer, also for one direction.

    Raises:
        ValueError: for a file that is missing, damaged or too large, arrays that are no directions of layers, and a model that
            they do not fit.
    """
    file = check_file(path, MOST_BYTES)
    with named_errors(f"{str(path)!r} is damaged or no .npz file"):
        try:
            arrays = _arrays(file)
        except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
            raise ValueError(str(error)) from error
    return vectors_of(layers_of(arrays, path), model, path, check_place(place))


def _arrays(file: Path) -> dict[str, Tensor]:
    arrays: dict[str, Tensor] = {}
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if (size := sum(member.file_size for member in members)) > MOST_BYTES:
            raise ValueError(f"its arrays have {size} bytes unpacked, and directions at most {MOST_BYTES}")
        for member in members:
            if member.comment:  # numpy writes none: a damaged length lets one swallow the next member
                raise ValueError(f"its member {quoted(member.filename)} has a comment")
            name = member.filename.removesuffix(".npy")
            if name in arrays:
                raise ValueError(f"it holds {quoted(name)} twice")
            arrays[name] = _array(archive.read(member), name)
    return arrays


def _array(content: bytes, name: str) -> Tensor:
    """The numbers of one member. numpy itself would make an array of whatever size the header tells."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"{quoted(name)} has version {version} of numpy's format, not 1.0 or 2.0")
    shape, _, dtype = _HEADERS[version](stream)
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise ValueError(f"{quoted(name)} has dtype {dtype}: a direction has floating-point numbers")
    numbers = stream.read()
    if math.prod(shape) * dtype.itemsize != len(numbers):
        raise ValueError(f"{quoted(name)} has {len(numbers)} bytes for shape {shape} of {dtype}")
    return torch.from_numpy(np.frombuffer(numbers, dtype).astype(np.float64)).reshape(shape)
