"""Table of architectures: what of the toolkit is right on each, tried on tiny models with random weights.

    python examples/architectures.py docs/made/architectures.md

A column says "yes" where figures agree within 1e-4 of their size, or tokens are equal.
"""

import copy
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import interp_transfer as it
from interp_transfer.activations.capture import forward
from interp_transfer.deployment.llama_cpp import outcome
from interp_transfer.io import atomic_write
from interp_transfer.models.hooked_transformer import as_hooked_transformer
from interp_transfer.models.identity import wrapper_check

WIDTH, LAYERS, NEW = 16, 4, 4
TEXTS = ["the cat sat on a mat, far from home", "x", "a dog: 12"]
SITES = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
GROUPED = {"num_key_value_heads": 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
}
LATENT = {
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 4,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "first_k_dense_replace": 1,
}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 2, "long_factor": [4.0, 9.0]}
"""Factors for the two frequencies of heads of four dimensions."""

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "llama4_text": {**GROUPED, "head_dim": 4, "num_local_experts": 4, "intermediate_size_mlp": 32},
    "mistral": {**GROUPED, "sliding_window": 4},
    "ministral3": {**GROUPED, "head_dim": 4},
    "mixtral": {**GROUPED, "num_local_experts": 4},
    "qwen2": GROUPED,
    "qwen2_moe": {**GROUPED, **EXPERTS},
    "qwen3": {**GROUPED, "head_dim": 4},
    "qwen3_moe": {**GROUPED, "head_dim": 4, **EXPERTS},
    "qwen3_next": {**GROUPED, **EXPERTS, **LINEAR, "head_dim": 4},
    "qwen3_5_text": {**GROUPED, **LINEAR, "head_dim": 4},
    "qwen3_5_moe_text": {**GROUPED, **EXPERTS, **LINEAR, "head_dim": 4},
    "gemma": {**GROUPED, "head_dim": 4},
    "gemma2": {**GROUPED, "head_dim": 4, "query_pre_attn_scalar": 3, "attn_logit_softcapping": 2.0, "sliding_window": 4},
    "gemma3_text": {**GROUPED, "head_dim": 4, "num_hidden_layers": 6},
    "gemma4_text": {
        **GROUPED,
        "head_dim": 4,
        "global_head_dim": 4,
        "num_kv_shared_layers": 0,
        "vocab_size_per_layer_input": 300,
        "hidden_size_per_layer_input": 4,
    },
    "gpt2": {},
    "gpt_neox": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    "gptj": {"rotary_dim": 4},
    "gpt_oss": {**GROUPED, "head_dim": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "olmo3": GROUPED,
    "olmo_hybrid": GROUPED,
    "olmoe": {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2},
    "phi": {},
    "phi3": {**GROUPED, "original_max_position_embeddings": 48, "rope_parameters": {**LONGROPE, "partial_rotary_factor": 1.0}},
    "granite": {**GROUPED, "residual_multiplier": 0.5},
    "granitemoe": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "residual_multiplier": 0.5},
    "glm4": {**GROUPED, "head_dim": 4},
    "glm4_moe": {**GROUPED, "head_dim": 4, **EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1},
    "smollm3": GROUPED,
    "starcoder2": GROUPED,
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": WIDTH},
    "bloom": {},
    "falcon": {"alibi": False, "new_decoder_architecture": False, "multi_query": False, "parallel_attn": True},
    "falcon_h1": {
        **GROUPED,
        "head_dim": 4,
        "mamba_d_ssm": 16,
        "mamba_n_heads": 4,
        "mamba_d_head": 4,
        "mamba_n_groups": 1,
        "mamba_d_state": 4,
        "mamba_chunk_size": 8,
    },
    "hunyuan_v1_dense": {**GROUPED, "head_dim": 4},
    "cohere": GROUPED,
    "cohere2": {**GROUPED, "head_dim": 4, "sliding_window": 4},
    "deepseek_v2": LATENT,
    "deepseek_v3": {**LATENT, "n_group": 1, "topk_group": 1},
    "ernie4_5": {**GROUPED, "head_dim": 4},
    "exaone4": {**GROUPED, "head_dim": 4, "sliding_window": 4},
    "seed_oss": {**GROUPED, "head_dim": 4},
    "minimax_m2": {**GROUPED, "head_dim": 4, "num_local_experts": 4, "num_experts_per_tok": 2},
    "nemotron": {**GROUPED, "head_dim": 4},
    "nemotron_h": {**GROUPED, "head_dim": 4},
    "lfm2": GROUPED,
    "apertus": GROUPED,
    "stablelm": GROUPED,
}
"""Changes to a tiny configuration, by model type."""
VARIANTS = {
    "falcon, ALiBi": (
        "falcon",
        {"alibi": True, "new_decoder_architecture": False, "multi_query": False, "parallel_attn": False},
    ),
    "gpt2, unscaled": ("gpt2", {"scale_attn_weights": False}),
    "gemma3, bidirectional": ("gemma3_text", {**GROUPED, "head_dim": 4, "use_bidirectional_attention": True}),
    "mamba": ("mamba", {"num_attention_heads": None}),
    "bert": ("bert", {"is_decoder": False}),
    "phimoe": ("phimoe", {**GROUPED, "num_local_experts": 4}),
    "granite_swa": ("granite_swa", GROUPED),
    "kimi_linear": ("kimi_linear", {}),
}
"""What is refused: model type and changes, by name."""


