"""Features of a model: sparse autoencoders through sae-lens, probes by scikit-learn, ranking, and feature cards."""

import importlib
from typing import TYPE_CHECKING, Any

_WHERE = {"Sae": "sae", "load_sae": "sae", "train_sae": "train"}

__all__ = ["Sae", "load_sae", "train_sae"]

if TYPE_CHECKING:
    from interp_transfer.features.sae import Sae, load_sae
    from interp_transfer.features.train import train_sae


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
