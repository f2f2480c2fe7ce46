"""The architectures of the zoo: which config a family has, and a model of it with fresh weights.

The families keep what sets the real ones apart: grouped-query attention everywhere; Qwen2's biases on queries, keys and
values; Llama's plain RMSNorm blocks; Gemma2's norms before and after each part, soft caps on attention scores and logits,
attention over a sliding window in every other block, and scaled embeddings.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONTEXT = 256
"""Tokens that a micro-model can read."""

_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_MEDIUM = {
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_GEMMA = {
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window": 48,
    "tie_word_embeddings": True,
}

SHAPES: Mapping[tuple[str, str], Mapping[str, Any]] = MappingProxyType(
    {
        ("qwen", "s"): _SMALL | {"tie_word_embeddings": True},
        ("qwen", "m"): _MEDIUM | {"tie_word_embeddings": False},
        ("llama", "s"): _SMALL | {"tie_word_embeddings": True},
        ("llama", "m"): _MEDIUM | {"tie_word_embeddings": False},
        ("gemma", "m"): _MEDIUM | _GEMMA,
    }
)
"""(family, size) -> what the config says beyond the architecture's defaults."""

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
        **SHAPES[family, size],
    )
    return AutoModelForCausalLM.from_config(config)
