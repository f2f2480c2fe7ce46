"""The five shapes of the zoo, as configs and as what models with them do."""

from typing import Any

import pytest
import torch

from interp_transfer.organisms.architectures import CONTEXT, RECIPES, new_model

TYPES = {"qwen": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM", "gemma": "Gemma2ForCausalLM"}
LARGEST = {"s": 300_000, "m": 1_500_000}

SHAPES = [tuple(name.split("-")) for name in RECIPES["organisms"]["bases"]]


@pytest.fixture(scope="module")
def models(trained_tokenizer: Any) -> dict[tuple[str, str], Any]:
    return {(family, size): new_model(family, size, trained_tokenizer(family), 5).eval() for family, size in SHAPES}


@pytest.fixture(scope="module", params=sorted(SHAPES), ids="-".join)
def shape(request: Any) -> tuple[str, str]:
    return request.param


def test_there_are_five():
    assert set(SHAPES) == {("qwen", "s"), ("qwen", "m"), ("llama", "s"), ("llama", "m"), ("gemma", "m")}


def test_architecture_and_size(models: dict[tuple[str, str], Any], shape: tuple[str, str]):
    model, (family, size) = models[shape], shape
    assert type(model).__name__ == TYPES[family]
    assert model.config.max_position_embeddings == CONTEXT == 256
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    count = sum(p.numel() for p in model.parameters())
    assert LARGEST[size] / 5 < count < LARGEST[size], count
    assert model(torch.arange(12)[None]).logits.shape == (1, 12, model.config.vocab_size)


def test_ids_are_the_tokenizers(models: dict[tuple[str, str], Any], shape: tuple[str, str], trained_tokenizer: Any):
    config, tokenizer = models[shape].config, trained_tokenizer(shape[0])
    assert config.vocab_size == len(tokenizer) == max(tokenizer.get_vocab().values()) + 1
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(config, name) == getattr(tokenizer, name)


def test_queries_share_keys(models: dict[tuple[str, str], Any], shape: tuple[str, str]):
    model = models[shape]
    assert model.config.num_attention_heads == 2 * model.config.num_key_value_heads
    for layer in model.model.layers:
        attention = layer.self_attn
        assert attention.q_proj.out_features == 2 * attention.k_proj.out_features == 2 * attention.v_proj.out_features
        assert (attention.q_proj.bias is not None) is (shape[0] == "qwen")
        assert (attention.o_proj.bias is None) is True


def test_tied_or_not(models: dict[tuple[str, str], Any], shape: tuple[str, str]):
    model, (family, size) = models[shape], shape
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    assert tied is (size == "s" or family == "gemma")


def test_larger_models_are_deeper_and_wider(models: dict[tuple[str, str], Any]):
    for family in ("qwen", "llama"):
        small, medium = models[family, "s"].config, models[family, "m"].config
        assert small.hidden_size < medium.hidden_size
        assert small.num_hidden_layers < medium.num_hidden_layers


def test_weights_follow_the_seed(trained_tokenizer: Any):
    tokenizer = trained_tokenizer("llama")
    first, again, other = (new_model("llama", "s", tokenizer, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_gemma_caps_its_logits(models: dict[tuple[str, str], Any]):
    model = models["gemma", "m"]
    assert (model.config.attn_logit_softcapping, model.config.final_logit_softcapping) == (50.0, 30.0)
    ids = torch.arange(4, 24)[None]
    before = model.model.norm.weight.detach().clone()
    try:
        with torch.no_grad():
            raw = model.lm_head(model.model(ids).last_hidden_state)
            torch.testing.assert_close(model(ids).logits, 30 * torch.tanh(raw / 30))
            model.model.norm.weight.fill_(1e4)  # Gemma scales by one more than the weight
            assert model.lm_head(model.model(ids).last_hidden_state).abs().max() > 1000
            assert model(ids).logits.abs().max() <= 30
    finally:
        with torch.no_grad():
            model.model.norm.weight.copy_(before)


def test_gemma_slides_its_window_in_every_other_block(models: dict[tuple[str, str], Any]):
    config = models["gemma", "m"].config
    assert config.layer_types == ["sliding_attention", "full_attention"] * 3
    assert config.sliding_window == 48 < CONTEXT
    for family, size in SHAPES:
        if family != "gemma":
            assert "sliding_attention" not in (getattr(models[family, size].config, "layer_types", None) or [])


@torch.no_grad()
def test_the_first_block_of_gemma_does_not_see_beyond_its_window(models: dict[tuple[str, str], Any]):
    """The first token's change reaches 47 tokens ahead in a sliding block, and any token in a full one."""
    model = models["gemma", "m"]
    ids = torch.randint(4, 1000, (1, 80), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[0, 0] += 1
    a, b = (model(i, output_hidden_states=True).hidden_states for i in (ids, changed))
    moved = [(x - y).abs().amax(-1)[0] > 1e-7 for x, y in zip(a, b, strict=True)]
    assert moved[1][:48].float().mean() > 0.9, "within the window"
    assert not moved[1][48:].any(), "beyond it"
    assert moved[2][48:].float().mean() > 0.9, "the second block sees everything"
    assert model.model.layers[0].pre_feedforward_layernorm is not None


@torch.no_grad()
def test_embeddings_of_gemma_are_scaled(models: dict[tuple[str, str], Any]):
    for shape in (("gemma", "m"), ("llama", "m")):
        model, ids = models[shape], torch.arange(4, 9)[None]
        opened = model(ids, output_hidden_states=True).hidden_states[0]
        raw = torch.nn.functional.embedding(ids, model.model.embed_tokens.weight)
        factor = model.config.hidden_size**0.5 if shape[0] == "gemma" else 1.0
        torch.testing.assert_close(opened, raw * factor)
