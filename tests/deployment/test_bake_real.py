"""Real models with vectors in their weights, in plain transformers and as the hooks steer them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import interp_transfer as it
from interp_transfer.models.sources import source_of

pytestmark = [pytest.mark.real, pytest.mark.slow]
PLACES = ("Oslo", "Rome", "Lima", "Cairo", "Delhi", "Paris", "Quito", "Kyoto")
PROMPTS = (
    "The weather today is",
    "Once upon a time",
    "The capital of France is",
    "My favourite food is",
    "In the morning I like to",
    "The best way to learn is",
    "A cat and a dog",
    "She opened the door and",
    "The history of Rome begins",
    "To bake bread you need",
    "Yesterday the president said",
    "The train to London was",
    "If I were rich I would",
    "Two plus two is",
    "The doctor told me to",
    "On the moon there is",
)
NEW = 32


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("smollm2-135m-instruct", "addition"),
        ("smollm2-135m-instruct", "ablation"),
        ("qwen2.5-coder-0.5b-instruct", "addition"),
    ],
)
def test_plain_transformers_gives_the_steered_tokens(tmp_path: Path, name: str, kind: str) -> None:
    """In float32, 32 greedy tokens of each of 16 prompts; Qwen2 is written as a Llama, which has the bias."""
    if not source_of(name).folder.is_dir():
        pytest.skip(f"{name} is not in the cache: interp-transfer models get {name}")
    model: Any = it.load_model(name, dtype="float32", device="cpu")
    pairs = [(f"In {place} it is sunny and hot today.", f"In {place} it is cold and snowy today.") for place in PLACES]
    vector = it.extract(model, pairs, f"blocks.{int(model.cfg.n_layers) // 2}.hook_resid_pre", progress=False)
    steer = vector.add(2.0) if kind == "addition" else vector.ablate(everywhere=True)
    baked = it.bake(model, steer, tmp_path / "out")
    assert baked.architecture == "LlamaForCausalLM" and baked.difference < 1e-5
    expected = it.generate(model, PROMPTS, steer, max_new_tokens=NEW, progress=False)
    assert expected != it.generate(model, PROMPTS, max_new_tokens=NEW, progress=False)
    del model
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "out", padding_side="left")
    inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    with torch.no_grad():
        out = plain.generate(**inputs, max_new_tokens=NEW, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    assert tokenizer.batch_decode(out, skip_special_tokens=True) == expected


def test_rounding_in_bfloat16_is_no_reason_to_refuse(tmp_path: Path) -> None:
    if not source_of("smollm2-135m-instruct").folder.is_dir():
        pytest.skip("smollm2-135m-instruct is not in the cache: interp-transfer models get smollm2-135m-instruct")
    model: Any = it.load_model("smollm2-135m-instruct", dtype="bfloat16", device="cpu")
    pairs = [(f"In {place} it is sunny and hot today.", f"In {place} it is cold and snowy today.") for place in PLACES]
    vector = it.extract(model, pairs, "blocks.15.hook_resid_pre", progress=False)
    assert it.bake(model, vector.ablate(everywhere=True), tmp_path / "out").difference < 0.03
    assert model.original_model.dtype == torch.bfloat16
