"""Tiny checkpoints with random weights, made on the fly: the ground truth that the tests read with plain transformers.

Weights are drawn with a large spread, so that two computations that differ do so visibly.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from interp_transfer.models.hooked_transformer import as_hooked_transformer

FAMILIES = ("llama", "qwen2", "gemma2", "gpt2", "gpt_neox")
LAYERS, WIDTH, CONTEXT = 4, 16, 96
TEXTS = ["the cat sat", "a much longer text, with a comma and |prod| in it: 12 + 7", "x", "dogs run far from home, they say"]
"""Of unequal lengths, one of them a single token."""

_SHAPE: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2, "head_dim": 4},
    "qwen2": {"num_key_value_heads": 2},
    # query_pre_attn_scalar unlike head_dim, low caps and a window shorter than the texts: each would show if it were lost.
    "gemma2": {
        "num_key_value_heads": 2,
        "head_dim": 4,
        "query_pre_attn_scalar": 3,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "sliding_window": 4,
    },
    "gpt2": {},
    "gpt_neox": {
        "use_parallel_residual": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    },
}


@cache
def byte_tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 300 tokens; with ``bos`` it puts one in front of each text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|end|>", "<|pad|>", "<|begin|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        bos_token="<|begin|>" if bos else None,
        clean_up_tokenization_spaces=False,
    )
    fast.init_kwargs.update(name_or_path="mem", add_bos_token=bos)
    return fast


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Whole words, each with the space before it."""
    pieces = ["[UNK]", *words, *(f" {word}" for word in words)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?\S+"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[UNK]")  # noqa: S106


def config(family: str, **changes: Any) -> Any:
    """The configuration of a tiny model."""
    plain = {
        "vocab_size": len(byte_tokenizer()),
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": byte_tokenizer().eos_token_id,
        "pad_token_id": byte_tokenizer().pad_token_id,
        "dtype": "float32",
    }
    return AutoConfig.for_model(family, **{**plain, **_SHAPE.get(family, {}), **changes})


def make_checkpoint(
    folder: Path, family: str, seed: int = 0, dtype: torch.dtype = torch.float32, tokenizer: Any = None, **changes: Any
) -> Path:
    """Write a Hugging Face folder with random weights and a tokenizer, the byte tokenizer if None."""
    torch.manual_seed(seed)
    if tokenizer is not None:
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        changes = {"vocab_size": len(tokenizer), **ids, **changes}
    model = AutoModelForCausalLM.from_config(config(family, **changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name or name.endswith("bias"):  # at their initial 1 and 0 they would hide mistakes
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.to(dtype).save_pretrained(folder)
    (tokenizer or byte_tokenizer()).save_pretrained(folder)
    return folder


def raw_model(folder: Path, **options: Any) -> PreTrainedModel:
    """The checkpoint as plain transformers loads it, float32 and unwrapped."""
    return AutoModelForCausalLM.from_pretrained(folder, **{"dtype": torch.float32, **options}).eval()


def raw_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


def blocks(model: PreTrainedModel) -> Any:
    """The list of blocks of a plain transformers model."""
    base = model.base_model
    return base.h if hasattr(base, "h") else base.layers


def part(model: PreTrainedModel, family: str, layer: int, what: str) -> tuple[Any, str]:
    """Where plain PyTorch finds a site: a module, and whether it is its "input" or its "output"."""
    block = blocks(model)[layer]
    names = {
        "llama": ("self_attn", "mlp"),
        "qwen2": ("self_attn", "mlp"),
        "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
        "gpt2": ("attn", "mlp"),
        "gpt_neox": ("attention", "mlp"),
    }[family]
    return {
        "resid_pre": (block, "input"),
        "resid_post": (block, "output"),
        "attn_out": (getattr(block, names[0]), "output"),
        "mlp_out": (getattr(block, names[1]), "output"),
    }[what]


def hook_count(model: Any) -> int:
    """Forward hooks of a wrapped model: those that transformer-lens knows, those on modules, and shadowed methods."""
    return len(hooks_of(model))


def hooks_of(model: Any) -> list[str]:
    inner = getattr(model, "original_model", model)
    known = [f"{point.name}: {handle}" for point in set(model.hook_dict.values()) for handle in point.fwd_hooks]
    raw = [
        f"{type(module).__name__}: {hook}"
        for module in {*model.modules(), *inner.modules()}
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        # A bridge's blocks, and transformers for its output_... switches, add some of their own and keep them.
        if not getattr(hook, "__qualname__", "").startswith(("BlockBridge.", "install_output_"))
    ]
    return [*known, *raw, *(["forward is shadowed"] if "forward" in model.__dict__ else [])]


def first(value: Any) -> torch.Tensor:
    """The tensor of a module's output, which may be a tuple."""
    return value[0] if isinstance(value, tuple) else value


def change_weight(folder: Path) -> None:
    """Change one matrix of a saved checkpoint."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = next(name for name, value in weights.items() if value.ndim == 2)
    weights[name] = weights[name] + 0.01
    save_file(weights, file, metadata={"format": "pt"})


def change_config(folder: Path, **changes: Any) -> None:
    """Change entries of a saved checkpoint's config."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def hooked_transformer(folder: Path) -> Any:
    """The checkpoint as a ``HookedTransformer`` that somebody made, with unprocessed weights."""
    return as_hooked_transformer(raw_model(folder), raw_tokenizer(folder), torch.float32)
