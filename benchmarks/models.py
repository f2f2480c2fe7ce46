"""Qwen2 models with random weights, the same numbers every time, in two shapes."""

import shutil
import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

VOCABULARY = 8192
QWEN_VOCABULARY = 151_936
"""Of Qwen2.5."""
SHAPES: dict[str, dict[str, Any]] = {
    "d256 x 6 layers": {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 1024,
    },
    "the shape of Qwen2.5-0.5B": {
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
    },
}
CASES = (
    ("d256 x 6 layers", torch.float32, VOCABULARY),
    ("the shape of Qwen2.5-0.5B", torch.float32, QWEN_VOCABULARY),
    ("the shape of Qwen2.5-0.5B", torch.bfloat16, QWEN_VOCABULARY),
)
"""Shape, dtype and vocabulary of what is timed on both sides."""
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 0.05}
"""Largest difference of activations of both sides: a bfloat16 number has three digits."""


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def make(folder: Path, shape: str, dtype: torch.dtype = torch.float32, vocabulary: int = VOCABULARY) -> Path:
    """Write a checkpoint; its tokenizer makes a token of each character."""
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocabulary,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=257,
        tie_word_embeddings=True,
        **SHAPES[shape],
    )
    model: Any = Qwen2ForCausalLM(config)
    model.to(dtype).save_pretrained(folder)
    characters().save_pretrained(folder)
    return folder


def characters() -> PreTrainedTokenizerFast:
    """A tokenizer that makes a token of each character."""
    vocabulary = {byte: i for i, byte in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), "<end>", "<pad>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")


def texts(count: int, length: int, seed: int = 0) -> list[str]:
    """Texts of so many random letters each."""
    letters = string.ascii_letters
    picks = torch.randint(len(letters), (count, length), generator=torch.Generator().manual_seed(seed))
    return ["".join(letters[i] for i in row) for row in picks.tolist()]
