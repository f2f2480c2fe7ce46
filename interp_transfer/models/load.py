"""Load models: the one place that does.

Registered names, hub names, folders, GGUF files and adapters take the same path: transformers loads (``checkpoints``) and
transformer-lens wraps. Weights are never processed, because folding norms would move the residual stream, and with it every
vector and mapper. A model that the user wrapped, bridge or ``HookedTransformer``, is used unchanged.
"""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp_transfer.io import named_errors
from interp_transfer.models.adapters import merged
from interp_transfer.models.chat_templates import ChatFunction, use_chat_template
from interp_transfer.models.checkpoints import LoadOptions, cast, load_unwrapped
from interp_transfer.models.hooked_model import HookedModel, huggingface_model, is_quantized
from interp_transfer.models.identity import WrapperCheck, checkpoint_identity, is_unprocessed, register, register_again
from interp_transfer.models.printing import print_short
from interp_transfer.models.probe import block_calls, check_wrapper
from interp_transfer.models.supported import LOADABLE, check_supported
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.names import did_you_mean, first_line

WRAPPERS = ("bridge", "hooked_transformer")


def load_model(
    model: Any,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    device_map: str | dict | None = None,
    max_memory: Mapping | None = None,
    quantization_config: Any = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    gguf_file: str | None = None,
    adapter: str | Path | None = None,
    tokenizer: Any = None,
    wrapper: str = "bridge",
    chat_template: str | ChatFunction | None = None,
) -> HookedModel:
    """Load a model and wrap it as a transformer-lens hooked model, weights unprocessed.

    Args:
        model: the name of a known model (``plugins``), a local folder (of a model, or of an adapter of peft), a GGUF file, a
            hub name, a transformers model or ``PeftModel`` with ``tokenizer``, or a hooked model. Objects keep their device and
            dtype; the adapter of a ``PeftModel`` is merged, in place. Of a multimodal checkpoint the language model is loaded.
        device: a GPU if there is one, else the CPU.
        dtype: of the weights in memory; "auto" is the dtype in which the checkpoint is stored, on any device. A GGUF file is
            stored in bfloat16 once it is de-quantized, and an adapter in its base's dtype.
        device_map: passed to accelerate for models that exceed one device ("auto", or a dictionary); excludes ``device``.
        max_memory: memory of each device for ``device_map``, as accelerate takes it.
        quantization_config: a configuration of transformers, such as ``BitsAndBytesConfig(load_in_4bit=True)``. Quantized
            models have no gradients here, and another fingerprint.
        revision: branch, tag or commit on the hub.
        trust_remote_code: run the code that comes with a checkpoint.
        gguf_file: name of a GGUF file in the folder or the hub's repository. It is de-quantized once, into the user's cache.
        adapter: folder or hub name of an adapter of peft, merged into ``model`` in float32.
        tokenizer: replaces the checkpoint's own.
        wrapper: "bridge" (``TransformerBridge``, any architecture), or "hooked_transformer" (transformer-lens' older class, for
            the architectures that ``models.hooked_transformer`` converts).
        chat_template: set on the tokenizer, for a model that has none: "alpaca", a Jinja template, or a function
            ``(messages, add_generation_prompt) -> str``, see ``models.chat_templates``.

    Returns:
        A ``TransformerBridge``, a ``HookedTransformer``, or ``model`` itself if it is a hooked model.

    Raises:
        ValueError: for an unknown name, a checkpoint that cannot be read or wrapped, a dtype that the device lacks, or
            contradicting arguments, with the remedy.
    """
    options = LoadOptions(device_map, max_memory, quantization_config, revision, trust_remote_code, gguf_file, adapter)
    if not isinstance(model, str | Path):
        if options != LoadOptions():
            odd = next(name for name, value in vars(options).items() if value != getattr(LoadOptions(), name))
            raise ValueError(f"{odd}= is for models that are loaded by name, and this one is in memory already: leave it out")
        if isinstance(model, HookedModel):
            return with_template(_take_hooked(model, tokenizer), chat_template)
        return with_template(print_short(_wrap_object(model, tokenizer)), chat_template)
    if device is not None and device_map is not None:
        raise ValueError(f"device={device!r} and device_map={device_map!r} contradict each other: give one of them")
    if wrapper not in WRAPPERS:
        raise ValueError(f"unknown wrapper {wrapper!r}: {did_you_mean(wrapper, WRAPPERS)}there are {', '.join(WRAPPERS)}")
    if wrapper == "hooked_transformer" and (device_map or quantization_config) is not None:
        raise ValueError(
            "a HookedTransformer lives on one device, with whole weights: give device= in place of device_map=, leave "
            "quantization_config= out, or use wrapper='bridge'"
        )
    place = None if device_map is not None else device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen = None if dtype == "auto" else _checked_dtype(dtype, place)
    hf, tokenizer, identity = load_unwrapped(model, options=options, device=place, tokenizer=tokenizer)
    stored = getattr(hf.config, "dtype", None) or hf.dtype
    if chosen is None:
        chosen = _checked_dtype(stored, place)
        _warn_if_slow(chosen, place)
    cast(hf, chosen)
    if place is not None and not is_quantized(hf):
        hf.to(torch.device(place))
    if wrapper == "hooked_transformer":
        from interp_transfer.models.hooked_transformer import as_hooked_transformer

        wrapped = as_hooked_transformer(hf, tokenizer, chosen)
        register(wrapped, identity, tokenizer)
    else:
        wrapped, checked = _wrap(hf, tokenizer, str(model), chosen)
        register(wrapped, identity, tokenizer, checked)
    return with_template(print_short(wrapped), chat_template)


