"""Paired collection on a GPU, between models of the shapes of Qwen2.5-1.5B and Llama-3.2-3B with random weights in bfloat16.

Against two raw loops, as on a CPU; beside it tokens in a second, and what share that is of the rate at which the same card
multiplies large matrices.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

import interp_transfer as it
from benchmarks.collection import GOAL, Side, measure
from benchmarks.measure import WALL, Result
from benchmarks.models import VOCABULARY, characters, texts

SHAPES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "Qwen2.5-1.5B": (
        Qwen2Config,
        Qwen2ForCausalLM,
        {
            "hidden_size": 1536,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "intermediate_size": 8960,
        },
    ),
    "Llama-3.2-3B": (
        LlamaConfig,
        LlamaForCausalLM,
        {
            "hidden_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "intermediate_size": 8192,
        },
    ),
}
NAME = f"collection on a GPU, the shapes of {' and '.join(SHAPES)}"
TEXTS, LENGTH, REPETITIONS = 512, 256, 5


def run(root: Path) -> list[Result]:
    if not torch.cuda.is_available():
        return [Result(NAME, None, GOAL, 0, "not run: no GPU")]
    return [collect(root, "cuda")]


def collect(root: Path, device: str, n: int = REPETITIONS) -> Result:
    """Both models, read at the input of their middle blocks."""
    sides = [
        Side(make(root / f"model{i}", shape), SHAPES[shape][2]["num_hidden_layers"] // 2) for i, shape in enumerate(SHAPES)
    ]
    prompts = texts(TEXTS, LENGTH)
    found = measure(sides, prompts, n, NAME, device, torch.bfloat16, WALL)
    source, target = (it.load_model(str(side.folder), device=device, dtype=torch.bfloat16) for side in sides)
    seconds = []
    for _ in range(n):
        start = WALL.now()
        it.collect(source, target, prompts, sides[0].site, sides[1].site, progress=False)  # ends with rows on the CPU
        seconds.append(WALL.now() - start)
    took = sorted(seconds)[n // 2]
    tokens = TEXTS * LENGTH
    needed = tokens * sum(flops(side, shape) for side, shape in zip(sides, SHAPES, strict=True))
    share = needed / took / matmul_rate(device)
    rate = f"{tokens / took:,.0f} tokens/s through both, {share:.0%} of the rate of a bfloat16 matrix product of 8192 x 8192"
    return Result(NAME, found.ratio, GOAL, n, f"{rate}; vocabulary {VOCABULARY}; {found.note}")


def flops(side: Side, shape: str) -> float:
    """Of the matrix products of the blocks that are read through, for a token; attention scores left out."""
    config = SHAPES[shape][2]
    d, heads = config["hidden_size"], config["num_attention_heads"]
    attention = d * d * (2 + 2 * config["num_key_value_heads"] / heads)
    return 2 * side.layer * (attention + 3 * d * config["intermediate_size"])


def matmul_rate(device: str, size: int = 8192, n: int = 20) -> float:
    """Floating-point operations in a second, at best of a few tries."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    torch.matmul(a, b)
    best = 0.0
    for _ in range(5):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(n):
            torch.matmul(a, b)
        synchronize(device)
        best = max(best, 2 * size**3 * n / (time.perf_counter() - start))
    return best


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def make(folder: Path, shape: str) -> Path:
    """Write a checkpoint; its tokenizer makes a token of each character."""
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    config, model, sizes = SHAPES[shape]
    specials: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 257, "tie_word_embeddings": True}
    made = model(config(vocab_size=VOCABULARY, max_position_embeddings=1024, dtype=torch.bfloat16, **specials, **sizes))
    made.to(torch.bfloat16).save_pretrained(folder)
    characters().save_pretrained(folder)
    return folder
