"""LoRA adapters, by peft: train a low-rank correction of each matrix instead of the matrix (Hu et al. 2021).

peft is an optional dependency, imported where it is used. An adapter is a folder with `adapter_config.json`, which names
its base; `load_model` loads the base and merges the two, so the wrapped model is an ordinary one.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typeguard import TypeCheckError, check_type

from interp_transfer.extras import require
from interp_transfer.names import first_line

_CONFIG = "adapter_config.json"
# What an adapter's file may hold besides corrections.
_EMBEDDINGS = (
    "embed_tokens.weight",
    "lm_head.weight",
    "wte.weight",
    "embed_in.weight",
    "embed_out.weight",
)


@dataclass(frozen=True)
class Lora:
    """A low-rank correction of every linear layer but the unembedding, in all blocks or the later ones.

    Attributes:
        rank: of each correction.
        alpha: the correction is scaled by alpha / rank.
        merge: write the whole model with the corrections added to its weights; otherwise the adapter alone, which needs its
            base.
        first_block: blocks before this one are left as they are. No gradient goes through them, which saves time.
    """

    rank: int = 16
    alpha: float | int = 32.0
    merge: bool = True
    first_block: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(f"rank={self.rank}, alpha={self.alpha}: give a rank of 1 or more and an alpha above zero")
        if self.first_block < 0:
            raise ValueError(f"first_block={self.first_block}: give the number of a block, 0 for all of them")

    def __str__(self) -> str:
        blocks = f", blocks from {self.first_block} on" if self.first_block else ""
        return f"rank {self.rank}, alpha {self.alpha}{blocks}"


def require_peft() -> Any:
    """Import peft, which is an optional dependency."""
    return require("peft", "lora", "LoRA")


def adapt(model: Any, lora: Lora, seed: int) -> Any:
    """Add corrections, initially zero, to a model in place; the corrections alone are trained."""
    import torch
    from transformers.pytorch_utils import Conv1D

    peft = require_peft()
    count = model.config.get_text_config().num_hidden_layers
    if lora.first_block >= count:
        raise ValueError(f"first_block={lora.first_block}: the model has blocks 0 to {count - 1}")
    before = "|".join(map(str, range(lora.first_block)))
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules="all-linear",
        exclude_modules=rf".*\.(?:layers|h)\.(?:{before})\..*" if before else None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2 stores matrices transposed
        task_type="CAUSAL_LM",
    )
    with quiet_peft():
        return peft.get_peft_model(model, config)


def save_adapter(adapted: Any, folder: Path, base: str) -> None:
    """Write the adapter alone.

    Args:
        adapted: the trained result of `adapt`.
        folder: the folder to write.
        base: name or path of its base, for `load_model`.
    """
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft writes an empty model card
    file = folder / _CONFIG
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": base}, indent=2) + "\n")


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter."""
    return (Path(folder) / _CONFIG).is_file()


def adapter_folder(adapter: str | Path) -> Path:
    """The folder of an adapter: itself, or the copy of a hub repository in the hub's cache.

    Raises:
        ValueError: if there is none, or it holds no adapter.
    """
    folder = Path(adapter).expanduser()
    if not folder.exists() and not str(adapter).startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        try:
            folder = Path(snapshot_download(str(adapter), allow_patterns=["adapter_*", "tokenizer*", "special_tokens*"]))
        except (OSError, HfHubHTTPError, HFValidationError) as error:
            raise ValueError(
                f"the adapter {str(adapter)!r} is no folder, and the hub did not provide it ({first_line(error)}): give the "
                "folder of one"
            ) from error
    if not is_adapter(folder):
        raise ValueError(f"{str(adapter)!r} holds no {_CONFIG}: give the folder that peft's save_pretrained wrote")
    return folder


def base_of(folder: str | Path) -> tuple[str, str | None]:
    """The name or path of an adapter's base, and the base's fingerprint if `training.json` records it.

    Raises:
        ValueError: for a damaged config, or one that names no base.
    """
    base = _read(Path(folder) / _CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ValueError(
            f"{_CONFIG} in {str(folder)!r} says base_model_name_or_path={base!r}: expected the name or path of its base"
        )
    card = Path(folder) / "training.json"
    if not card.is_file():
        return base, None
    try:
        return base, check_type(_read(card).get("base"), dict[str, str])["fingerprint"]
    except (TypeCheckError, KeyError) as error:
        raise ValueError(f"{str(card)!r} does not record the base's fingerprint: restore it, or remove it") from error


def merge_adapter(model: Any, folder: str | Path) -> Any:
    """Add an adapter's corrections to a model's weights, in place.

    Raises:
        ValueError: for an adapter that does not fit the model in every weight, or has no corrections of weights.
    """
    from safetensors import SafetensorError

    peft = require_peft()
    try:
        with quiet_peft():
            warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)  # compared below
            adapted = peft.PeftModel.from_pretrained(model, str(folder))
            stored, own = (
                {name for name in names if not name.endswith(_EMBEDDINGS)}
                for names in (
                    peft.utils.load_peft_weights(str(folder), device="cpu"),
                    peft.get_peft_model_state_dict(adapted, save_embedding_layers=False),
                )
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ValueError(f"cannot load the adapter in {str(folder)!r}: {first_line(error)}") from error
    if stored != own:
        raise ValueError(
            f"the adapter in {str(folder)!r} was made for another base: {min(stored ^ own)!r} is in only one of the two; load "
            "it with its own base"
        )
    return merged(adapted)


def merged(model: Any) -> Any:
    """A model with its adapter of peft added to the weights, in place; a model without one, unchanged.

    Raises:
        ValueError: for an adapter that changes no weights, such as a tuned prompt.
    """
    peft = sys.modules.get("peft")  # an object of peft cannot exist before its import
    if peft is None or not isinstance(model, peft.PeftModel):
        return model
    from torch import nn

    if model.active_peft_config.is_prompt_learning:
        kind = model.active_peft_config.peft_type.value
        raise ValueError(f"an adapter of type {kind} changes no weights and cannot be merged: give one like LORA that does")
    for module in model.modules():
        if any(getattr(module, "lora_bias", {}).values()) and module.base_layer.bias is None:  # peft merges no bias into none
            weight = module.base_layer.weight
            module.base_layer.bias = nn.Parameter(weight.new_zeros(module.out_features), requires_grad=False)
    with quiet_peft():
        return model.merge_and_unload()


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Silence, inside the block, warnings about peft's own calls, and those about biases of corrections."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".lora_bias=True. was passed", UserWarning)  # `merged` adds the bias that is missing
        warnings.filterwarnings("ignore", r"Adapter .* have invalid shape: .*lora_B\.bias", UserWarning)  # a bias has one axis
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
        yield


def _read(file: Path) -> dict[str, Any]:
    try:
        return check_type(json.loads(file.read_text()), dict[str, Any])
    except (ValueError, TypeCheckError) as error:
        raise ValueError(f"{str(file)!r} holds no JSON object: {error}") from error
