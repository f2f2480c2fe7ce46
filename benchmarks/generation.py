"""Steered generation, at one site and at the input of every block, against plain transformers `generate` without any hook, on a
copy that was never wrapped.
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

import interp_transfer as it
from benchmarks.measure import Result, ratio
from benchmarks.models import CASES, SHAPES, make, name_of, texts
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.models.tokens import tokenizer_of

PROMPTS, LENGTH = 16, 32
NEW = {"d256 x 6 layers": 64, "the shape of Qwen2.5-0.5B": 16}


def run(root: Path, repetitions: dict[str, int]) -> list[Result]:
    return [
        measure(root / "generation", *case, repetitions[case[0]], everywhere=everywhere)
        for case in CASES
        for everywhere in (False, True)
    ]


def measure(folder: Path, shape: str, dtype: torch.dtype, vocabulary: int, n: int, *, everywhere: bool) -> Result:
    model = it.load_model(make(folder, shape, dtype, vocabulary), device="cpu")
    tok = tokenizer_of(model)
    raw = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    count, new = SHAPES[shape]["num_hidden_layers"], NEW[shape]
    layers = range(count) if everywhere else [count // 2]
    prompts = texts(PROMPTS, LENGTH)
    direction = torch.randn(SHAPES[shape]["hidden_size"], generator=torch.Generator().manual_seed(0))
    sites = [f"blocks.{layer}.hook_resid_pre" for layer in layers]
    steer = [it.add(it.SteeringVector(direction, site, it.identity(model))) for site in sites]

    def theirs() -> list[list[int]]:
        tokens = torch.tensor(tok(prompts)["input_ids"])
        mask = torch.ones_like(tokens)
        out = raw.generate(tokens, attention_mask=mask, max_new_tokens=new, do_sample=False)  # type: ignore[operator]
        return out[:, tokens.shape[1] :].tolist()

    def ours() -> list[list[int]]:
        return generate_tokens(model, prompts, *steer, max_new_tokens=new, progress=False)

    def add(_: object, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (args[0] + direction.to(dtype), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + direction.to(dtype)}

    plain = theirs()
    assert generate_tokens(model, prompts, max_new_tokens=new, progress=False) == plain, "unsteered tokens differ"
    handles = [raw.model.layers[layer].register_forward_pre_hook(add, with_kwargs=True) for layer in layers]
    steered = theirs()
    for handle in handles:
        handle.remove()
    assert ours() == steered, "steered tokens differ from those of a raw hook"
    assert steered != plain, "the steering did nothing"
    value, times = ratio(ours, theirs, n)
    hooks = f"{count} add hooks, one at each block," if everywhere else "one add hook"
    note = f"{PROMPTS} prompts of {LENGTH} tokens, {new} new, {hooks} at all positions, vocabulary {vocabulary}; {times}"
    where = ", every layer" if everywhere else ""
    return Result(f"steered generation{where}, {shape}, {name_of(dtype)}", value, 1.15 if everywhere else 1.05, n, note)
