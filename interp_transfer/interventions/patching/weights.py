"""Weight patching: run a model with some of another's weights, of its base for example.

Patching activations shows where a difference between two models passes, patching weights where it is stored. The paper
(appendix F) puts weights of the base into its fine-tune by four schemes: some of the blocks, evenly spaced; all blocks, without
the embeddings; the embeddings alone; everything.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.names import find

SCHEMES = {
    "spaced": "some of the blocks, evenly spaced",
    "blocks": "all blocks, without the embeddings",
    "embeddings": "embedding and unembedding alone",
    "everything": "every weight",
}
"""The paper's four schemes, with descriptions."""


def spaced(n_layers: int, count: int) -> list[int]:
    """Return the indices of ``count`` blocks, evenly spaced: the middle of each of ``count`` equal parts.

    Raises:
        ValueError: for a count below 1 or above the number of blocks.
    """
    if not 1 <= count <= n_layers:
        raise ValueError(f"count={count}: choose how many blocks, from 1 to {n_layers}")
    return [(2 * k + 1) * n_layers // (2 * count) for k in range(count)]


@contextmanager
def weights_from(model: HookedModel, donor: HookedModel, scheme: str = "everything", count: int | None = None) -> Iterator[int]:
    """Run ``model`` with some of ``donor``'s weights inside the block.

    The model keeps its identity, so its vectors and mappers work inside the block too.

    Args:
        model: its weights are replaced, and restored when the block ends, also by an exception.
        donor: a model of the same architecture and wrapper, such as its base or its fine-tune; it is not changed.
        scheme: one of ``SCHEMES``.
        count: how many blocks, for "spaced".

    Yields:
        The number of parameters that are replaced. Tied embeddings count once; tensors that are equal in both do not count.

    Raises:
        ValueError: for an unknown scheme, a count without "spaced" (or none with it), models that differ in more than their
            weights, or weights that are offloaded.
    """
    find(scheme, SCHEMES, "scheme")
    if (scheme == "spaced") != (count is not None):
        raise ValueError(f"scheme={scheme!r}, count={count}: 'spaced' needs a number of blocks, and it alone takes one")
    ours, theirs = (_weights_of(m, scheme, count) for m in (model, donor))
    _check_same_architecture(model, donor, ours, theirs)
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        for own, other in zip(ours.values(), theirs.values(), strict=True):
            if torch.equal(own, other.to(own)):
                continue
            kept.append((own, own.data))
            own.data = other.detach().to(device=own.device, dtype=own.dtype)  # no copy if both are the same
        yield sum(own.numel() for own, _ in kept)
    finally:
        for own, before in kept:
            own.data = before


def _weights_of(model: Any, scheme: str, count: int | None) -> dict[str, nn.Parameter]:
    """The weights of a scheme, by name, each once."""
    n_layers = int(model.cfg.n_layers)
    blocks = {"spaced": () if count is None else spaced(n_layers, count), "embeddings": ()}.get(scheme, range(n_layers))
    parts: Sequence[Any] = [model.blocks[k] for k in blocks]
    if scheme == "everything":
        parts = [model]
    elif scheme == "embeddings":
        parts = [getattr(model, name) for name in ("embed", "pos_embed", "unembed") if hasattr(model, name)]
    wanted = {id(p) for part in parts for p in part.parameters()}
    return {name: p for name, p in model.named_parameters() if id(p) in wanted}


def _check_same_architecture(
    model: HookedModel, donor: HookedModel, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
) -> None:
    if model is donor:
        raise ValueError("model and donor are the same object: give two models")
    shapes = [{name: tuple(p.shape) for name, p in side.items()} for side in (ours, theirs)]
    if type(model) is not type(donor) or shapes[0] != shapes[1]:
        raise ValueError(
            f"{identity(model)} and {identity(donor)} have weights of different names or shapes: weight patching is between "
            "models of one architecture, such as a base and its fine-tune, with the same wrapper"
        )
    if any(p.is_meta for side in (ours, theirs) for p in side.values()):
        raise ValueError("some weights are offloaded: load both models on one device, without device_map=")
