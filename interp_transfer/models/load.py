"""Load models: the one place that does.

Registered names, hub names and local folders take the same path: transformers loads and transformer-lens wraps. Weights are
never processed, because folding norms would move the residual stream, and with it every vector and mapper. A model that the
user wrapped, bridge or ``HookedTransformer``, is used unchanged.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp_transfer.models.adapters import base_of, is_adapter, merge_adapter
from interp_transfer.models.chat_templates import ChatFunction, use_chat_template
from interp_transfer.models.hooked_model import HookedModel, huggingface_model
from interp_transfer.models.identity import ModelIdentity, checkpoint_identity, is_unprocessed, register, wrapped_identity
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.names import did_you_mean
from interp_transfer.plugins import known_model, known_models

WRAPPERS = ("bridge", "hooked_transformer")

BAR_FROM_BYTES = 200_000_000
"""Local weights from this size on are loaded with a progress bar."""


def load_model(
    model: Any,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = torch.float32,
    device_map: str | dict | None = None,
    tokenizer: Any = None,
    wrapper: str = "bridge",
    chat_template: str | ChatFunction | None = None,
) -> HookedModel:
    """Load a model and wrap it as a transformer-lens hooked model, weights unprocessed.

    Args:
        model: the name of a known model (``plugins``), a local folder (of a model, or of a LoRA adapter), a hub name, a
            transformers model with ``tokenizer``, or a hooked model. Objects keep their device and dtype.
        device: a GPU if there is one, else the CPU.
        dtype: of the weights in memory.
        device_map: passed to accelerate for models that exceed one device ("auto", or a dictionary); excludes ``device``.
        tokenizer: replaces the checkpoint's own.
        wrapper: "bridge" (``TransformerBridge``, any architecture), or "hooked_transformer" (transformer-lens' older class, for
            the architectures that ``models.hooked_transformer`` converts).
        chat_template: set on the tokenizer, for a model that has none: "alpaca", a Jinja template, or a function
            ``(messages, add_generation_prompt) -> str``, see ``models.chat_templates``.

    Returns:
        A ``TransformerBridge``, a ``HookedTransformer``, or ``model`` itself if it is a hooked model.

    Raises:
        ValueError: for an unknown name, an unknown dtype, or contradicting arguments, with the remedy.
    """
    if isinstance(model, HookedModel):
        # A HookedTransformer that was loaded here keeps its checkpoint's identity, which its converted weights do not hash to.
        converted = huggingface_model(model) is None and is_unprocessed(model)
        if tokenizer is not None or not converted:
            register(model, wrapped_identity(model, tokenizer), tokenizer)
        return _with_template(model, chat_template)
    if not isinstance(model, str | Path):
        return _with_template(_wrap_object(model, tokenizer), chat_template)
    if device is not None and device_map is not None:
        raise ValueError(f"device={device!r} and device_map={device_map!r} contradict each other: give one of them")
    if wrapper not in WRAPPERS:
        raise ValueError(f"unknown wrapper {wrapper!r}: {did_you_mean(wrapper, WRAPPERS)}there are {', '.join(WRAPPERS)}")
    if wrapper == "hooked_transformer" and device_map is not None:
        raise ValueError("a HookedTransformer lives on one device: give device= in place of device_map=, or wrapper='bridge'")
    dtype = _torch_dtype(dtype)
    hf, tokenizer, identity = load_unwrapped(model, device_map=device_map, tokenizer=tokenizer)
    cast(hf, dtype)
    if device_map is None:
        hf.to(torch.device(device) if device is not None else torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if wrapper == "hooked_transformer":
        from interp_transfer.models.hooked_transformer import as_hooked_transformer

        wrapped = as_hooked_transformer(hf, tokenizer, dtype)
    else:
        wrapped = _wrap(hf, tokenizer, str(model), dtype)
    register(wrapped, identity, tokenizer)
    return _with_template(wrapped, chat_template)


def _with_template(model: HookedModel, chat_template: str | ChatFunction | None) -> HookedModel:
    if chat_template is not None:
        use_chat_template(tokenizer_of(model), chat_template)
    return model


def load_unwrapped(
    model: str | Path, *, device_map: str | dict | None = None, tokenizer: Any = None
) -> tuple[Any, Any, ModelIdentity]:
    """Load a model with transformers, in its stored dtype, with its tokenizer and identity.

    The folder of a LoRA adapter gives its base with the adapter merged, in float32: the changes that an adapter makes are small
    and would partly be lost to rounding.
    """
    path, local = _resolve(str(model))
    if local and is_adapter(path):
        hf, tokenizer = _load_adapter(path, device_map, tokenizer)
    else:
        hf, tokenizer = _load_pretrained(str(model), path, local, device_map, tokenizer)
    return hf, tokenizer, checkpoint_identity(str(model), hf, tokenizer)


def _wrap_object(model: Any, tokenizer: Any) -> HookedModel:
    """Wrap a transformers model that is in memory, on its device and in its dtype."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            f"cannot load a {type(model).__name__}: give the name of a known model, a hub name, a folder, a transformers model "
            "or a hooked model"
        )
    name = model.name_or_path or type(model).__name__
    if tokenizer is None:
        raise ValueError(f"{name!r} is an object without a tokenizer: give one, load_model(model, tokenizer=...)")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    identity = checkpoint_identity(name, model, tokenizer)  # before wrapping, which adds to the module
    wrapped = _wrap(model.eval(), tokenizer, name, model.dtype)
    register(wrapped, identity, tokenizer)
    return wrapped


