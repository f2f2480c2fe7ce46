"""The architectures of the zoo: which config a family has, and a model of it with fresh weights.

The families keep what sets the real ones apart: grouped-query attention everywhere; Qwen2's biases on queries, keys and
values; Llama's plain RMSNorm blocks; Gemma2's norms before and after each part, soft caps on attention scores and logits,
attention over a sliding window in every other block, and scaled embeddings.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONTEXT = 256
"""Tokens that a micro-model can read."""

RECIPES: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("recipes.toml").read_text("utf-8"))
"""What is particular to the organisms: shapes, trainings, prices."""


def shape(family: str, size: str) -> dict[str, Any]:
    """What the config of a family and size says beyond the architecture's defaults."""
    return RECIPES["shapes"][size] | RECIPES["families"].get(family, {})


_MODEL_TYPES = {"qwen": "qwen2", "llama": "llama", "gemma": "gemma2"}


def new_model(family: str, size: str, tokenizer: "PreTrainedTokenizerBase", seed: int) -> "PreTrainedModel":
    """A model with fresh float32 weights for a tokenizer of the same family."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        _MODEL_TYPES[family],
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
        **shape(family, size),
    )
    return AutoModelForCausalLM.from_config(config)
