"""What the toolkit needs of a wrapped model, and facts about one that both wrappers of transformer-lens store differently."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from interp_transfer.names import misplaced


class _CheapCheck(type(Protocol)):
    """Instance checks that look at the class before the object.

    A check of a protocol reads every member, and ``TransformerBridge`` takes milliseconds to make its ``hook_dict``.
    """

    def __instancecheck__(cls, instance: Any) -> bool:
        kind, attributes = type(instance), ("cfg", "tokenizer")
        if not all(hasattr(kind, name) for name in ("hooks", "run_with_cache", "generate", "__call__")):
            return False
        return all(hasattr(instance, name) for name in attributes) and (
            hasattr(kind, "hook_dict") or hasattr(instance, "hook_dict")
        )


@runtime_checkable
class HookedModel(Protocol, metaclass=_CheapCheck):
    """The interface of a wrapped model; ``TransformerBridge`` and ``HookedTransformer`` both have it."""

    cfg: Any
    tokenizer: Any

    @property
    def hook_dict(self) -> dict[str, Any]:
        """Hook points by name."""
        ...

    def hooks(self, fwd_hooks: list = ..., bwd_hooks: list = ...) -> Any:
        """A context manager that adds hooks."""
        ...

    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any:
        """Run a forward pass and keep activations."""
        ...

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate tokens."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a forward pass."""
        ...


def check_model(model: Any) -> None:
    """Check that an argument is a wrapped model.

    Raises:
        ValueError: for a name or anything else.
    """
    if not isinstance(model, HookedModel):
        load = f"it.load_model({model!r})" if isinstance(model, str) else "it.load_model(name)"
        raise misplaced(model, "a model", f"load it with {load}; models come first, then tasks or texts")


def huggingface_model(model: HookedModel) -> Any:
    """The transformers model inside a bridge, or None for other wrappers."""
    return getattr(model, "original_model", None)


def is_quantized(hf: Any) -> bool:
    """Whether the weights of a transformers model are stored as integers, by bitsandbytes or another quantizer."""
    return bool(getattr(hf, "is_quantized", False))


def require_gradients(model: HookedModel, purpose: str) -> None:
    """Check that gradients can be taken through a model.

    Args:
        model: the wrapped model.
        purpose: what needs them, for the error.

    Raises:
        ValueError: for a quantized model, whose kernels are made for inference.
    """
    if is_quantized(huggingface_model(model)):
        raise ValueError(f"{purpose} needs gradients, and this model is quantized: load it without quantization_config=")


def context_length(model: HookedModel) -> int:
    """The maximum number of tokens of one sequence.

    With LongRoPE it is the length from which on a model uses other rotary frequencies. transformers chooses them by the longest
    text of a batch, so that a text would be read otherwise beside a longer one, and in the middle of a generation.
    """
    config = getattr(huggingface_model(model), "config", None)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    switch = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    longrope = "longrope" in (rope.get("rope_type"), rope.get("type"))
    return min(int(model.cfg.n_ctx), int(switch)) if longrope and switch else int(model.cfg.n_ctx)


def parameter_count(model: HookedModel) -> int:
    """The number of parameters."""
    module: Any = huggingface_model(model) or model
    return sum(parameter.numel() for parameter in module.parameters())


def device_of(model: HookedModel) -> torch.device:
    """The device on which a forward pass expects token ids: that of the embedding."""
    module: nn.Module = huggingface_model(model) or model  # type: ignore[assignment]
    device = next(module.parameters()).device
    return torch.device("cpu") if device.type == "meta" else device  # accelerate moves the ids from there
