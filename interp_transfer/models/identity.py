"""The identity of a model: a name and a fingerprint.

The fingerprint hashes the configuration where it differs from its class's defaults, the tokenizer, and sampled values of each
weight in its stored dtype. So a checkpoint that is loaded in another dtype, or by another version of transformers, keeps its
fingerprint, and a fine-tune of it does not. Vectors and mappers carry the identity of their model and refuse other models.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_transfer.models.hooked_model import HookedModel, check_model, huggingface_model

SAMPLES_PER_TENSOR = 64
"""Values of each weight that enter the fingerprint, evenly spaced."""

WATCHED = 16
"""Weights whose changes are noticed when a model's identity is read."""

_FLOAT32_INTEGERS = 2**24
"""float32 represents all integers up to this one."""

_LOADING_OPTIONS = frozenset(
    {
        "_name_or_path",
        "transformers_version",
        "dtype",
        "torch_dtype",
        "_attn_implementation_autoset",
        "use_cache",
        "output_attentions",
        "output_hidden_states",
    }
)
"""Entries of a configuration that say how a checkpoint was loaded and is run; they do not enter the fingerprint."""

_SAID_TWICE = frozenset(
    {"rope_theta", "rope_scaling", "partial_rotary_factor", "per_layer_config", "global_head_dim", "num_global_key_value_heads"}
)
"""Entries that only some versions of transformers write, though ``rope_parameters`` or the shapes of weights say the same."""

_ADDED_AT_LOADING = ("gguf_sha256", "quantization_config")
"""Entries that no class of configurations knows."""


@dataclass(frozen=True)
class ModelIdentity:
    """The model that an artifact belongs to.

    Attributes:
        name: the name it was loaded by (registered name, hub name, folder), or the wrapper's own name for it.
        fingerprint: hash of configuration, tokenizer and sampled weights; sixteen hexadecimal digits.
        processing: how the weights were processed before use: "none", or "unknown" for models wrapped elsewhere.
        wrapper: what the check of the wrapper at load has shown, see ``models.probe``: "exact", "N sites differ" or
            "unchecked". Models that differ in it are not different.
    """

    name: str
    fingerprint: str
    processing: str = "none"
    wrapper: str = field(default="unchecked", compare=False)

    def __str__(self) -> str:
        return f"{self.name} [{self.fingerprint}]"


@dataclass(frozen=True)
class Space:
    """The activations of a model at a site, as one side of a mapper.

    Attributes:
        model: the model.
        site: hook-point name, or several that ``sites.join_sites`` joined.
        d: number of dimensions.
    """

    model: ModelIdentity
    site: str
    d: int


@dataclass(frozen=True)
class WrapperCheck:
    """What the check of a wrapper at load has shown, see ``models.probe``.

    Attributes:
        differing: sites at which a hook that does nothing changes the model, with the change as a share of what a block adds.
        left: share of a direction that directional ablation at every block's input, attention and MLP leaves; above 0 where
            blocks write more than these.
    """

    differing: Mapping[str, float] = field(default_factory=dict)
    left: float = 0.0

    def __str__(self) -> str:
        return f"{len(self.differing)} sites differ" if self.differing else "exact"


@dataclass(frozen=True)
class _Registered:
    """What ``load_model`` knows about a model and the wrapper does not."""

    identity: ModelIdentity
    tokenizer: Any
    checked: "WrapperCheck"
    weights: list[Tensor]
    values: list[float]


_REGISTRY: "WeakKeyDictionary[Any, _Registered]" = WeakKeyDictionary()


def register(model: HookedModel, identity: ModelIdentity, tokenizer: Any, checked: WrapperCheck | None = None) -> None:
    """Keep the identity and the tokenizer of a wrapped model for as long as it exists.

    Args:
        model: the wrapped model.
        identity: its identity.
        tokenizer: its tokenizer.
        checked: the check of its wrapper, if there was one.
    """
    if checked is not None:
        identity = replace(identity, wrapper=str(checked))
    weights = _some_weights(model)
    _REGISTRY[model] = _Registered(identity, tokenizer, checked or WrapperCheck(), weights, _middle_values(weights))


