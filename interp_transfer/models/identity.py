"""Which model an artifact belongs to: a name and a fingerprint.

The fingerprint hashes the configuration, the tokenizer and sampled values of each weight in its stored dtype. So a checkpoint
that is loaded in another dtype keeps its fingerprint, and a fine-tune of it does not. Vectors and mappers carry the identity
of their model and refuse other models.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_transfer.models.hooked_model import HookedModel, huggingface_model

SAMPLES_PER_TENSOR = 64

FLOAT32_COUNTS_TO = 2**24
"""Values of each weight that enter the fingerprint, evenly spread."""

_VOLATILE = {
    "_name_or_path",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "_attn_implementation_autoset",
    "use_cache",
}
_VOLATILE |= {"output_attentions", "output_hidden_states"}


@dataclass(frozen=True)
class ModelIdentity:
    """Which model an artifact belongs to.

    Attributes:
        name: what it was loaded by: registered name, hub name, folder, or the wrapper's own name for it.
        fingerprint: hash of configuration, tokenizer and sampled weights; sixteen hexadecimal digits.
        processing: what was done to the weights before use: "none", or "unknown" for models wrapped elsewhere.
    """

    name: str
    fingerprint: str
    processing: str = "none"

    def __str__(self) -> str:
        return f"{self.name} [{self.fingerprint}]"


@dataclass(frozen=True)
class _Loaded:
    identity: ModelIdentity
    tokenizer: Any


_LOADED: "WeakKeyDictionary[Any, _Loaded]" = WeakKeyDictionary()


def identity(model: HookedModel) -> ModelIdentity:
    """The identity of a wrapped model; computed at the first call for models wrapped elsewhere.

    A bridge whose weights were processed since (``enable_compatibility_mode()``) has become another model.
    """
    known = _LOADED.get(model)
    if known is None or (known.identity.processing == "none" and _processed(model)):
        tok = known.tokenizer if known else None
        _remember(model, _fingerprint_wrapped(model, tok), tok)
    return _LOADED[model].identity


def _remember(model: HookedModel, known: ModelIdentity, tok: Any) -> None:
    _LOADED[model] = _Loaded(known, tok)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _config_of(config: Any) -> str:
    plain = {key: value for key, value in config.to_dict().items() if key not in _VOLATILE}
    return json.dumps(plain, sort_keys=True, default=str)


def _tokenizer_hash(tok: Any, specials: bool = False) -> str:
    if tok is None:
        return "no tokenizer"
    backend = getattr(tok, "backend_tokenizer", None)
    if backend is None:
        return hashlib.sha256(json.dumps(tok.get_vocab(), sort_keys=True).encode()).hexdigest()
    state = json.loads(backend.to_str())
    # Padding and truncation are how it was last called, not what it is.
    for volatile in ("padding", "truncation"):
        state.pop(volatile, None)
    if not specials:  # transformer-lens loads a tokenizer again with a BOS, and its model is no other for that
        state.pop("post_processor", None)
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _weights(module: nn.Module) -> str:
    # Names are left out: wrapping renames weights without changing them. Nor do zeros count, for it adds biases of zero.
    return _digest(*sorted({_sample(tensor) for tensor in _parameters(module)} - {""}))


def _parameters(module: nn.Module) -> Iterator[Tensor]:
    from accelerate.utils import align_module_device

    # A bridge keeps the parts of a joint projection beside the whole.
    joint = [dict(m.named_children()) for m in module.modules() if "qkv" in m._modules]
    copies = {id(part) for parts in joint for name in "qkv" if name in parts for part in parts[name].modules()}
    for part in module.modules():
        own = [] if id(part) in copies else list(part.parameters(recurse=False))
        if any(tensor.is_meta for tensor in own):  # offloaded by accelerate: borrow the values
            with align_module_device(part):
                yield from (tensor.detach() for tensor in part.parameters(recurse=False))
        else:
            yield from (tensor.detach() for tensor in own)


def sampled_values(tensor: Tensor) -> Float[Tensor, " sample"]:
    """Values of a tensor of weights at places that its size alone decides, from the first to the last, in float64.

    Exact, so that a checkpoint wrapped in a wider dtype than its own is the same.
    """
    flat = tensor.detach().reshape(-1)
    # float32 counts no further than 2^24: places in larger tensors would be rounded to ones beyond their end.
    exact = torch.float32 if flat.numel() <= FLOAT32_COUNTS_TO else torch.float64
    index = torch.linspace(0, max(flat.numel() - 1, 0), min(SAMPLES_PER_TENSOR, flat.numel()), dtype=exact).long()
    return flat[index.to(flat.device)].cpu().double()


def _sample(tensor: Tensor) -> str:
    values = sampled_values(tensor)
    if not values.any():
        return ""
    return hashlib.sha256(f"{tuple(tensor.shape)} ".encode() + values.numpy().tobytes()).hexdigest()


def _processed(model: HookedModel) -> bool:
    """Whether a bridge's weights were folded or centred after it was made."""
    return bool(getattr(model, "_weights_processed", False))


def _fingerprint_wrapped(model: HookedModel, tok: Any) -> ModelIdentity:
    hf = huggingface_model(model)
    chosen = tok if tok is not None else model.tokenizer
    name = str(getattr(model.cfg, "model_name", None) or type(model).__name__)
    if hf is not None and hasattr(hf, "config"):
        processing = "unknown" if _processed(model) else "none"
        return ModelIdentity(
            name, _digest(_config_of(hf.config), _tokenizer_hash(chosen), _weights(hf), processing), processing
        )
    cfg = {k: v for k, v in vars(model.cfg).items() if k not in {"device", "dtype", "seed", "model_name"}}
    config = json.dumps(cfg, sort_keys=True, default=str)
    assert isinstance(model, nn.Module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = _weights(model)
    return ModelIdentity(name, _digest(config, _tokenizer_hash(chosen), weights, "unknown"), "unknown")
