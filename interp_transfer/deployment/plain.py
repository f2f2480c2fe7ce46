"""The plain transformers model of a wrapped one, with some tensors replaced and, where its class can hold them, more biases.

A bridge puts wrappers into the transformers model. Here a second model is made of a configuration, without memory of its own,
and given the first one's tensors. So the first one is not changed, and only what differs takes memory.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

_WRAPPED = "_original_component"
READ_BY_LLAMA = ("mistral", "qwen2")
"""Model types that compute what Llama computes, apart from their sliding windows, and have no biases to switch on."""


def module_at(hf: nn.Module, path: str) -> nn.Module:
    """A module of a transformers model by its name, without the wrappers of a bridge on the way."""
    module = _inner(hf)
    for name in filter(None, path.split(".")):
        module = _inner(module.get_submodule(name))
    return module


def _inner(module: nn.Module) -> nn.Module:
    while _WRAPPED in module._modules:
        module = module.get_submodule(_WRAPPED)
    return module


def stored_tensors(hf: Any) -> dict[str, Tensor]:
    """The tensors that a checkpoint of a wrapped transformers model holds, by their names there.

    Raises:
        ValueError: for a model that has biases which its configuration has no place for.
    """
    names = _empty(type(hf), hf.config, hf.dtype).state_dict()
    tensors: dict[str, Tensor] = {}
    for name in names:
        path, _, last = name.rpartition(".")
        module = module_at(hf, path)
        tensors[name] = (module._parameters if last in module._parameters else module._buffers)[last]  # type: ignore[assignment]
        bias = f"{path}.bias"
        if last == "weight" and bias not in names and (own := module._parameters.get("bias")) is not None and own.any():
            raise ValueError(
                f"{bias!r} is not zero, and the configuration of {type(hf).__name__} has no such bias, as with an adapter that "
                "adds one: bake all interventions together into the adapter's base"
            )
    return tensors


def plain_model(kind: type, config: Any, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Any:
    """A transformers model of a configuration that uses these tensors themselves; biases that it has besides are zero."""
    model, like = _empty(kind, config, dtype), next(iter(tensors.values()))
    missing = {name: tensor.shape for name, tensor in model.state_dict().items() if name not in tensors}
    zeros = {name: torch.zeros(shape, dtype=dtype, device=like.device) for name, shape in missing.items()}
    model.load_state_dict({**tensors, **zeros}, assign=True)
    model.tie_weights()
    return model.eval()


def homes(hf: Any, untied: bool) -> Iterator[tuple[type, Any, set[str]]]:
    """Classes and configurations of transformers that can hold a model, with the names of their tensors.

    The model's own comes first, then the same with biases switched on, then those of Llama.

    Args:
        hf: the model.
        untied: whether its embeddings and its unembedding have to be two tensors.
    """
    own = deepcopy(hf.config)
    own.tie_word_embeddings = own.tie_word_embeddings and not untied
    own.__dict__.pop("gguf_sha256", None)  # was set when the model was loaded: the new checkpoint is not that file
    kinds = [(type(hf), own)]
    if own.model_type in READ_BY_LLAMA and getattr(own, "sliding_window", None) is None:
        from transformers import LlamaForCausalLM

        kinds.append((LlamaForCausalLM, _as_llama(own)))
    for kind, config in kinds:
        for variant in _with_biases(config):
            yield kind, variant, set(_empty(kind, variant, hf.dtype).state_dict())


def _with_biases(config: Any) -> Iterator[Any]:
    """A configuration as it is, with each kind of bias that is off switched on alone, and with all of them."""
    yield config
    off = [name for name, value in config.to_dict().items() if "bias" in name and value is False]
    for names in ([name] for name in off):
        yield _changed(config, names)
    if len(off) > 1:
        yield _changed(config, off)


def _changed(config: Any, names: list[str]) -> Any:
    changed = deepcopy(config)
    for name in names:
        setattr(changed, name, True)
    return changed


def _as_llama(config: Any) -> Any:
    from transformers import LlamaConfig

    plain, known = config.to_dict(), LlamaConfig().to_dict()
    same = {name: value for name, value in plain.items() if name in known and name not in ("model_type", "architectures")}
    same["head_dim"] = plain.get("head_dim") or config.hidden_size // config.num_attention_heads
    return LlamaConfig(**same)


def _empty(kind: Any, config: Any, dtype: torch.dtype) -> Any:
    """A model without memory but for its buffers, which no checkpoint holds."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        return kind._from_config(deepcopy(config), dtype=dtype)
