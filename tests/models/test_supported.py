"""What cannot be wrapped is refused before weights are read; a multimodal checkpoint gives its language model."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig

import interp_transfer as it
from interp_transfer.models.supported import check_supported
from tests.checkpoints import TEXTS, byte_tokenizer, change_config

SMALL: dict[str, Any] = {
    "vocab_size": len(byte_tokenizer()),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    **{f"{name}_token_id": byte_tokenizer().eos_token_id for name in ("bos", "eos", "pad")},
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bert", "an encoder, which reads texts in both directions"),
        ("roberta", "an encoder"),
        ("modernbert", "an encoder"),
        ("t5", "an encoder-decoder"),
        ("bart", "an encoder-decoder"),
        ("mamba", "a state-space model, without attention"),
        ("mamba2", "a state-space model"),
        ("rwkv", "a state-space model"),
        ("ctrl", "an architecture that transformer-lens does not know"),
        ("vit", "an architecture that transformer-lens does not know"),
        ("qwen2_vl", "an architecture that transformer-lens does not know"),
    ],
)
def test_what_is_refused(kind: str, reason: str, tmp_path: Path) -> None:
    AutoConfig.for_model(kind).save_pretrained(tmp_path)  # no weights: they are not looked at
    with pytest.raises(
        ValueError, match=f"cannot wrap the architecture .*, {reason}.*: what can be loaded are decoder-only"
    ) as e:
        it.load_model(tmp_path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "kind", ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "mistral", "phi3"]
)
def test_what_is_not(kind: str) -> None:
    check_supported("x", AutoConfig.for_model(kind))


def test_a_kind_that_transformers_does_not_know(tmp_path: Path) -> None:
    AutoConfig.for_model("llama").save_pretrained(tmp_path)
    change_config(tmp_path, model_type="nobody")
    with pytest.raises(ValueError, match="cannot load the model in .*nobody.*what can be loaded are decoder-only") as error:
        it.load_model(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["gemma3", "llava"])
def test_a_multimodal_checkpoint_gives_its_language_model(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if family == "gemma3":
        text: Any = transformers.Gemma3TextConfig(**SMALL)
        config: Any = transformers.Gemma3Config(text_config=text, vision_config=VISION, mm_tokens_per_image=4)  # type: ignore[arg-type]
        whole: Any = transformers.Gemma3ForConditionalGeneration(config)
    else:
        text = transformers.LlamaConfig(**SMALL)
        config = transformers.LlavaConfig(text_config=text, vision_config=transformers.CLIPVisionConfig(**VISION))
        whole = transformers.LlavaForConditionalGeneration(config)
    whole.eval().save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    model: Any = it.load_model(tmp_path, device="cpu")
    ids = torch.tensor([byte_tokenizer()(TEXTS[1])["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(model(ids), whole(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
    assert type(model.original_model).__name__ == {"gemma3": "Gemma3ForCausalLM", "llava": "LlamaForCausalLM"}[family]
    assert "vision" not in "".join(capsys.readouterr())
    assert it.generate(model, TEXTS, max_new_tokens=2)
