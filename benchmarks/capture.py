"""Capture of one site in the middle, against a raw PyTorch hook that ends the forward pass there by an exception."""

import contextlib
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

import interp_transfer as it
from benchmarks.measure import Result, ratio
from benchmarks.models import CASES, CLOSE, SHAPES, make, name_of, texts
from interp_transfer.models.tokens import tokenizer_of

TEXTS, LENGTH = {"d256 x 6 layers": 16, "the shape of Qwen2.5-0.5B": 4}, 128


class _Stop(Exception):
    pass


def run(root: Path, repetitions: dict[str, int]) -> list[Result]:
    return [measure(root / "capture", *case, repetitions[case[0]]) for case in CASES]


def measure(folder: Path, shape: str, dtype: torch.dtype, vocabulary: int, n: int) -> Result:
    model = it.load_model(make(folder, shape, dtype, vocabulary), device="cpu")
    tok = tokenizer_of(model)
    raw = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    layer = SHAPES[shape]["num_hidden_layers"] // 2
    site = f"blocks.{layer}.hook_resid_pre"
    prompts = texts(TEXTS[shape], LENGTH)
    read: list[torch.Tensor] = []

    def hook(_: object, args: tuple, kwargs: dict) -> None:
        read.append(args[0] if args else kwargs["hidden_states"])
        raise _Stop

    raw.model.layers[layer].register_forward_pre_hook(hook, with_kwargs=True)

    def theirs() -> torch.Tensor:
        read.clear()
        tokens = torch.tensor(tok(prompts)["input_ids"])
        with torch.no_grad(), contextlib.suppress(_Stop):
            raw(tokens, use_cache=False)
        return read[0].flatten(0, 1)

    def ours() -> torch.Tensor:
        return it.capture(model, prompts, site, progress=False)[site]

    torch.testing.assert_close(ours(), theirs(), atol=CLOSE[dtype], rtol=CLOSE[dtype])
    value, times = ratio(ours, theirs, n)
    shapes = f"{TEXTS[shape]} x {LENGTH} tokens in one batch, no padding, vocabulary {vocabulary}"
    note = f"{shapes}; tokenization inside on both sides; {times}"
    return Result(f"capture of resid_pre {layer}, {shape}, {name_of(dtype)}", value, 1.05, n, note)
