"""The one place that loads models.

A registered name, a hub name and a local folder take the same path: transformers loads, transformer-lens wraps, nothing
processes the weights (folding norms would move the residual stream, and with it every vector and mapper). A model that the
user wrapped, bridge or ``HookedTransformer``, is taken as it is.
"""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp_transfer.models.adapters import base_of, is_adapter, merge_adapter
from interp_transfer.models.hooked_model import HookedModel, huggingface_model
from interp_transfer.models.identity import (
    _LOADED,
    ModelIdentity,
    _config_of,
    _digest,
    _fingerprint_wrapped,
    _remember,
    _tokenizer_hash,
    _weights,
)
from interp_transfer.names import meant
from interp_transfer.plugins import known_model, known_models

WRAPPERS = ("bridge", "hooked_transformer")

# How a checkpoint was loaded and is run, not what it is.
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
) -> HookedModel:
    """Load a model and wrap it as a transformer-lens hooked model, weights unprocessed.

    Args:
        model: the name of a known model (``plugins``), a local folder (of a model, or of a LoRA adapter), a hub name, a
            transformers model with ``tokenizer``, or a model wrapped already. Objects keep their device and dtype.
        device: where it lives; a GPU if there is one, else the CPU.
        dtype: of the weights in memory; float32 unless said.
        device_map: passed to accelerate for models that exceed one device ("auto", or a dictionary); excludes ``device``.
        tokenizer: use this one instead of the checkpoint's own.
        wrapper: "bridge" (``TransformerBridge``, any architecture), or "hooked_transformer" (transformer-lens' older class, for
            the architectures that ``models.hooked_transformer`` converts).

    Returns:
        A ``TransformerBridge``, a ``HookedTransformer``, or the model that was given.

    Raises:
        ValueError: for an unknown name, an unknown dtype, or contradicting arguments, with the remedy.
    """
    if isinstance(model, HookedModel):
        if tokenizer is not None or not _loaded_as_older(model):  # which cannot be hashed as its checkpoint was
            _remember(model, _fingerprint_wrapped(model, tokenizer), tokenizer)
        return model
    if not isinstance(model, str | Path):
        return _wrap_object(model, tokenizer)
    if device is not None and device_map is not None:
        raise ValueError(f"device={device!r} and device_map={device_map!r} contradict each other: give one of them")
    if wrapper not in WRAPPERS:
        raise ValueError(f"unknown wrapper {wrapper!r}: {meant(wrapper, WRAPPERS)}there are {', '.join(WRAPPERS)}")
    if wrapper == "hooked_transformer" and device_map is not None:
        raise ValueError("a HookedTransformer lives on one device: give device= in place of device_map=, or wrapper='bridge'")
    kind = _dtype(dtype)
    hf, tok, known = load_unwrapped(model, device_map=device_map, tokenizer=tokenizer)
    cast(hf, kind)
    if device_map is None:
        hf.to(torch.device(device) if device is not None else torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if wrapper == "hooked_transformer":
        from interp_transfer.models.hooked_transformer import as_hooked_transformer

        older = as_hooked_transformer(hf, tok, kind)
        _remember(older, known, tok)
        return older
    offloaded = [m for m in hf.modules() if isinstance(m, nn.Linear) and m.bias is None and m.weight.is_meta]
    wrapped = _wrap(hf, tok, str(model), kind)
    for part in offloaded:  # the wrapper gave the unembedding a bias of zeros, which accelerate never stored
        part.register_parameter("bias", None)
    _remember(wrapped, known, tok)
    return wrapped


def load_unwrapped(
    model: str | Path, *, device_map: str | dict | None = None, tokenizer: Any = None
) -> tuple[Any, Any, ModelIdentity]:
    """The model as transformers loads it, in its stored dtype, with its tokenizer and identity.

    The folder of a LoRA adapter gives its base with the adapter merged, in float32: what an adapter changes is small, and
    would be lost in part by rounding.
    """
    where, local = _resolve(str(model))
    if local and is_adapter(where):
        hf, tok = _with_adapter(where, device_map, tokenizer)
    else:
        hf, tok = _from_pretrained(str(model), where, local, device_map, tokenizer)
    return hf, tok, _identity_of(hf, tok, str(model))


def _identity_of(hf: Any, tok: Any, name: str) -> ModelIdentity:
    return ModelIdentity(name, _digest(_config_of(hf.config), _tokenizer_hash(tok), _weights(hf), "none"))


def _wrap_object(model: Any, tokenizer: Any) -> HookedModel:
    """Wrap a transformers model that is in memory already, on its device and in its dtype."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            f"cannot load a {type(model).__name__}: give the name of a known model, a hub name, a folder, a transformers model or "
            "a hooked model"
        )
    name = model.name_or_path or type(model).__name__
    if tokenizer is None:
        raise ValueError(f"{name!r} is an object without a tokenizer: give one, load_model(model, tokenizer=...)")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    known = _identity_of(model, tokenizer, name)  # before wrapping, which adds to the module
    wrapped = _wrap(model.eval(), tokenizer, name, model.dtype)
    _remember(wrapped, known, tokenizer)
    return wrapped


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ValueError(f"unknown dtype {dtype!r}: use 'float32', 'bfloat16' or 'float16'")
    return kind


def _resolve(name: str) -> tuple[str, bool]:
    """Where to load ``name`` from, and whether that is on this machine."""
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
            f"no folder {name!r}{_beside(path)}: give the folder of a Hugging Face model, a hub name or a known model"
        )
    close = difflib.get_close_matches(name, known_models(), n=3, cutoff=0.6)
    if close and "/" not in name:
        raise ValueError(f"unknown model {name!r}: did you mean {', '.join(close)}?")
    return name, False


def _loaded_as_older(model: HookedModel) -> bool:
    """Whether it is a HookedTransformer that was loaded here."""
    known = _LOADED.get(model)
    return known is not None and huggingface_model(model) is None and known.identity.processing == "none"


def _beside(path: Path) -> str:
    """A question whether a folder beside one that is not there was meant; nothing if none is alike."""
    try:
        there = [folder.name for folder in path.parent.iterdir() if folder.is_dir()]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, there, n=1, cutoff=0.6)
    return f"; did you mean the folder {str(path.parent / close[0])!r}?" if close else ""


def _from_pretrained(name: str, where: str, local: bool, device_map: Any, tokenizer: Any) -> tuple[Any, Any]:
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tok = tokenizer if tokenizer is not None else AutoTokenizer.from_pretrained(where, local_files_only=local)
        extra: dict[str, Any] = {} if device_map is None else {"device_map": device_map}
        # "auto" keeps the stored dtype, which the fingerprint is taken in; the cast follows.
        extra |= {"output_loading_info": True, "local_files_only": local}
        with _quiet_when_small(where):
            loaded: Any = AutoModelForCausalLM.from_pretrained(where, dtype="auto", **extra)
        hf, report = loaded
        if report["missing_keys"]:  # transformers would go on with random numbers in their place
            raise ValueError(f"weights are missing: {', '.join(sorted(report['missing_keys'])[:3])}, ...")
        if not tok("a", add_special_tokens=False)["input_ids"]:  # nor does it mind a vocabulary that is not there
            raise ValueError("the vocabulary of its tokenizer is missing: give one, load_model(..., tokenizer=...)")
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        first = str(error).strip().splitlines()[0]
        if local:
            raise ValueError(f"cannot load the model in {where!r}: {first}") from error
        hint = _beside(Path(name)) or "."
        raise ValueError(
            f"cannot load {name!r}: it is no known model and no local folder, and the hub did not give it ({first}){hint} "
            "Give the path of a downloaded copy if there is no network."
        ) from error
    if tok.pad_token is None:
        tok.pad_token = tok.eos_token or tok.unk_token
    return hf.eval(), tok


def _with_adapter(where: str, device_map: Any, tokenizer: Any) -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    if device_map is not None:
        raise ValueError(f"{where!r} holds a LoRA adapter, which device_map= cannot spread: tune without --adapter-only")
    base, fingerprint = base_of(where)
    try:
        hf, tok, known = load_unwrapped(base)
    except ValueError as error:
        raise ValueError(f"the adapter in {where!r} was made for {base!r}, which cannot be loaded: {error}") from error
    if fingerprint not in (None, known.fingerprint):
        raise ValueError(
            f"the adapter in {where!r} was made for {base} [{fingerprint}], but {base!r} now holds another model "
            f"[{known.fingerprint}]: restore that one, or tune again"
        )
    cast(hf, torch.float32)
    if tokenizer is not None:
        tok = tokenizer
    elif (Path(where) / "tokenizer_config.json").is_file():
        tok = AutoTokenizer.from_pretrained(where, local_files_only=True)
    return merge_adapter(hf, where).eval(), tok


@contextmanager
def _quiet_when_small(where: str) -> Iterator[None]:
    """No progress bar of transformers for weights that are there in an instant."""
    from transformers.utils import logging

    small = sum(file.stat().st_size for file in Path(where).glob("*.safetensors")) < BAR_FROM_BYTES
    shown = logging.is_progress_bar_enabled()
    if small and Path(where).is_dir() and shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _wrap(hf: Any, tok: Any, name: str, dtype: torch.dtype) -> HookedModel:
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    architecture = (hf.config.architectures or [type(hf).__name__])[0]
    try:
        with taken_as_it_is(tok):
            return build_bridge_from_module(
                hf, architecture, hf_config=hf.config, tokenizer=tok, dtype=dtype, model_name=Path(name).name
            )
    except (ValueError, KeyError, NotImplementedError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"transformer-lens cannot wrap the architecture {architecture!r} of {name!r}: {first}") from error


@contextmanager
def taken_as_it_is(tok: Any) -> Iterator[None]:
    """Keep transformer-lens from loading a tokenizer again, which it does unless it believes that it adds a BOS."""
    kept = dict(tok.init_kwargs)
    tok.init_kwargs.update({"name_or_path": kept.get("name_or_path", ""), "add_bos_token": True})
    try:
        yield
    finally:
        tok.init_kwargs.clear()
        tok.init_kwargs.update(kept)


def cast(hf: nn.Module, dtype: torch.dtype) -> None:
    """Change the dtype of a model's parameters, in place."""
    # Parameter by parameter, so that no second copy of the model exists; buffers (rotary frequencies) keep their float32.
    for parameter in hf.parameters():
        if parameter.is_floating_point() and parameter.dtype != dtype and not parameter.is_meta:
            parameter.data = parameter.data.to(dtype)