def with_template(model: HookedModel, chat_template: str | ChatFunction | None) -> HookedModel:
    """Set the chat template of a model, and of its wrapper's copy of the tokenizer, if one is given; return the model."""
    if chat_template is not None:
        use_chat_template(tokenizer_of(model), chat_template)
        if model.tokenizer is not None:
            use_chat_template(model.tokenizer, chat_template)
    return model


def _take_hooked(model: HookedModel, tokenizer: Any) -> HookedModel:
    """Register a hooked model, whose weights may have changed since it was loaded."""
    # A HookedTransformer that was loaded here keeps its checkpoint's identity, which its converted weights do not hash to.
    converted = huggingface_model(model) is None and is_unprocessed(model)
    if tokenizer is not None or not converted:
        register_again(model, tokenizer)
    return model


def _wrap_object(model: Any, tokenizer: Any) -> HookedModel:
    """Wrap a transformers model that is in memory, on its device and in its dtype."""
    from transformers import PreTrainedModel

    model = merged(model)
    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            f"cannot load a {type(model).__name__}: give the name of a known model, a hub name, a folder, a GGUF file, a "
            "transformers model, a PeftModel or a hooked model"
        )
    name = model.name_or_path or type(model).__name__
    check_supported(name, model.config)
    if tokenizer is None:
        raise ValueError(f"{name!r} is an object without a tokenizer: give one, load_model(model, tokenizer=...)")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    identity = checkpoint_identity(name, model, tokenizer)  # before wrapping, which adds to the module
    wrapped, checked = _wrap(model.eval(), tokenizer, name, model.dtype)
    register(wrapped, identity, tokenizer, checked)
    return wrapped


def wrapper_tokenizer(tokenizer: Any) -> Any:
    """A copy for transformer-lens, which gives it a BOS; not reloaded, since it declares that it adds one."""
    copy = deepcopy(tokenizer)
    copy.init_kwargs.update({"name_or_path": copy.init_kwargs.get("name_or_path", ""), "add_bos_token": True})
    return copy


def _checked_dtype(dtype: str | torch.dtype, device: str | torch.device | None) -> torch.dtype:
    """The dtype of a name, which the device must compute in; None for devices that accelerate chooses."""
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise ValueError(f"unknown dtype {dtype!r}: use 'auto', 'float32', 'bfloat16' or 'float16'")
    if device is not None:
        try:
            one = torch.ones(1, 1, dtype=named, device=device)
            nn.functional.linear(one, one).softmax(dim=-1)
        except (RuntimeError, TypeError, AssertionError) as error:
            raise ValueError(
                f"device={str(device)!r} is missing or does not compute in {named} ({first_line(error)}): give another "
                "device=, or dtype= 'float32', 'bfloat16' or 'float16'"
            ) from error
    return named


def _warn_if_slow(dtype: torch.dtype, device: str | torch.device | None) -> None:
    """Warn of a dtype for which a CPU has no instructions, as far as oneDNN (mkldnn) knows."""
    half = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    known = device is not None and torch.device(device).type == "cpu" and torch.backends.mkldnn.is_available()
    if known and dtype in half and not getattr(torch.ops.mkldnn, half[dtype])():
        warnings.warn(
            f"this CPU has no instructions for {dtype}, the checkpoint's dtype, and is several times faster with "
            "dtype='float32', which takes twice the memory",
            UserWarning,
            stacklevel=3,
        )


def _wrap(hf: Any, tokenizer: Any, name: str, dtype: torch.dtype) -> tuple[HookedModel, WrapperCheck | None]:
    """The wrapped model, and the check of its wrapper; None if that cannot be checked."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    offloaded = [m for m in hf.modules() if isinstance(m, nn.Linear) and m.bias is None and m.weight.is_meta]
    architecture = (hf.config.architectures or [type(hf).__name__])[0]
    with named_errors(repr(name)):
        calls = block_calls(hf, tokenizer)
    try:
        bridge = build_bridge_from_module(
            hf,
            architecture,
            hf_config=hf.config,
            tokenizer=wrapper_tokenizer(tokenizer),
            dtype=dtype,
            model_name=Path(name).name,
        )
    except (ValueError, KeyError, NotImplementedError) as error:
        raise ValueError(
            f"transformer-lens cannot wrap the architecture {architecture!r} of {name!r}: {first_line(error)}: {LOADABLE}"
        ) from error
    for module in offloaded:  # the bridge added a bias of zeros, which accelerate does not have in its store
        module.register_parameter("bias", None)
    if not calls.of:
        return bridge, None
    try:
        checked = check_wrapper(bridge, calls)
    except ValueError as error:
        raise ValueError(
            f"transformer-lens' wrapper of the architecture {architecture!r} of {name!r} computes something else: {error}; "
            f"{LOADABLE}"
        ) from error
    if checked.differing:
        warnings.warn(
            f"transformer-lens computes something else inside the blocks of {architecture!r}: {len(checked.differing)} of its "
            "sites are refused, and calls of the model itself differ from transformers'; functions of interp_transfer do not",
            UserWarning,
            stacklevel=4,
        )
    return bridge, checked
