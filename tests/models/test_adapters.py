"""Adapters of peft from anywhere: in a folder, named next to a base, and in memory; each with its own base only."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

import interp_transfer as it
from tests.checkpoints import TEXTS, byte_tokenizer, make_checkpoint, raw_model, raw_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # said to peft
SITE = "blocks.2.hook_resid_pre"


def adapted(base: Path, config: peft.PeftConfig | None = None, dtype: torch.dtype = torch.float32) -> Any:
    """A base with an adapter whose weights are all random, so that it changes the model."""
    torch.manual_seed(1)
    plain = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(raw_model(base, dtype=dtype), config or plain)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    return model.eval()


@pytest.fixture
def saved(folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """An adapter of the tiny Qwen2, as peft saves it."""
    adapted(folder("qwen2")).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def rows(model: Any) -> torch.Tensor:
    return it.capture(model, TEXTS, [SITE])[SITE].float()


def test_three_ways_to_the_same_merged_model(folder: Callable[[str], Path], saved: Path) -> None:
    base = folder("qwen2")
    by_folder = it.load_model(saved, device="cpu")
    named = it.load_model(base, adapter=saved, device="cpu")
    in_memory = it.load_model(adapted(base), tokenizer=raw_tokenizer(base))
    assert it.identity(by_folder).fingerprint == it.identity(named).fingerprint == it.identity(in_memory).fingerprint
    assert it.identity(named).fingerprint != it.identity(it.load_model(base, device="cpu")).fingerprint
    plain = adapted(base)
    with torch.no_grad():
        ids = torch.tensor([byte_tokenizer()(TEXTS[1])["input_ids"]])
        torch.testing.assert_close(named(ids), plain(ids).logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rows(named), rows(in_memory))
    assert not torch.allclose(rows(named), rows(it.load_model(base, device="cpu")), atol=1e-2)


def test_the_dtype_is_the_bases(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", "qwen2", dtype=torch.bfloat16)
    adapted(base).save_pretrained(tmp_path / "adapter")
    assert it.load_model(tmp_path / "adapter", device="cpu").cfg.dtype == torch.bfloat16
    exact = it.load_model(tmp_path / "adapter", device="cpu", dtype="float32")
    with torch.no_grad():  # merged in float32: rounding to bfloat16 on the way would show here
        ids = torch.tensor([byte_tokenizer()(TEXTS[1])["input_ids"]])
        torch.testing.assert_close(exact(ids), adapted(base)(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("layers", "what"), [(2, "fewer"), (6, "more")])
def test_an_adapter_of_another_base(layers: int, what: str, saved: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / what, "qwen2", num_hidden_layers=layers)
    with pytest.raises(ValueError, match="was made for another base: '.*lora_A.*' is in only one of the two") as error:
        it.load_model(other, adapter=saved)
    assert "\n" not in str(error.value)


def test_an_adapter_of_a_wider_base_or_another_family(saved: Path, folder: Callable[[str], Path], tmp_path: Path) -> None:
    wide = make_checkpoint(tmp_path / "wide", "qwen2", hidden_size=32)
    for other in (wide, folder("gpt2")):
        with pytest.raises(ValueError, match="cannot load the adapter in") as error:
            it.load_model(other, adapter=saved)
        assert "\n" not in str(error.value)


def test_what_is_no_adapter(folder: Callable[[str], Path], saved: Path) -> None:
    base = folder("qwen2")
    with pytest.raises(ValueError, match="holds no adapter_config.json"):
        it.load_model(base, adapter=base)
    with pytest.raises(ValueError, match="'./none' holds no adapter_config.json"):
        it.load_model(base, adapter="./none")
    with pytest.raises(ValueError, match="the adapter 'nobody/none' is no folder, and the hub did not provide it"):
        it.load_model(base, adapter="nobody/none")
    weights = saved / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot load the adapter in"):
        it.load_model(base, adapter=saved)


def test_a_tuned_prompt_cannot_be_merged(folder: Callable[[str], Path], tmp_path: Path) -> None:
    config = peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    model = peft.get_peft_model(raw_model(folder("llama")), config)
    with pytest.raises(ValueError, match="an adapter of type PROMPT_TUNING changes no weights and cannot be merged"):
        it.load_model(model, tokenizer=byte_tokenizer())
    model.save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match="an adapter of type PROMPT_TUNING changes no weights"):
        it.load_model(tmp_path)


def test_another_base_of_the_same_shape_is_named(saved: Path, folder: Callable[[str], Path], tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "another", "qwen2", seed=5)
    with pytest.warns(UserWarning, match=r"names '.*qwen2' as its base and is merged into '.*another'"):
        it.load_model(other, adapter=saved, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        it.load_model(folder("qwen2"), adapter=saved, device="cpu")
