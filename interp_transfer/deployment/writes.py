"""What writes to the residual stream: the embeddings, and in each block the last projections of attention and MLP.

transformer-lens knows which modules these are. How they arrive in the stream is measured: a constant is added to what a module
returns, and at a site the same constant has to arrive, or a multiple of it. After a norm something else does.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from interp_transfer.activations.capture import forward
from interp_transfer.deployment.plain import module_at
from interp_transfer.models.hooked_model import HookedModel, device_of, huggingface_model
from interp_transfer.models.probe import HALF_TOLERANCE, TEXTS, TOLERANCE
from interp_transfer.models.sites import hooked, layer_of
from interp_transfer.models.tokens import tokenizer_of

EMBEDDED = "blocks.0.hook_resid_pre"
"""The site at which embeddings are added."""
_SITES = ("hook_resid_pre", "hook_resid_post", "hook_mlp_out", "hook_attn_out")
_OF_EXPERTS = re.compile(r"(^|\.)down_proj(\.weight)?$")
"""Last projections of experts, which transformer-lens does not name."""
_EXACTLY = 1e-3
"""A measured multiple that is this near to 1 is 1."""


@dataclass(frozen=True)
class Write:
    """A weight whose products are added to the residual stream.

    Attributes:
        site: hook point at which they are added: an MLP's or attention's output, or the first block's input for an embedding.
        weight: name of the weight in a checkpoint.
        module: the module that it belongs to.
    """

    site: str
    weight: str
    module: nn.Module

    @property
    def bias(self) -> str:
        """Name of the bias beside the weight, if there is one."""
        path = self.weight.removesuffix(".weight")
        return f"{path}_bias" if path == self.weight else f"{path}.bias"

    @property
    def path(self) -> str:
        """Name of the module."""
        return self.weight.rpartition(".")[0]

    @property
    def is_embedding(self) -> bool:
        """Whether its rows are those of tokens or positions."""
        return self.site == EMBEDDED

    @property
    def is_projection(self) -> bool:
        """Whether it is a projection, and not an embedding or one of several experts."""
        return isinstance(self.module, nn.Linear | Conv1D)

    @property
    def outputs_last(self) -> bool:
        """Whether the weight's last axis is that of the residual stream, and not the one before."""
        return self.is_embedding or isinstance(self.module, Conv1D) or bool(getattr(self.module, "is_transposed", False))


def residual_writes(model: HookedModel, tensors: Mapping[str, Tensor]) -> list[Write]:
    """All weights that write to the residual stream: of the embeddings, then of each block's MLP and attention.

    Args:
        model: the wrapped model.
        tensors: its tensors by their names in a checkpoint.
    """
    bridge: Any = model
    names = {id(tensor): name for name, tensor in reversed(list(tensors.items()))}
    found: list[Write] = []

    def collect(site: str, module: nn.Module | None, names_of: re.Pattern[str]) -> None:
        own = [] if module is None else [names.get(id(p), "") for p in module.parameters() if p.ndim > 1]
        for name in filter(names_of.search, dict.fromkeys(own)):
            found.append(Write(site, name, module_at(huggingface_model(model), name.rpartition(".")[0])))

    for part in ("pos_embed", "embed"):
        collect(EMBEDDED, getattr(bridge, part, None), re.compile("weight$"))
    for k, block in enumerate(bridge.blocks):
        for branch, last in (("mlp", "out"), ("attn", "o")):
            module = getattr(block, branch, None)
            projection = getattr(module, last, None)
            named = re.compile("weight$") if projection is not None else _OF_EXPERTS
            collect(f"blocks.{k}.hook_{branch}_out", projection if projection is not None else module, named)
    return found


def writes_to(site: str, writes: list[Write]) -> list[Write]:
    """The weights that write last before a site of the residual stream, or to an MLP's or attention's output.

    Raises:
        ValueError: for a site of another kind.
    """
    block, part = layer_of(site), site.rpartition(".")[2]
    if block is None or site.count(".") != 2 or part not in _SITES:
        raise ValueError(
            f"{site!r} is not in the residual stream and no output of attention or MLP: weights cannot add a vector there; "
            "steer with hooks"
        )
    if part.endswith("out") or site == EMBEDDED:
        return [write for write in writes if write.site == site]
    return [write for write in writes if write.site.startswith(f"blocks.{block - (part == 'hook_resid_pre')}.hook_")]


@torch.no_grad()
def arrivals(model: HookedModel, write: Write, site: str) -> Float[Tensor, " token"] | None:
    """For each token of a text, how many times a constant that a module adds to what it returns arrives at a site.

    Returns:
        None if something else arrives, as after a norm.
    """
    tokens = torch.tensor([tokenizer_of(model)(TEXTS[0])["input_ids"]], device=device_of(model))

    def read() -> Float[Tensor, "token d_model"]:
        rows: list[Tensor] = []
        with hooked(model.hook_dict[site], lambda tensor, hook: rows.append(tensor[0].float())):  # noqa: ARG005
            forward(model, tokens)
        return rows[0]

    before = read()
    generator = torch.Generator().manual_seed(0)
    shift = torch.randn(before.shape[1], generator=generator).to(before.device)
    shift *= before.norm(dim=1).median() / shift.norm()
    with _shifted(write.module, shift):
        moved = read() - before
    times = moved @ shift / shift.square().sum()
    error = (moved - times[:, None] * shift).norm(dim=1) / moved.norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    return times if float(error.median()) <= tolerance(model) else None


def multiple(model: HookedModel, write: Write, site: str) -> float | None:
    """How many times a constant that a module adds arrives at a site; None if not the same arrives at every token."""
    times = arrivals(model, write, site)
    if times is None or float((times - times.median()).abs().median()) > tolerance(model) * float(times.median().abs()):
        return None
    measured = float(times.median()) * _scale_inside(model, write)
    return 1.0 if abs(measured - 1.0) < _EXACTLY else measured


@torch.no_grad()
def _scale_inside(model: HookedModel, write: Write) -> float:
    """How many times a module returns a row of its embedding, as Gemma's; 1.0 for other modules."""
    if not hasattr(write.module, "embed_scale"):
        return 1.0
    tokens = torch.arange(8, device=device_of(model))
    rows, returned = write.module.weight[tokens].float(), write.module(tokens).float()  # type: ignore[index]
    return float((rows * returned).sum() / rows.square().sum())


@contextmanager
def _shifted(module: nn.Module, shift: Tensor) -> Iterator[None]:
    def add(module: nn.Module, args: tuple, output: Tensor) -> Tensor:  # noqa: ARG001 - torch passes them
        return output + shift.to(output.dtype)

    handle = module.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def tolerance(model: HookedModel) -> float:
    """Share of a difference that rounding in the model's dtype explains."""
    return TOLERANCE.get(huggingface_model(model).dtype, HALF_TOLERANCE)
