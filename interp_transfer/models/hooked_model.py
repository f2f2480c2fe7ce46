"""What the toolkit needs of a wrapped model, and a few facts about one."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class HookedModel(Protocol):
    """What the toolkit needs of a wrapped model; ``TransformerBridge`` and ``HookedTransformer`` both have it."""

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
        """A forward pass that keeps activations."""
        ...

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generation."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A forward pass."""
        ...


def context_length(model: HookedModel) -> int:
    """The number of tokens that the model can read at once."""
    return int(model.cfg.n_ctx)


def device_of(model: HookedModel) -> torch.device:
    """Where token ids have to be put for a forward pass: the device of the embedding."""
    inner: nn.Module = huggingface_model(model) or model  # type: ignore[assignment]
    device = next(inner.parameters()).device
    return torch.device("cpu") if device.type == "meta" else device  # accelerate takes it from there to where it is needed


def parameter_count(model: HookedModel) -> int:
    """How many numbers the model consists of."""
    inner: Any = huggingface_model(model) or model
    return sum(parameter.numel() for parameter in inner.parameters())


def huggingface_model(model: HookedModel) -> Any:
    """The transformers model inside a bridge, or None for other wrappers."""
    return getattr(model, "original_model", None)