def cast(hf: nn.Module, dtype: torch.dtype) -> None:
    """Change the dtype of a model's parameters, in place."""
    # One parameter at a time, so that memory never holds the model twice; buffers (rotary frequencies) keep their float32.
    for parameter in hf.parameters():
        if parameter.is_floating_point() and parameter.dtype != dtype and not parameter.is_meta:
            parameter.data = parameter.data.to(dtype)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Switch off the progress bars of transformers inside the block."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


@contextmanager
def keep_tokenizer(tokenizer: Any) -> Iterator[None]:
    """Keep transformer-lens from reloading a tokenizer, which it does unless the tokenizer declares that it adds a BOS."""
    kept = dict(tokenizer.init_kwargs)
    tokenizer.init_kwargs.update({"name_or_path": kept.get("name_or_path", ""), "add_bos_token": True})
    try:
        yield
    finally:
        tokenizer.init_kwargs.clear()
        tokenizer.init_kwargs.update(kept)


def _torch_dtype(dtype: str | torch.dtype) -> torch.dtype:
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise ValueError(f"unknown dtype {dtype!r}: use 'float32', 'bfloat16' or 'float16'")
    return named


def _resolve(name: str) -> tuple[str, bool]:
    """The folder or hub name to load ``name`` from, and whether it is local."""
    known = known_model(name)
    if known is not None:
        if not (known.path / "config.json").is_file():
            raise ValueError(
                f"the model {name!r} is not in {str(known.path)!r}: build it with `interp-transfer models build {name}`"
            )
        return str(known.path), True
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists() and not is_adapter(path):
            raise ValueError(f"{name!r} holds no config.json: it is not the folder of a Hugging Face model")
        return str(path), True
    if name.startswith((".", "/", "~")):
        raise ValueError(
            f"there is no folder {name!r}: {_similar_folder(path)}give the folder of a Hugging Face model, a hub name or a "
            "known model"
        )
    hint = did_you_mean(name, known_models(), n=3)
    if hint and "/" not in name:
        raise ValueError(f"unknown model {name!r}: {hint.strip()}")
    return name, False


def _similar_folder(path: Path) -> str:
    """A question about a sibling folder with a similar name, for an error; empty if there is none."""
    try:
        return did_you_mean(path.name, [folder.name for folder in path.parent.iterdir() if folder.is_dir()])
    except OSError:
        return ""


def _load_pretrained(name: str, path: str, local: bool, device_map: Any, tokenizer: Any) -> tuple[Any, Any]:
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {} if device_map is None else {"device_map": device_map}
    small = local and sum(file.stat().st_size for file in Path(path).glob("*.safetensors")) < BAR_FROM_BYTES
    try:
        if tokenizer is None:
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=local)
        with no_progress_bars() if small else nullcontext():
            # "auto" keeps the stored dtype, in which the fingerprint is taken; the cast follows.
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path, dtype="auto", output_loading_info=True, local_files_only=local, **options
            )
        hf, info = loaded
        if info["missing_keys"]:  # transformers initialises them at random
            raise ValueError(f"weights are missing: {', '.join(sorted(info['missing_keys'])[:3])}, ...")
        if not tokenizer("a", add_special_tokens=False)["input_ids"]:  # transformers accepts a missing vocabulary
            raise ValueError("the vocabulary of its tokenizer is missing: give one, load_model(..., tokenizer=...)")
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        reason = str(error).strip().splitlines()[0]
        if local:
            raise ValueError(f"cannot load the model in {path!r}: {reason}") from error
        raise ValueError(
            f"cannot load {name!r}: it is no known model and no local folder, and the hub did not provide it ({reason}): "
            f"{_similar_folder(Path(name))}if there is no network, give the path of a downloaded copy"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return hf.eval(), tokenizer


def _load_adapter(path: str, device_map: Any, tokenizer: Any) -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    if device_map is not None:
        raise ValueError(f"{path!r} holds a LoRA adapter, which device_map= cannot spread: tune without --adapter-only")
    base, fingerprint = base_of(path)
    try:
        hf, base_tokenizer, known = load_unwrapped(base)
    except ValueError as error:
        raise ValueError(f"the adapter in {path!r} was made for {base!r}, which cannot be loaded: {error}") from error
    if fingerprint not in (None, known.fingerprint):
        raise ValueError(
            f"the adapter in {path!r} was made for {base} [{fingerprint}], but {base!r} now holds another model "
            f"[{known.fingerprint}]: restore that one, or tune again"
        )
    cast(hf, torch.float32)
    if tokenizer is None and (Path(path) / "tokenizer_config.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    return merge_adapter(hf, path).eval(), tokenizer if tokenizer is not None else base_tokenizer


def _wrap(hf: Any, tokenizer: Any, name: str, dtype: torch.dtype) -> HookedModel:
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    offloaded = [m for m in hf.modules() if isinstance(m, nn.Linear) and m.bias is None and m.weight.is_meta]
    architecture = (hf.config.architectures or [type(hf).__name__])[0]
    try:
        with keep_tokenizer(tokenizer):
            bridge = build_bridge_from_module(
                hf, architecture, hf_config=hf.config, tokenizer=tokenizer, dtype=dtype, model_name=Path(name).name
            )
    except (ValueError, KeyError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"transformer-lens cannot wrap the architecture {architecture!r} of {name!r}: {reason}") from error
    for module in offloaded:  # the bridge added a bias of zeros, which accelerate does not have in its store
        module.register_parameter("bias", None)
    return bridge
