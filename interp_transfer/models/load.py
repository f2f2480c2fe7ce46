"""The one place that loads models.

A registered name, a hub name and a local folder take the same path: transformers loads, transformer-lens wraps, nothing
processes the weights (folding norms would move the residual stream, and with it every vector and mapper). A model that the
user wrapped, bridge or ``HookedTransformer``, is taken as it is.

Each model has an identity: a name and a fingerprint. The fingerprint hashes the configuration, the tokenizer and sampled
values of each weight in its stored dtype, so that the same checkpoint loaded in another dtype keeps its fingerprint, while
a fine-tune of it does not. Vectors and mappers carry it and refuse other models.
"""

import difflib
import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_transfer.models.adapters import base_of, is_adapter, merge_adapter
from interp_transfer.models.sites import HookedModel
from interp_transfer.names import meant
from interp_transfer.plugins import known_model, known_models

WRAPPERS = ("bridge", "hooked_transformer")

SAMPLES_PER_TENSOR = 64
FLOAT32_COUNTS_TO = 2**24
"""Values of each weight that enter the fingerprint, evenly spread."""

# How a checkpoint was loaded and is run, not what it is.
BAR_FROM_BYTES = 200_000_000
"""Local weights from this size on are loaded with a progress bar."""

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
        model: the name of a known model (``plugins``), a local folder (of a model, or of a LoRA adapter), a hub name, or a
            model wrapped already.
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
        raise ValueError(
            f"cannot load a {type(model).__name__}: give the name of a known model, a hub name, a folder or a hooked model"
        )
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
    fingerprint = _digest(_config_of(hf.config), _tokenizer_hash(tok), _weights(hf), "none")
    return hf, tok, ModelIdentity(str(model), fingerprint)


def identity(model: HookedModel) -> ModelIdentity:
    """The identity of a wrapped model; computed at the first call for models wrapped elsewhere.

    A bridge whose weights were processed since (``enable_compatibility_mode()``) has become another model.
    """
    known = _LOADED.get(model)
    if known is None or (known.identity.processing == "none" and _processed(model)):
        tok = known.tokenizer if known else None
        _remember(model, _fingerprint_wrapped(model, tok), tok)
    return _LOADED[model].identity


def tokenizer_of(model: HookedModel) -> Any:
    """The tokenizer that turns texts into this model's tokens.

    For models loaded here it is the checkpoint's own, as transformers loads it: the wrapper's copy may have been told to
    prepend a BOS that the checkpoint's own tokenizer does not add.
    """
    known = _LOADED.get(model)
    tok = known.tokenizer if known and known.tokenizer is not None else model.tokenizer
    if tok is None:
        raise ValueError("this model has no tokenizer: wrap it with one, or use load_model(model, tokenizer=...)")
    return tok


class TextTooLong(ValueError):
    """A text has more tokens than the model can read at once."""


def tokenize(model: HookedModel, texts: Sequence[str], *, first_text: int = 0, any_length: bool = False) -> list[list[int]]:
    """Token ids of each text, as the model's own tokenizer makes them by default, without padding.

    A text that already begins (or ends) with the special token that the tokenizer adds does not get it twice.

    Args:
        model: any hooked model.
        texts: plain texts.
        first_text: what errors call the first of them.
        any_length: return texts beyond the model's context too, instead of refusing them.

    Raises:
        ValueError: for a text that is not a string or has no tokens, or (as `TextTooLong`) that exceeds the model's context.
    """
    tok = tokenizer_of(model)
    bad = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
    if bad is not None:
        raise ValueError(f"text {first_text + bad} is a {type(texts[bad]).__name__}, not a string: give a list of strings")
    if not len(texts):
        return []
    rows = without_doubles([list(ids) for ids in tok(list(texts), verbose=False)["input_ids"]], tok)
    limit = context_length(model)
    for index, (ids, text) in enumerate(zip(rows, texts, strict=True), first_text):
        if not ids:
            raise ValueError(f"text {index} ({text!r}) has no tokens: leave it out")
        if len(ids) > limit and not any_length:
            raise TextTooLong(f"text {index} has {len(ids)} tokens, the model's context is {limit}: shorten or split it")
    return rows


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


def _remember(model: HookedModel, known: ModelIdentity, tok: Any) -> None:
    _LOADED[model] = _Loaded(known, tok)


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


def without_doubles(rows: list[list[int]], tok: Any) -> list[list[int]]:
    """Token ids less the special token that a text held already and that the tokenizer then put beside it."""
    # Only what the tokenizer adds by itself can be there twice: without that, a doubled token is the text's own.
    some = tok("a", verbose=False)["input_ids"]
    first = some[0] if len(some) > 1 and some[0] == tok.bos_token_id else None
    last = some[-1] if len(some) > 1 and some[-1] == tok.eos_token_id else None
    rows = [ids[1:] if first is not None and ids[:2] == [first, first] else ids for ids in rows]
    return [ids[:-1] if last is not None and ids[-2:] == [last, last] else ids for ids in rows]


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


def tokenizer_fingerprint(model: HookedModel) -> str:
    """A hash that two models share exactly if they turn every text into the same tokens."""
    return _tokenizer_hash(tokenizer_of(model), specials=True)[:16]


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
