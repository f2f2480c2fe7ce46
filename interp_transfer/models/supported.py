"""Which checkpoints can be wrapped, decided by their configuration before any weight is read.

The toolkit needs a decoder-only transformer: token by token left to right, with attention in its blocks. Of a multimodal
checkpoint the language model is such a decoder.
"""

from typing import Any

LOADABLE = (
    "what can be loaded are decoder-only language models with attention that transformer-lens wraps, such as Llama, Qwen, "
    "Gemma, Mistral, Phi, GPT-2 and GPT-NeoX"
)


def language_config(config: Any) -> Any:
    """The configuration of a checkpoint's language model; of a checkpoint of text alone, its own."""
    return config.get_text_config(decoder=True)


def check_supported(name: str, config: Any) -> None:
    """Check that the model of a configuration can be wrapped.

    Args:
        name: the model's name, for the error.
        config: a configuration of transformers.

    Raises:
        ValueError: for encoders, encoder-decoders, state-space models and unknown architectures, with what can be loaded.
    """
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

    text = language_config(config)
    multimodal = text is not config
    kind = text.model_type
    architecture = "" if multimodal else (config.architectures or [""])[0]
    if not architecture:
        architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind, kind)
    if config.is_encoder_decoder:
        reason = "an encoder-decoder"
    elif kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(text, "is_decoder", False):
        reason = "an encoder, which reads texts in both directions"
    elif getattr(text, "use_bidirectional_attention", None) in (True, "all"):
        reason = "which reads texts in both directions"
    elif getattr(text, "num_attention_heads", None) is None:
        reason = "a state-space model, without attention"
    elif architecture not in SUPPORTED_ARCHITECTURES:
        reason = "an architecture that transformer-lens does not know"
    else:
        return
    raise ValueError(f"cannot wrap the architecture {architecture!r} of {name!r}, {reason}: {LOADABLE}")
