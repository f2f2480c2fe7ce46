"""Change the weights of a plain model as interventions ask, or write the changes as an adapter of peft.

An adapter is for classes of transformers that have no bias where an addition needs one: rank 1, matrices of zeros, and a bias.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.deployment.changes import Addition, Change, Removal
from interp_transfer.deployment.plain import homes, plain_model
from interp_transfer.deployment.writes import Write, arrivals, multiple, writes_to
from interp_transfer.models.adapters import quiet_peft, require_peft, save_adapter
from interp_transfer.models.hooked_model import HookedModel, huggingface_model
from interp_transfer.models.sites import layer_of
from interp_transfer.names import first_line

Options = list[tuple[Write, float]]
"""Weights whose bias could hold an addition, and how many times the bias arrives at the site."""


def options_for(model: HookedModel, addition: Addition, writes: list[Write]) -> Options:
    """The weights whose bias arrives at the site of an addition, the last one first."""
    candidates = writes_to(addition.site, writes)
    measured = [(write, multiple(model, write, addition.site)) for write in candidates]
    options = [(write, times) for write, times in measured if times]
    if not options:
        raise ValueError(
            f"a vector at {addition.site!r} cannot be baked into {type(huggingface_model(model)).__name__}: a norm, a gate or "
            "a router stands between every projection and the residual stream, so that no bias arrives there as it is; steer "
            "with hooks, or add the vector at another site"
        )
    return options


def check_projectable(model: HookedModel, writes: list[Write]) -> None:
    """Check that what the first block's projections and the embeddings write arrives in the residual stream as it is."""
    name = type(huggingface_model(model)).__name__
    sites = {write.site for write in writes}
    for k in range(int(model.cfg.n_layers)):
        for site in (f"blocks.{k}.hook_attn_out", f"blocks.{k}.hook_mlp_out"):
            if site not in sites:
                raise ValueError(f"the last projection before {site!r} of {name} is not known here: steer with hooks")
    for write in writes:
        if layer_of(write.site) == 0 and arrivals(model, write, write.site) is None:
            raise ValueError(
                f"ablation cannot be baked into {name}: a norm stands between {write.path!r} and the residual stream, and "
                "returns the direction after it was removed; steer with hooks"
            )


def changed_model(
    hf: Any, tensors: Mapping[str, Tensor], changes: list[Change], options: Mapping[int, Options], writes: list[Write]
) -> Any:
    """The plain model with the changes in its weights; None if no class of transformers has all biases that they need.

    Raises:
        ValueError: if an adapter cannot hold them either.
    """
    removes = len(options) < len(changes)
    embedding = any(each[0][0].weight == _token_embedding(hf, tensors) for each in options.values())
    for kind, config, names in homes(hf, untied=removes or embedding):
        chosen = {k: _first(each, names) for k, each in options.items()}
        if not set(tensors) <= names or None in chosen.values():
            continue
        plain = plain_model(kind, config, tensors, hf.dtype)
        for k, change in enumerate(changes):
            if isinstance(change, Removal):
                for write in writes:
                    _replace(plain, write.weight, lambda t, w=write, u=change.unit: _without(t, u, w.outputs_last))
                    if write.bias in names:
                        _replace(plain, write.bias, lambda t, u=change.unit: _without(t, u, True))
            else:
                write, times = chosen[k]  # type: ignore[misc]
                vector = change.vector / times
                _replace(plain, write.weight if write.is_embedding else write.bias, lambda t, v=vector: _plus(t, v))
        return plain
    if removes or embedding:
        raise ValueError(
            f"{type(hf).__name__} has no place for the bias that an addition needs, so it takes an adapter, which cannot hold "
            "the other changes: bake those alone, load that folder, and bake the addition into it"
        )
    return None


def _first(options: Options, names: set[str]) -> tuple[Write, float] | None:
    return next(((write, times) for write, times in options if write.is_embedding or write.bias in names), None)


