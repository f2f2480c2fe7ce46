"""Read checkpoints with transformers: from known names, folders, GGUF files, adapters and the hub. ``load`` wraps them."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp_transfer.models.adapters import adapter_folder, base_of, is_adapter, merge_adapter
from interp_transfer.models.gguf import dequantized
from interp_transfer.models.identity import ModelIdentity, checkpoint_identity, only_errors
from interp_transfer.models.locate import locate
from interp_transfer.models.supported import LOADABLE, check_supported, language_config
from interp_transfer.names import first_line

BAR_FROM_BYTES = 200_000_000
"""Local weights from this size on are loaded with a progress bar."""

_LANGUAGE_MODEL = {r"^(model\.)?language_model\.(model\.)?(?!lm_head)": "model.", r"^language_model\.lm_head": "lm_head"}
"""Weights of a multimodal checkpoint's language model: their names there, and in a model of text alone."""


@dataclass(frozen=True)
class LoadOptions:
    """How a checkpoint is read; the fields are arguments of ``load_model`` of the same names."""

    device_map: str | dict | None = None
    max_memory: Mapping | None = None
    quantization_config: Any = None
    revision: str | None = None
    trust_remote_code: bool = False
    gguf_file: str | None = None
    adapter: str | Path | None = None

    def __post_init__(self) -> None:
        """Check for contradictions."""
        if self.max_memory is not None and self.device_map is None:
            raise ValueError(f"max_memory={self.max_memory!r} needs device_map=: give device_map='auto'")
        if self.adapter is not None and (self.device_map or self.quantization_config) is not None:
            raise ValueError(
                f"adapter={str(self.adapter)!r} is merged into whole weights on one device: leave device_map= and "
                "quantization_config= out, or save the merged model first"
            )


@dataclass(frozen=True)
class _Place:
    """Where a checkpoint is: a local folder or a hub name, and the SHA-256 of the GGUF file that the folder was made from."""

    path: str
    local: bool
    gguf: str = ""


def load_unwrapped(
    model: str | Path, *, options: LoadOptions | None = None, device: Any = None, tokenizer: Any = None
) -> tuple[Any, Any, ModelIdentity]:
    """Load a model with transformers, in its stored dtype, with its tokenizer and identity.

    An adapter is merged into its base in float32: the changes that an adapter makes are small and would partly be lost to
    rounding. ``config.dtype`` of the result is the stored dtype.

    Args:
        model: known name, folder, GGUF file or hub name.
        options: how it is read.
        device: where the weights of a quantized model are put; others stay on the CPU, or where ``device_map`` puts them.
        tokenizer: replaces the checkpoint's own.

    Raises:
        ValueError: if it cannot be loaded, with the remedy.
    """
    options = options or LoadOptions()
    place = _resolve(str(model), options)
    if options.adapter is not None or (place.local and is_adapter(place.path)):
        hf, tokenizer = _load_adapter(str(model), place, options, tokenizer)
        return hf, tokenizer, checkpoint_identity(str(model), hf, tokenizer)
    hf, tokenizer = _load_pretrained(str(model), place, options, device, tokenizer)
    if place.gguf:
        hf.config.gguf_sha256 = place.gguf  # part of the fingerprint: a GGUF file and a folder made from it are two models
    return hf, tokenizer, checkpoint_identity(str(model), hf, tokenizer)


def number_of_blocks(model: str | Path) -> int | None:
    """The number of blocks of a checkpoint, read from its configuration; None where no configuration can be read.

    Args:
        model: as for ``load_unwrapped``.

    Raises:
        ValueError: for an unknown name, as ``load_unwrapped`` does.
    """
    from transformers import AutoConfig

    place = _resolve(str(model), LoadOptions())
    if place.local and is_adapter(place.path):
        return None
    try:
        config = AutoConfig.from_pretrained(place.path, local_files_only=place.local, trust_remote_code=False)  # or it asks
    except (OSError, ValueError, KeyError):
        return None  # loading says what is wrong
    return getattr(language_config(config), "num_hidden_layers", None)


def cast(hf: nn.Module, dtype: torch.dtype) -> None:
    """Change the dtype of a model, in place; quantized parameters, which are integers, stay."""
    # One parameter at a time, so that memory never holds the model twice.
    other = [p for p in hf.parameters() if p.is_floating_point() and p.dtype != dtype and not p.is_meta]
    for parameter in other:
        parameter.data = parameter.data.to(dtype)
    if other:
        _renew_buffers(hf, dtype)


def _renew_buffers(hf: Any, dtype: torch.dtype) -> None:
    """Give buffers that no checkpoint holds, such as the scale of Gemma's embeddings, the values that they have in a dtype.

    They were computed in another one, in which they are rounded.
    """
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        empty = type(hf)._from_config(deepcopy(hf.config), dtype=dtype)  # which notes the dtype there
    stored = hf.state_dict().keys()
    own = dict(hf.named_buffers())
    for name, new in empty.named_buffers():
        if name in own and name not in stored and new.is_floating_point() and new.shape == own[name].shape:
            module, _, last = name.rpartition(".")
            setattr(hf.get_submodule(module), last, new.to(own[name].device))


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


