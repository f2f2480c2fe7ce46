"""What the formats share: a direction as numbers, the site that a tool's layer is, and the checks of both.

Tools that steer a block count blocks from 0 and add to what a block returns. That is ``blocks.N.hook_resid_post``, which is the
same tensor as ``blocks.N+1.hook_resid_pre``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import check_site
from interp_transfer.names import quoted
from interp_transfer.vectors.vector import SteeringVector, check_same

PLACES = ("hook_resid_post", "hook_resid_pre")
"""Names of the site between two blocks: as the output of the earlier one, or the input of the later one."""

_BETWEEN_BLOCKS = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|in|resid_post|out)")  # a bridge has both names of each
_LAYER = re.compile(r"(?:(?:layer|direction)[._])?(\d{1,4})")


def block_output(site: str, file: str, first: int = 0, reason: str = "the embeddings are the output of no block") -> int:
    """The block, counted from 0, whose output a site is.

    Args:
        site: hook-point name.
        file: what it is to be written to, for the error.
        first: the first block that the file can have.
        reason: why it can have none before.

    Raises:
        ValueError: for a site that is not between two blocks, or comes too early.
    """
    block = _block(site)
    if block is None:
        raise ValueError(
            f"{site!r} cannot be written to {file}, which is added to the output of a block: "
            "take a vector at a hook_resid_post or hook_resid_pre, or keep this one with vector.save(path)"
        )
    if block < first:
        raise ValueError(
            f"{site!r} cannot be written to {file}: {reason}; take a vector at {site_after(first)} "
            f"({site_after(first, PLACES[1])}) or later, or keep this one with vector.save(path)"
        )
    return block


def by_block(vectors: SteeringVector | Sequence[SteeringVector], block_of: Callable[[str], int]) -> dict[int, SteeringVector]:
    """Vectors of one model by the block that they are added to the output of, in order.

    Args:
        vectors: one or several.
        block_of: the block of a site; an error for a site that the file cannot have.

    Raises:
        ValueError: for no vectors, those of several models, or two of one block.
    """
    vectors = [vectors] if isinstance(vectors, SteeringVector) else list(vectors)
    if not vectors:
        raise ValueError("no vector given: a file has at least one direction")
    blocks: dict[int, SteeringVector] = {}
    for vector in vectors:
        check_same(vector.model, vectors[0].model, "the vectors of one file are")
        block = block_of(vector.site)
        if block in blocks:
            raise ValueError(
                f"two vectors at the output of one block, {blocks[block].site!r} and {vector.site!r}: a file has one "
                "direction for each block; add them first, or write two files"
            )
        blocks[block] = vector
    return dict(sorted(blocks.items()))


def check_place(place: str) -> str:
    """Return a name of the site between two blocks.

    Raises:
        ValueError: for another one.
    """
    if place not in PLACES:
        raise ValueError(f"place={place!r}: choose {' or '.join(map(repr, PLACES))}")
    return place


def site_after(block: int, place: str = "hook_resid_post") -> str:
    """The site of a block's output, as one of ``PLACES``."""
    return f"blocks.{block}.hook_resid_post" if place == "hook_resid_post" else f"blocks.{block + 1}.hook_resid_pre"


def as_output(site: str) -> str:
    """The name of a site between two blocks as the output of the earlier one; other sites as they are."""
    block = _block(site)
    return site if block is None or block < 0 else site_after(block)


def _block(site: str) -> int | None:
    """The block whose output a site is, -1 for the embeddings; None for a site that is not between two blocks."""
    match = _BETWEEN_BLOCKS.fullmatch(site)
    return int(match[1]) - (match[2] in ("resid_pre", "in")) if match else None


def layers_of(tensors: Mapping[str, Tensor], path: str | Path) -> dict[int, Tensor]:
    """Tensors whose names are numbers of layers ("12", "layer_12", "direction.12"), by layer.

    Raises:
        ValueError: for other names, two of one layer, or no tensors.
    """
    found: dict[int, Tensor] = {}
    for name, values in tensors.items():
        match = _LAYER.fullmatch(name)
        if not match:
            raise ValueError(
                f"{str(path)!r}: {quoted(name)} names no layer: names are such as '12', 'layer_12', 'direction.12'"
            )
        if int(match[1]) in found:
            raise ValueError(f"{str(path)!r} holds two directions of layer {int(match[1])}: leave one")
        found[int(match[1])] = values
    if not found:
        raise ValueError(f"{str(path)!r} holds no direction")
    return found


def vectors_of(
    directions: Mapping[int, Tensor], model: HookedModel | ModelIdentity, path: str | Path, site: str, note: str = ""
) -> list[SteeringVector]:
    """Steering vectors of a file of another tool, by layer.

    Args:
        directions: by layer, counted from 0.
        model: the model that they belong to.
        path: the file, for errors and the history.
        site: that of each, with ``{layer}`` for its number, or one of ``PLACES``.
        note: text that the history adds.

    Raises:
        ValueError: for a direction that is none, or does not fit the model.
    """
    made = []
    owner = model if isinstance(model, ModelIdentity) else identity(model)
    for layer, values in sorted(directions.items()):
        direction = direction_of(values, f"{str(path)!r}, layer {layer}")
        where = site_after(layer, site) if site in PLACES else site.format(layer=layer)
        check_fits(model, where, direction, path)
        made.append(SteeringVector(direction, where, owner, history=(f"read from {Path(path).name}{note}",)))
    return made


def check_fits(model: HookedModel | ModelIdentity, site: str, direction: Tensor, path: str | Path) -> None:
    """Refuse a direction that a model has no place for; a model of which the identity alone is known has any.

    Raises:
        ValueError: for a site that it lacks, or another width, with both.
    """
    if isinstance(model, ModelIdentity):
        return
    check_site(model, site)
    if len(direction) != int(model.cfg.d_model):
        raise ValueError(
            f"{str(path)!r} holds a direction of {len(direction)} numbers, this model has d_model {model.cfg.d_model}: it was "
            "made for another model"
        )


def direction_of(values: Tensor, what: str) -> Float[Tensor, " d_model"]:
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


def check_file(path: str | Path, most: int) -> Path:
    """Return the path of a file that is there and not larger than ``most`` bytes.

    Raises:
        ValueError: otherwise, with both sizes.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    if file.stat().st_size > most:
        raise ValueError(f"{str(path)!r} has {file.stat().st_size} bytes, and a file of directions has at most {most}")
    return file
