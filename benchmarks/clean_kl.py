"""Clean KL of eight conditions at one block, at the real vocabulary of Qwen2.5, against the bare loop: the unsteered model
once, then a full forward pass by a raw hook for each condition, on a copy that was never wrapped.
"""

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import interp_transfer as it
from benchmarks.measure import Result, ratio
from benchmarks.models import QWEN_VOCABULARY, SHAPES, make
from interp_transfer.interventions.predictions import teacher_forced_each

SHAPE = "the shape of Qwen2.5-0.5B"
BLOCK, CONDITIONS, TEXTS, PROMPT, ANSWER = 16, 8, 8, 48, 32
CLOSE = {torch.float32: 1e-3, torch.bfloat16: 0.05}
"""Relative difference of the figures of both ways: a bfloat16 logit has three digits."""


def run(root: Path) -> list[Result]:
    return [measure(root / "clean-kl", dtype) for dtype in (torch.float32, torch.bfloat16)]


@torch.no_grad()
def measure(folder: Path, dtype: torch.dtype, n: int = 3) -> Result:
    model = it.load_model(make(folder, SHAPE, dtype, QWEN_VOCABULARY), device="cpu", dtype=dtype)
    raw = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(QWEN_VOCABULARY, (TEXTS, PROMPT + ANSWER), generator=generator)
    directions = torch.randn(CONDITIONS, SHAPES[SHAPE]["hidden_size"], generator=generator)
    site = f"blocks.{BLOCK}.hook_resid_pre"
    settings = [(it.add(it.SteeringVector(direction, site, it.identity(model))),) for direction in directions]
    prompts, answers = tokens[:, :PROMPT].tolist(), tokens[:, PROMPT:].tolist()

    def predictions() -> Tensor:
        return raw(tokens, use_cache=False).logits[:, PROMPT - 1 : -1].float().log_softmax(dim=-1)

    def theirs() -> list[Tensor]:
        before, figures = predictions(), []
        for direction in directions:
            add = lambda _, args, direction=direction: (args[0] + direction.to(dtype), *args[1:])  # noqa: E731
            handle = raw.model.layers[BLOCK].register_forward_pre_hook(add)
            after = predictions()
            handle.remove()
            figures.append((before.exp() * (before - after)).sum(dim=-1).mean(dim=1))
        return figures

    def ours() -> list[Tensor]:
        return [each.kl for each in teacher_forced_each(model, prompts, answers, settings)]

    assert torch.allclose(torch.stack(ours()), torch.stack(theirs()), rtol=CLOSE[dtype], atol=1e-4), "the figures differ"
    value, times = ratio(ours, theirs, n)
    note = f"{TEXTS} texts, prompts of {PROMPT} tokens, answers of {ANSWER}, vocabulary {QWEN_VOCABULARY}, block {BLOCK} of 24"
    name = f"clean KL of {CONDITIONS} conditions, {SHAPE}, {str(dtype).removeprefix('torch.')}"
    return Result(name, value, 1 / 3, n, f"{note}; {times}")
