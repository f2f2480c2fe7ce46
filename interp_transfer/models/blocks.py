"""Parts of a forward pass: start at a block whose input is known, and compute logits after some tokens alone.

Under an intervention at block 16 the blocks before it compute what they compute without. And of a text's logits, one for each
token of a vocabulary of 150,000, those of the answer are read.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from interp_transfer.models.hooked_model import HookedModel, huggingface_model


class _Known(nn.Module):
    """Stands for a block whose output is known. Other attributes, which a model may read, are those of the block."""

    def __init__(self, block: nn.Module, output: Any) -> None:
        super().__init__()
        self.__dict__["block"], self.__dict__["output"] = block, output

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)


@contextmanager
def recording(model: HookedModel, block: int) -> Iterator[list[Any]]:
    """Yield a list to which each forward pass inside appends what the block before ``block`` returns."""
    outputs: list[Any] = []

    def record(module: nn.Module, args: tuple, output: Any) -> None:  # noqa: ARG001 - torch passes them
        outputs.append(output)

    handle = _blocks(model)[block - 1].register_forward_hook(record)
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def starting_at(model: HookedModel, block: int, output: Any) -> Iterator[None]:
    """Run no block before ``block``: each returns ``output``, which is what the last of them returned for the same tokens."""
    modules = _blocks(model)._modules
    whole = dict(modules)
    try:
        for name in [str(k) for k in range(block)]:
            modules[name] = _Known(whole[name], output)  # type: ignore[arg-type]
        yield
    finally:
        modules.update(whole)


def same_from(model: HookedModel, block: int, output: Any, logits: Tensor, run: Callable[[], Tensor]) -> bool:
    """Return whether a pass that starts at a block gives the same logits as one of all blocks.

    It need not: later blocks of some architectures read more of earlier ones than the output of the last.

    Args:
        model: any that `can_start`.
        block: where it starts.
        output: what the block before it returned.
        logits: of all blocks.
        run: makes the same logits.
    """
    with starting_at(model, block, output):
        return torch.allclose(run().float(), logits.float(), rtol=1e-3, atol=1e-3)


@contextmanager
def logits_after(model: HookedModel, tokens: Bool[Tensor, "text column"]) -> Iterator[list[Tensor]]:
    """Compute the logits after some tokens alone, as one text of as many tokens.

    Yields:
        A list, which holds what the unembedding has read, if it read these tokens alone. It stays empty for a model that
        computes all logits: one without an unembedding that can be hooked, or one that does not call it.
    """
    read: list[Tensor] = []
    hf = huggingface_model(model)
    head = None if hf is None else hf.get_output_embeddings()
    while head is not None and "_original_component" in head._modules:
        head = head._modules["_original_component"]
    if head is None:
        yield read
        return

    def select(module: nn.Module, args: tuple) -> tuple:  # noqa: ARG001 - torch passes the module
        read.append(args[0][tokens.to(args[0].device)][None])
        return (read[-1], *args[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield read
    finally:
        handle.remove()


def _blocks(model: Any) -> nn.ModuleList:
    return model.blocks


def can_start(model: HookedModel) -> bool:
    """Whether blocks of a model can be left out: it is a bridge, whose blocks are those of the transformers model."""
    return huggingface_model(model) is not None and isinstance(getattr(model, "blocks", None), nn.ModuleList)
