"""LoRA adapters, by peft: train a low-rank correction of each matrix instead of the matrix (Hu et al. 2021).

peft is an optional dependency, imported where it is used. An adapter is a folder with `adapter_config.json`, which names
its base; `load_model` loads the base and merges the two, so the wrapped model is an ordinary one.
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typeguard import TypeCheckError, check_type

from interp_transfer.extras import require

_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Lora:
    """A low-rank correction of every linear layer but the unembedding.

    Attributes:
        rank: of each correction.
        alpha: the correction is scaled by alpha / rank.
        merge: write the whole model with the corrections added to its weights; otherwise the adapter alone, which needs its
            base.
    """

    rank: int = 16
    alpha: float | int = 32.0
    merge: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(f"rank={self.rank}, alpha={self.alpha}: give a rank of 1 or more and an alpha above zero")


def require_peft() -> Any:
    """Import peft, which is an optional dependency."""
    return require("peft", "lora", "LoRA")


def adapt(model: Any, lora: Lora, seed: int) -> Any:
    """Add corrections, initially zero, to a model in place; the corrections alone are trained."""
    import torch
    from transformers.pytorch_utils import Conv1D

    peft = require_peft()
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules="all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2 stores matrices transposed
        task_type="CAUSAL_LM",
    )
    with _without_deprecations():
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


def base_of(folder: str | Path) -> tuple[str, str | None]:
    """The name or path of an adapter's base, and the base's fingerprint if `training.json` records it.

    Raises:
        ValueError: for a damaged config or another kind of adapter.
    """
    config = _read(Path(folder) / _CONFIG)
    kind, base = config.get("peft_type"), config.get("base_model_name_or_path")
    if kind != "LORA" or not isinstance(base, str) or not base:
        raise ValueError(
            f"{_CONFIG} in {str(folder)!r} says peft_type={kind!r}, base_model_name_or_path={base!r}: expected a 'LORA' "
            "adapter with the name or path of its base"
        )
    card = Path(folder) / "training.json"
    if not card.is_file():
        return base, None
    try:
        return base, check_type(_read(card).get("base"), dict[str, str])["fingerprint"]
    except (TypeCheckError, KeyError) as error:
        raise ValueError(f"{str(card)!r} does not record the base's fingerprint: restore it, or remove it") from error


def merge_adapter(model: Any, folder: str | Path) -> Any:
    """Add an adapter's corrections to a model's weights, in place."""
    peft = require_peft()
    try:
        with _without_deprecations():
            return peft.PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"cannot load the adapter in {str(folder)!r}: {first}") from error


@contextmanager
def _without_deprecations() -> Iterator[None]:
    with warnings.catch_warnings():  # transformers' warnings about peft's own calls
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
        yield


def _read(file: Path) -> dict[str, Any]:
    try:
        return check_type(json.loads(file.read_text()), dict[str, Any])
    except (ValueError, TypeCheckError) as error:
        raise ValueError(f"{str(file)!r} holds no JSON object: {error}") from error
