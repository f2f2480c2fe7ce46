"""Convert a checkpoint to a transformer-lens ``HookedTransformer``, for code that was written for that class.

transformer-lens converts models that it knows by name. Here the shape is derived from the model's own configuration, so any
checkpoint of a supported architecture converts. Weights are rearranged by transformer-lens and not processed. The class is
deprecated in transformer-lens 3 and removed in 4; everything that depends on it is in this file.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch

from interp_transfer.models.load import wrapper_tokenizer

Shape = dict[str, Any]


def as_hooked_transformer(hf: Any, tokenizer: Any, dtype: torch.dtype) -> Any:
    """The ``HookedTransformer`` of a transformers model, with the same weights, on the same device.

    Args:
        hf: the model, never wrapped. Its parameters are copied or shared; do not use it afterwards.
        tokenizer: its tokenizer.
        dtype: of the weights.

    Raises:
        ValueError: for an architecture, or a kind of rotary embedding, that is not converted here, and with transformer-lens 4.
    """
    try:
        from transformer_lens import HookedTransformer
    except ImportError as error:
        raise ValueError(
            "transformer-lens 4 has no HookedTransformer: load the model with wrapper='bridge', or pip install "
            "'transformer-lens<4'"
        ) from error
    from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
    from transformer_lens.pretrained import weight_conversions

    architecture = type(hf).__name__
    if architecture not in _SHAPES:
        raise ValueError(
            f"{architecture} is not converted to a HookedTransformer: there are {', '.join(_SHAPES)}; load it with "
            "wrapper='bridge'"
        )
    shape, convert = _SHAPES[architecture]
    device = next(hf.parameters()).device
    cfg = HookedTransformerConfig(
        model_name=architecture,
        original_architecture=architecture,
        tokenizer_prepends_bos=False,
        default_prepend_bos=False,
        device=str(device),
        dtype=dtype,
        init_weights=False,
        **shape(hf.config),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="HookedTransformer is deprecated", category=DeprecationWarning)
        model = HookedTransformer(cfg, wrapper_tokenizer(tokenizer), move_to_device=False)
    with torch.no_grad():
        weights = getattr(weight_conversions, convert)(hf, cfg)
    model.load_and_process_state_dict(
        weights,
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
        refactor_factored_attn_matrices=False,
    )
    return model.to(device, print_details=False).eval()


def _common(config: Any) -> Shape:
    """The sizes that all architectures have, under transformer-lens' names."""
    from transformer_lens.model_bridge.sources.transformers import map_default_transformer_lens_config

    names = ("d_model", "d_mlp", "n_heads", "n_layers", "n_ctx", "d_vocab", "eps", "act_fn")
    mapped = map_default_transformer_lens_config(config)
    size = getattr(config, "head_dim", None) or mapped.d_model // mapped.n_heads
    return {name: getattr(mapped, name) for name in names} | {"d_head": size, "normalization_type": "LN"}


def _rotary(config: Any) -> Shape:
    """Common sizes, and base and scaling of a rotary embedding."""
    rope = dict(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {})
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    shape = _common(config) | {
        "positional_embedding_type": "rotary",
        "rotary_adjacent_pairs": False,
        "rotary_base": rope.get("rope_theta") or getattr(config, "rope_theta", 10000.0),
    }
    if kind == "llama3":
        return shape | {
            "use_NTK_by_parts_rope": True,
            "NTK_by_parts_factor": rope["factor"],
            "NTK_by_parts_low_freq_factor": rope["low_freq_factor"],
            "NTK_by_parts_high_freq_factor": rope["high_freq_factor"],
            "NTK_original_ctx_len": rope["original_max_position_embeddings"],
        }
    if kind != "default":
        raise ValueError(f"rotary embedding of the kind {kind!r} is not converted to a HookedTransformer: use wrapper='bridge'")
    return shape


def _decoder(config: Any) -> Shape:
    """The shape that Llama, Qwen2 and Gemma2 share."""
    for bias in ("attention_bias", "mlp_bias"):
        if getattr(config, bias, False):
            raise ValueError(f"{bias}=True is not converted to a HookedTransformer: use wrapper='bridge'")
    shape = _rotary(config)
    return shape | {
        "n_key_value_heads": config.num_key_value_heads,
        "rotary_dim": shape["d_head"],
        "normalization_type": "RMS",
        "final_rms": True,
        "gated_mlp": True,
    }


def _qwen2(config: Any) -> Shape:
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise ValueError("a sliding window of Qwen2 is not converted to a HookedTransformer: use wrapper='bridge'")
    return _decoder(config)


def _llama(config: Any) -> Shape:
    shape = _decoder(config)
    if shape["n_key_value_heads"] == shape["n_heads"]:
        shape["n_key_value_heads"] = None  # Llama's conversion expects None for a model without groups
    return shape


def _gemma2(config: Any) -> Shape:
    kinds = {"sliding_attention": "local", "full_attention": "global"}
    return _decoder(config) | {
        "attn_scale": float(config.query_pre_attn_scalar) ** 0.5,
        "use_local_attn": True,
        "window_size": config.sliding_window,
        "attn_types": [kinds[kind] for kind in config.layer_types],
        "attn_scores_soft_cap": config.attn_logit_softcapping or -1.0,
        "output_logits_soft_cap": config.final_logit_softcapping or -1.0,
        "use_normalization_before_and_after": True,
    }


def _gpt2(config: Any) -> Shape:
    return _common(config) | {
        "d_mlp": config.n_inner or 4 * config.n_embd,
        "use_attn_scale": config.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": config.scale_attn_by_inverse_layer_idx,
    }


def _neox(config: Any) -> Shape:
    shape, rope = _rotary(config), dict(getattr(config, "rope_parameters", None) or {})
    rotated = round((rope.get("partial_rotary_factor") or getattr(config, "rotary_pct", 0.25)) * shape["d_head"])
    if rotated % 2:
        raise ValueError(f"{rotated} of {shape['d_head']} dimensions are rotated, an odd number: use wrapper='bridge'")
    if not getattr(config, "attention_bias", True):
        raise ValueError("attention_bias=False is not converted to a HookedTransformer: use wrapper='bridge'")
    return shape | {"parallel_attn_mlp": config.use_parallel_residual, "rotary_dim": rotated}


_SHAPES: dict[str, tuple[Callable[[Any], Shape], str]] = {
    "Qwen2ForCausalLM": (_qwen2, "convert_qwen2_weights"),
    "LlamaForCausalLM": (_llama, "convert_llama_weights"),
    "Gemma2ForCausalLM": (_gemma2, "convert_gemma_weights"),
    "GPT2LMHeadModel": (_gpt2, "convert_gpt2_weights"),
    "GPTNeoXForCausalLM": (_neox, "convert_neox_weights"),
}
"""By architecture: the function from its configuration to its shape, and transformer-lens' function for its weights."""