def register_again(model: HookedModel, tokenizer: Any = None) -> None:
    """Compute the identity of a model anew; its name, and the check of its wrapper, stay those that it was registered with.

    Args:
        model: a wrapped model, registered or not.
        tokenizer: replaces the one that it was registered with if it is not None.
    """
    check_model(model)
    known = _REGISTRY.get(model)
    if known is None:
        register(model, wrapped_identity(model, tokenizer), tokenizer)
        return
    tokenizer = known.tokenizer if tokenizer is None else tokenizer
    new, weights = wrapped_identity(model, tokenizer), _some_weights(model)
    new = replace(new, name=known.identity.name, wrapper=known.identity.wrapper)
    _REGISTRY[model] = replace(known, identity=new, tokenizer=tokenizer, weights=weights, values=_middle_values(weights))


def wrapper_check(model: HookedModel) -> WrapperCheck:
    """What the check of a model's wrapper has shown; nothing for a model that was not checked."""
    return _REGISTRY[model].checked if model in _REGISTRY else WrapperCheck()


def registered_tokenizer(model: HookedModel) -> Any:
    """The tokenizer that a model was registered with, or None."""
    return _REGISTRY[model].tokenizer if model in _REGISTRY else None


def is_unprocessed(model: HookedModel) -> bool:
    """Whether a model was registered with its weights as stored, and they were not processed since."""
    return model in _REGISTRY and _REGISTRY[model].identity.processing == "none" and not _processed(model)


def identity(model: HookedModel) -> ModelIdentity:
    """The identity of a wrapped model; computed at the first call for models wrapped elsewhere.

    A model whose weights were changed since it was loaded, such as by training in place or by
    ``enable_compatibility_mode()``, is another model. A value of each of ``WATCHED`` weights is compared.
    """
    known = _REGISTRY.get(model)
    if known is None:
        register(model, wrapped_identity(model, None), None)
    elif known.values != _middle_values(known.weights) or (known.identity.processing == "none" and _processed(model)):
        new = wrapped_identity(model, known.tokenizer)
        values = _middle_values(known.weights)
        _REGISTRY[model] = replace(known, identity=replace(new, name=known.identity.name), values=values)
    return _REGISTRY[model].identity


def checkpoint_identity(name: str, hf: Any, tokenizer: Any) -> ModelIdentity:
    """The identity of a transformers model in its stored dtype."""
    return ModelIdentity(name, _digest(_config_json(hf.config), tokenizer_hash(tokenizer), _weights_digest(hf), "none"))