def _token_embedding(hf: Any, tensors: Mapping[str, Tensor]) -> str:
    """Name of the weight of the token embedding."""
    own = {id(p) for p in hf.get_input_embeddings().parameters()}
    return next(name for name, tensor in tensors.items() if id(tensor) in own)


def _replace(plain: Any, name: str, change: Any) -> None:
    """Replace a tensor of a plain model by a changed one; tensors that it shares with another model stay as they are."""
    path, _, last = name.rpartition(".")
    module = plain.get_submodule(path)
    module._parameters[last] = torch.nn.Parameter(change(module._parameters[last].detach()), requires_grad=False)


def _without(tensor: Tensor, unit: Float[Tensor, " d_model"], last: bool) -> Tensor:
    """A weight or bias without what it writes along a unit direction, on its last axis or the one before."""
    wide = _wide(tensor)
    unit = unit.to(wide)
    if tensor.ndim > 1 and tensor.shape[-1] != tensor.shape[-2]:  # some experts' weights are the other way round
        last = tensor.shape[-1] == len(unit)
    if last:
        return (wide - (wide @ unit)[..., None] * unit).to(tensor.dtype)
    return (wide - unit[:, None] * (unit @ wide)[..., None, :]).to(tensor.dtype)


def _plus(tensor: Tensor, vector: Float[Tensor, " d_model"]) -> Tensor:
    """A bias, or rows of embeddings, with a vector added."""
    wide = _wide(tensor)
    added = (wide + vector.to(wide)).to(tensor.dtype)
    if not torch.isfinite(added).all():
        raise ValueError(f"strength times vector is beyond {tensor.dtype}: use a smaller strength, or dtype='float32'")
    return added


def _wide(tensor: Tensor) -> Tensor:
    """A tensor in a dtype whose rounding is far below its own."""
    return tensor.to(torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else torch.float64)


def biases_for(changes: list[Change], options: Mapping[int, Options]) -> dict[str, Tensor]:
    """The bias of each projection that an adapter gives it, by the name of the module.

    Raises:
        ValueError: for an addition after no projection of its own.
    """
    biases: dict[str, Tensor] = {}
    for k, each in options.items():
        change = changes[k]
        write = next(((write, times) for write, times in each if write.is_projection), None)
        if write is None or not isinstance(change, Addition):
            raise ValueError(
                f"a vector at {changes[k].site!r} cannot be baked: experts write before it, weighted by a router, and "  # type: ignore[union-attr]
                "neither they nor an adapter have a bias; add it at hook_attn_out, or steer with hooks"
            )
        path = write[0].path
        biases[path] = biases.get(path, torch.zeros(())) + change.vector / write[1]
    return biases


def save_biases(plain: Any, biases: Mapping[str, Tensor], base: str, folder: Path) -> None:
    """Write an adapter of peft of rank 1 whose matrices are zero and whose biases are these, by the name of the module."""
    peft = require_peft()
    if not base:
        raise ValueError("the model is an object without a folder, which an adapter needs for its base: load it by name")
    config = peft.LoraConfig(r=1, lora_alpha=1, target_modules=list(biases), lora_bias=True, task_type="CAUSAL_LM")
    try:
        with quiet_peft():
            adapted = peft.get_peft_model(plain, config)
    except ValueError as error:  # it takes every "down_proj" of some models with experts for theirs, and gives those no biases
        raise ValueError(
            f"{type(plain).__name__} has no place for the bias, and peft gives {', '.join(biases)} none ({first_line(error)}): "
            "add the vector at hook_attn_out, or steer with hooks"
        ) from error
    for path, bias in biases.items():
        layer = plain.get_submodule(path)
        for matrix in (layer.lora_A["default"].weight, layer.lora_B["default"].weight):
            matrix.data.zero_()
        own = layer.lora_B["default"].bias
        own.data = _plus(torch.zeros_like(own), bias)
    with quiet_peft():
        save_adapter(adapted, folder, base)