def _resolve(name: str, options: LoadOptions) -> _Place:
    """The folder or hub name to load ``name`` from; a GGUF file is de-quantized into a folder."""
    path = locate(name, gguf_file=options.gguf_file, revision=options.revision)
    if path is None and options.gguf_file is not None:
        from huggingface_hub import hf_hub_download

        with _readable(name, local=False):
            path = Path(hf_hub_download(name, options.gguf_file, revision=options.revision))
    if path is None:
        return _Place(name, False)
    if path.is_file():
        folder, digest = dequantized(path)
        return _Place(str(folder), True, digest)
    return _Place(str(path), True)


@contextmanager
def _readable(name: str, local: bool) -> Iterator[None]:
    """Raise what transformers raises for a checkpoint that it cannot read as a ValueError of one line."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (
        *(OSError, ValueError, KeyError, RuntimeError, ImportError),
        *(SafetensorError, StrictDataclassError, HFValidationError, HfHubHTTPError),
    ) as error:
        reason = first_line(error, 600)  # an error of this package, which may quote another, comes this way too
        if local:
            raise ValueError(f"cannot load the model in {name!r}: {reason}") from error
        raise ValueError(f"cannot load {name!r} from the hub: {reason}") from error


def _load_pretrained(name: str, place: _Place, options: LoadOptions, device: Any, tokenizer: Any) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    path = place.path
    source: dict[str, Any] = {"local_files_only": place.local, "trust_remote_code": options.trust_remote_code}
    if not place.local:
        source["revision"] = options.revision
    with _readable(path if place.local else name, place.local):
        try:
            config = AutoConfig.from_pretrained(path, **source)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{first_line(error)} {LOADABLE}") from error
    check_supported(name, config)
    how: dict[str, Any] = {
        key: value
        for key in ("device_map", "max_memory", "quantization_config")
        if (value := getattr(options, key)) is not None
    }
    if (options.quantization_config or getattr(config, "quantization_config", None)) and options.device_map is None:
        how["device_map"] = {"": device if device is not None else "cpu"}  # quantized weights cannot be moved later
    multimodal = language_config(config) is not config
    if multimodal:
        how |= {"config": language_config(config), "key_mapping": _LANGUAGE_MODEL}
    small = place.local and sum(file.stat().st_size for file in Path(path).glob("*.safetensors")) < BAR_FROM_BYTES
    with _readable(path if place.local else name, place.local):
        if tokenizer is None:
            tokenizer = AutoTokenizer.from_pretrained(path, **source)
        with no_progress_bars() if small else nullcontext(), only_errors() if multimodal else nullcontext():
            # "auto" keeps the stored dtype, in which the fingerprint is taken; the cast follows.
            loaded: Any = AutoModelForCausalLM.from_pretrained(path, dtype="auto", output_loading_info=True, **source, **how)
        hf, info = loaded
        if info["missing_keys"]:  # transformers initialises them at random
            raise ValueError(f"weights are missing: {', '.join(sorted(info['missing_keys'])[:3])}, ...")
        if not tokenizer("a", add_special_tokens=False)["input_ids"]:  # transformers accepts a missing vocabulary
            raise ValueError("the vocabulary of its tokenizer is missing: give one, load_model(..., tokenizer=...)")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return hf.eval(), tokenizer


def _load_adapter(name: str, place: _Place, options: LoadOptions, tokenizer: Any) -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    path = place.path if options.adapter is None else str(adapter_folder(options.adapter))
    if options.device_map is not None:
        raise ValueError(f"{path!r} holds a LoRA adapter, which device_map= cannot spread: tune without --adapter-only")
    own_base, fingerprint = base_of(path)
    base = own_base if options.adapter is None else name
    source = LoadOptions(revision=options.revision, trust_remote_code=options.trust_remote_code, gguf_file=options.gguf_file)
    try:
        hf, base_tokenizer, known = load_unwrapped(base, options=LoadOptions() if options.adapter is None else source)
    except ValueError as error:
        if options.adapter is not None:
            raise
        raise ValueError(f"the adapter in {path!r} was made for {base!r}, which cannot be loaded: {error}") from error
    if fingerprint not in (None, known.fingerprint):
        verb = "now holds" if options.adapter is None else "is"
        raise ValueError(
            f"the adapter in {path!r} was made for {own_base} [{fingerprint}], but {base!r} {verb} another model "
            f"[{known.fingerprint}]: restore that one, or tune again"
        )
    cast(hf, torch.float32)
    if tokenizer is None and (Path(path) / "tokenizer_config.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    merged = merge_adapter(hf, path).eval()
    if options.adapter is not None and fingerprint is None and Path(own_base).name != Path(base).name:
        warnings.warn(
            f"the adapter in {path!r} names {own_base!r} as its base and is merged into {base!r}: if these are not the same "
            "weights, the result means nothing",
            stacklevel=4,
        )
    return merged, tokenizer if tokenizer is not None else base_tokenizer