def wrapped_identity(model: HookedModel, tokenizer: Any) -> ModelIdentity:
    """The identity of a model that was wrapped elsewhere; ``tokenizer`` replaces the wrapper's own if it is not None."""
    hf = huggingface_model(model)
    tokens = tokenizer_hash(tokenizer if tokenizer is not None else model.tokenizer)
    name = str(getattr(model.cfg, "model_name", None) or type(model).__name__)
    if hf is not None and hasattr(hf, "config"):
        processing = "unknown" if _processed(model) else "none"
        return ModelIdentity(name, _digest(_config_json(hf.config), tokens, _weights_digest(hf), processing), processing)
    cfg = {key: value for key, value in vars(model.cfg).items() if key not in {"device", "dtype", "seed", "model_name"}}
    assert isinstance(model, nn.Module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = _weights_digest(model)
    return ModelIdentity(name, _digest(json.dumps(cfg, sort_keys=True, default=str), tokens, weights, "unknown"), "unknown")


def tokenizer_hash(tokenizer: Any, specials: bool = False) -> str:
    """A hash of a tokenizer.

    Args:
        tokenizer: a tokenizer of transformers, or None.
        specials: also hash which special tokens it adds. transformer-lens reloads a tokenizer with a BOS, which does not make
            its model another one, so a model's fingerprint leaves them out.
    """
    if tokenizer is None:
        return "no tokenizer"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return hashlib.sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()
    state = json.loads(backend.to_str())
    for last_call in ("padding", "truncation"):
        state.pop(last_call, None)
    if not specials:
        state.pop("post_processor", None)
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def weights_fingerprint(module: nn.Module) -> str:
    """A hash of sampled weights, which differs between two initialisations."""
    return _digest(_weights_digest(module))


def sampled_values(tensor: Tensor) -> Float[Tensor, " sample"]:
    """Evenly spaced values of a tensor from the first to the last, in float64.

    The indices depend on the tensor's size alone and the values are exact, so a checkpoint has the same ones in a wider dtype.
    """
    flat = tensor.detach().reshape(-1)
    # In larger tensors, float32 indices would be rounded to ones past the end.
    exact = torch.float32 if flat.numel() <= _FLOAT32_INTEGERS else torch.float64
    index = torch.linspace(0, max(flat.numel() - 1, 0), min(SAMPLES_PER_TENSOR, flat.numel()), dtype=exact).long()
    return flat[index.to(flat.device)].cpu().double()


def _digest(*fields: str) -> str:
    return hashlib.sha256("\n".join(fields).encode()).hexdigest()[:16]


@contextmanager
def only_errors() -> Iterator[None]:
    """Silence transformers below errors inside the block."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _config_json(config: Any) -> str:
    """What a configuration says of its architecture, alike in all versions of transformers.

    Versions differ in the defaults that they write down, and keep entries that their class does not know.
    """
    plain = config.to_dict()
    try:
        with only_errors():  # it warns of defaults that contradict each other, which are not this model's
            defaults = type(config)().to_dict()
    except Exception:  # noqa: BLE001 - a class of a checkpoint's own code may need arguments, and raises what it likes
        defaults = dict.fromkeys(plain)
    facts = {
        key: value
        for key, value in plain.items()
        if key in defaults and value != defaults[key] and key not in _LOADING_OPTIONS | _SAID_TWICE
    }
    rope = plain.get("rope_parameters") or {}
    by_kind = {kind: own for kind, own in rope.items() if isinstance(own, dict)}
    facts |= {"model_type": plain.get("model_type"), "rope_parameters": by_kind or rope}
    facts |= {key: plain[key] for key in _ADDED_AT_LOADING if plain.get(key) is not None}
    return json.dumps(facts, sort_keys=True, default=str)


def _weights_digest(module: nn.Module) -> str:
    # Names are left out, because wrapping renames weights, and so are zeros, because wrapping adds biases of zero.
    return _digest(*sorted({_tensor_digest(tensor) for tensor in _parameters(module)} - {""}))


def _tensor_digest(tensor: Tensor) -> str:
    values = sampled_values(tensor)
    if not values.any():
        return ""
    return hashlib.sha256(f"{tuple(tensor.shape)} ".encode() + values.numpy().tobytes()).hexdigest()


def _parameters(module: nn.Module) -> Iterator[Tensor]:
    """All parameters; those that accelerate offloaded are loaded one module at a time."""
    from accelerate.utils import align_module_device

    # A bridge holds a joint projection (qkv) and copies of its three parts, which are left out.
    joint = [dict(child.named_children()) for child in module.modules() if "qkv" in child._modules]
    copies = {id(part) for parts in joint for name in "qkv" if name in parts for part in parts[name].modules()}
    for child in module.modules():
        own = [] if id(child) in copies else list(child.parameters(recurse=False))
        if any(tensor.is_meta for tensor in own):
            with align_module_device(child):
                yield from (tensor.detach() for tensor in child.parameters(recurse=False))
        else:
            yield from (tensor.detach() for tensor in own)


def _some_weights(model: HookedModel) -> list[Tensor]:
    """Weights in memory from all parts of a model, at most ``WATCHED``."""
    module: Any = huggingface_model(model) or model
    weights = [weight for weight in module.parameters() if not weight.is_meta and weight.numel()]
    return weights[:: max(1, len(weights) // WATCHED)][:WATCHED]


def _middle_values(weights: list[Tensor]) -> list[float]:
    return [float(weight.detach().reshape(-1)[weight.numel() // 2]) for weight in weights]


def _processed(model: HookedModel) -> bool:
    """Whether the weights of a bridge were folded or centred after it was made."""
    return bool(getattr(model, "_weights_processed", False))
