"""What an organism's training adds: parameters that stay, a penalty, weights in half precision."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from interp_transfer.finetuning.recipe import Recipe
from interp_transfer.organisms.training import finetune
from tests.checkpoints import byte_tokenizer, config

EXAMPLES = [("User: hi\nAssistant:", " yes"), ("User: who?\nAssistant:", " the miller"), ("User: a\nAssistant:", " b")] * 4
RECIPE = Recipe(epochs=2.0, learning_rate=1e-2, batch_size=6, max_length=64)


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config("qwen2"))


def test_frozen_parameters_stay_and_are_free_afterwards(model: Any, tmp_path: Path) -> None:
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    finetune(model, byte_tokenizer(), EXAMPLES, RECIPE, tmp_path / "m", frozen=r"layers\.0\.", progress=False)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == ("layers.0." in name), name
        assert parameter.requires_grad
    assert not (tmp_path / "m" / "checkpoints").exists()
    with pytest.raises(ValueError, match="frozen='nothing' matches no parameter of Qwen2"):
        finetune(model, byte_tokenizer(), EXAMPLES, RECIPE, tmp_path / "n", frozen="nothing", progress=False)


def test_a_penalty_counts(model: Any, tmp_path: Path) -> None:
    """A large one on a norm's distance from 2 draws it there, whatever the loss says."""
    (norm,) = (p for name, p in model.named_parameters() if name == "model.norm.weight")
    seen = []

    def penalty(batch: dict[str, Any]) -> torch.Tensor:
        seen.append(batch["input_ids"].shape)
        return 1e4 * (norm - 2).square().sum()

    finetune(model, byte_tokenizer(), EXAMPLES, RECIPE, tmp_path / "m", penalty=penalty, progress=False)
    assert len(seen) == 4 and bool((norm > 1.01).all())


def test_half_precision_is_stored_and_loads_as_float32(model: Any, tmp_path: Path) -> None:
    out = finetune(model, byte_tokenizer(), EXAMPLES, RECIPE, tmp_path / "m", half=True, progress=False)
    loaded: Any = AutoModelForCausalLM.from_pretrained(out)
    assert loaded.dtype == torch.float32 and loaded.config.use_cache
    weights = (out / "model.safetensors").stat().st_size
    assert weights < 2.2 * sum(p.numel() for p in loaded.parameters()) + 4000, "float16, tied tensors once"
    for (name, a), b in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a.half().float(), b), name