HEADS = {
    "sites": "sites in blocks",
    "sum": "attention and MLP add up",
    "capture": "captured as transformers",
    "cache": "steered with a cache as without",
    "batch": "in a batch as alone",
    "ablation": "ablation everywhere",
    "transformer": "HookedTransformer",
    "llama_cpp": "llama.cpp's control vector",
}
"""Columns of the table."""


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: i for i, letter in enumerate(["<|end|>", "<|pad|>", *alphabet])}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", pad_token="<|pad|>")  # noqa: S106


def tiny(kind: str, **changes: Any) -> Any:
    """A transformers model of a type, with random weights of a large spread, so that two computations differ visibly."""
    torch.manual_seed(0)
    plain = {
        "vocab_size": 300,
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 96,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**plain, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms and biases, which at their initial 1 and 0 would hide mistakes
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def row(kind: str, changes: dict[str, Any]) -> dict[str, str]:
    """Try an architecture; its columns."""
    hf = tiny(kind, **changes)
    alone, shared = copy.deepcopy(hf), copy.deepcopy(hf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model: Any = it.load_model(hf, tokenizer=tokenizer())
        except ValueError as error:
            return {"sites": f"not loaded: {_reason(str(error))}"}
        refused = wrapper_check(model).differing
        there = [site for site in SITES if f"blocks.1.{site}" in model.hook_dict]
        right = [site for site in there if f"blocks.1.{site}" not in refused]
        return {
            "sites": "all" if right == list(SITES) and not refused else ", ".join(right),
            "capture": _yes(_captures(model, alone, right)),
            "cache": _yes(_steers_with_and_without_cache(model)),
            "batch": _yes(_batched_as_alone(model)),
            "sum": _sums(model, right),
            "ablation": _ablates(model),
            "transformer": _hooked_transformer(shared, alone),
            "llama_cpp": outcome(kind),
        }


def _captures(model: Any, alone: Any, right: Sequence[str]) -> bool:
    """Whether each block's output is what transformers returns as hidden states; of the last one, before the final norm."""
    site = "blocks.*.hook_resid_pre" if "hook_resid_pre" in right else "blocks.*.hook_resid_post"
    ids = tokenizer()(TEXTS[0])["input_ids"]
    with torch.no_grad():
        states = alone(torch.tensor([ids]), output_hidden_states=True).hidden_states
    acts = it.capture(model, TEXTS[:1], site, progress=False)
    return all(_close(acts[f"blocks.{k}.hook_resid_pre"], states[k][0]) for k in range(len(acts)))


def _sums(model: Any, right: Sequence[str]) -> str:
    """Whether every block adds its attention and MLP outputs to the stream, and nothing else; "-" without these sites."""
    if list(right) != list(SITES):
        return "-"
    acts = it.capture(model, TEXTS[:1], [f"blocks.*.{site}" for site in SITES], progress=False)
    blocks = ([acts[f"blocks.{k}.{site}"] for site in SITES] for k in range(model.cfg.n_layers))
    return _yes(all(_close(after - before, attention + mlp) for before, attention, mlp, after in blocks))


def _ablates(model: Any) -> str:
    """Whether directional ablation everywhere leaves nothing of a direction in the last block's output."""
    vector, last = _vector(model), f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    try:
        with it.applied(model, it.ablate(vector, everywhere=True)):
            rows = it.capture(model, TEXTS[:1], last, progress=False)[last]
    except ValueError:
        return "refused"
    return _yes(float((rows @ vector.direction).abs().max()) < 1e-4 * float(rows.norm() * vector.norm))


def _vector(model: Any) -> it.SteeringVector:
    return it.SteeringVector(torch.arange(WIDTH) / 4, "blocks.2.hook_resid_pre", it.identity(model))


def _steering(model: Any) -> it.Intervention:
    return _vector(model).add(1.0)


def _steers_with_and_without_cache(model: Any) -> bool:
    """Whether steered generation gives the tokens that full passes without a cache give."""
    steer, ids = _steering(model), list(tokenizer()(TEXTS[2])["input_ids"])
    text = it.generate(model, TEXTS[2:], steer, max_new_tokens=NEW, progress=False)[0]
    with torch.no_grad(), it.applied(model, steer):
        for _ in range(NEW):
            ids.append(int(forward(model, torch.tensor([ids]))[0, -1].argmax()))
            if ids[-1] == 0:
                break
    new = ids[len(tokenizer()(TEXTS[2])["input_ids"]) :]
    return text == tokenizer().decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _batched_as_alone(model: Any) -> bool:
    """Whether texts of unequal length are read and steered in a batch as alone."""
    site, steer = "blocks.2.hook_resid_pre", _steering(model)
    together = it.capture(model, TEXTS, site, progress=False)
    texts = it.generate(model, TEXTS, steer, max_new_tokens=NEW, progress=False)
    return all(
        _close(together[site][together.text_index == k], it.capture(model, [text], site, progress=False)[site])
        and it.generate(model, [text], steer, max_new_tokens=NEW, progress=False) == texts[k : k + 1]
        for k, text in enumerate(TEXTS)
    )


def _hooked_transformer(hf: Any, alone: Any) -> str:
    ids = torch.tensor([tokenizer()(TEXTS[0])["input_ids"]])
    try:
        converted = as_hooked_transformer(hf, tokenizer(), torch.float32)
    except ValueError:
        return "-"
    with torch.no_grad():
        return _yes(_close(converted(ids), alone(ids).logits))


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() < 1e-4 * other.abs().max())


def _yes(right: bool) -> str:
    return "yes" if right else "**no**"


def _reason(error: str) -> str:
    """The middle of an error of loading."""
    for part in error.split(": "):
        if "differs" in part:
            return part.partition(";")[0]
    return error.split(", ", 1)[-1].split(": ")[0].removeprefix("which ")


def table() -> str:
    """All architectures, as Markdown."""
    lines = [f"| architecture | {' | '.join(HEADS.values())} |", f"|{'---|' * (len(HEADS) + 1)}"]
    every = {**{name: (name, changes) for name, changes in ARCHITECTURES.items()}, **VARIANTS}
    for name, (kind, changes) in every.items():
        columns = row(kind, changes)
        lines.append(f"| {name} | {' | '.join(columns.get(column, '-') for column in HEADS)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    made = table()
    if len(sys.argv) > 1:
        with atomic_write(Path(sys.argv[1])) as part:
            part.write_text(made)
    else:
        sys.stdout.write(made)
