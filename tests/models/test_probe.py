"""What transformer-lens computes otherwise than the model alone is found when a model is loaded, and refused by name."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import interp_transfer as it
from interp_transfer.activations.capture import forward
from interp_transfer.interventions.hooks import applied
from interp_transfer.interventions.transforms import Ablate
from interp_transfer.models import probe
from interp_transfer.models.identity import wrapper_check
from interp_transfer.models.sites import hooked
from tests.checkpoints import FAMILIES, WIDTH, byte_tokenizer, config, make_checkpoint, raw_model

SMALL: dict[str, Any] = {
    "cohere": {"num_key_value_heads": 2},
    "deepseek_v2": {
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
    },
    "hunyuan_v1_dense": {"num_key_value_heads": 2, "head_dim": 4},
    "qwen3_next": {
        "num_key_value_heads": 2,
        "head_dim": 4,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 4,
        "linear_value_head_dim": 4,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 8,
        "shared_expert_intermediate_size": 8,
    },
    "falcon": {"alibi": True, "new_decoder_architecture": False, "multi_query": False, "parallel_attn": False},
    "gpt2": {"scale_attn_weights": False},
    "gemma4_text": {
        "num_key_value_heads": 2,
        "head_dim": 4,
        "global_head_dim": 4,
        "num_kv_shared_layers": 0,
        "vocab_size_per_layer_input": 300,
        "hidden_size_per_layer_input": 4,
    },
    "falcon_h1": {
        "num_key_value_heads": 2,
        "head_dim": 4,
        "mamba_d_ssm": 16,
        "mamba_n_heads": 4,
        "mamba_d_head": 4,
        "mamba_n_groups": 1,
        "mamba_d_state": 4,
        "mamba_chunk_size": 8,
    },
    "qwen3": {"num_key_value_heads": 2, "head_dim": 4},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 4, "num_hidden_layers": 6},
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 4},
    "olmo2": {"num_key_value_heads": 2},
    "bloom": {},
    "phi3": {
        "num_key_value_heads": 2,
        "original_max_position_embeddings": 8,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.0],
            "long_factor": [4.0, 9.0],
            "original_max_position_embeddings": 8,
            "partial_rotary_factor": 1.0,
        },
    },
}


def tiny(kind: str, **changes: Any) -> Any:
    """A transformers model of an architecture, with random weights."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(kind, **{**SMALL.get(kind, {}), **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms and biases, which at their initial 1 and 0 would hide mistakes
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def load(hf: Any) -> Any:
    return it.load_model(hf, tokenizer=byte_tokenizer())


@pytest.mark.parametrize("kind", ["cohere", "deepseek_v2", "hunyuan_v1_dense", "qwen3_next"])
def test_sites_where_a_hook_that_does_nothing_changes_the_model_are_refused(kind: str) -> None:
    hf = tiny(kind)
    tokens = torch.tensor([[5, 9, 33, 70, 101, 64]])
    with torch.no_grad():
        alone = hf(tokens).logits
    with pytest.warns(UserWarning, match=r"transformer-lens computes something else inside the blocks.* sites are refused"):
        model = load(hf)
    inside = next(site for site in wrapper_check(model).differing if ".hook_out" in site)
    for call in (lambda: it.capture(model, ["a text"], inside), lambda: model_with(model, inside, tokens)):
        with pytest.raises(ValueError, match=f"{inside}.*cannot be used.*changes what the block adds.*hook_resid_pre"):
            call()
    assert it.identity(model).wrapper == f"{len(wrapper_check(model).differing)} sites differ"
    for site in ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_post"):
        assert torch.allclose(model_with(model, site, tokens), alone, atol=1e-4)


def model_with(model: Any, site: str, tokens: torch.Tensor) -> torch.Tensor:
    """The logits under an intervention that changes nothing."""
    with torch.no_grad(), applied(model, it.Intervention(site, lambda rows: rows)):
        return forward(model, tokens)


@pytest.mark.parametrize("kind", ["falcon", "gpt2"])
def test_a_model_that_is_wrong_without_a_hook_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"wrapper of the architecture .* computes something else: block 0 differs .*what can"):
        load(tiny(kind))


@pytest.mark.parametrize("kind", [*FAMILIES, "qwen3", "gemma3_text", "mixtral", "olmo2", "bloom"])
def test_wrappers_that_are_right_are_exact(kind: str) -> None:
    model = load(tiny(kind, **({"scale_attn_weights": True} if kind == "gpt2" else {})))
    assert it.identity(model).wrapper == "exact" and wrapper_check(model).left < 1e-4


@pytest.mark.parametrize("kind", ["gemma4_text", "falcon_h1"])
def test_ablation_everywhere_is_refused_where_blocks_write_more_than_attention_and_mlp(kind: str) -> None:
    model = load(tiny(kind))
    site = "blocks.3.hook_resid_post"
    rows = it.capture(model, ["the cat sat on a mat"], site, progress=False)[site]
    vector = it.SteeringVector(rows.mean(dim=0), site, it.identity(model))
    with pytest.raises(ValueError, match=r"would leave .*% of a direction .* ablate at \('blocks") as refused:
        it.generate(model, ["the cat"], it.ablate(vector, everywhere=True))
    assert 0.01 < wrapper_check(model).left < 1
    sites = ("blocks.*.hook_resid_pre", "blocks.*.hook_resid_post")
    assert all(site in str(refused.value) for site in sites)
    with it.applied(model, it.Intervention(sites, Ablate(vector.direction))):
        left = it.capture(model, ["the cat sat on a mat"], site, progress=False)[site]
    assert (left @ vector.direction).abs().max() < 1e-4 * (rows @ vector.direction).abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_to_16_bits_is_no_fault(dtype: torch.dtype) -> None:
    assert it.identity(load(tiny("qwen2").to(dtype))).wrapper == "exact"


def test_blocks_of_each_kind_are_checked_and_stand_for_the_others(tmp_path: Any) -> None:
    hf = raw_model(make_checkpoint(tmp_path / "m", "gemma2"))
    calls = probe.block_calls(hf, byte_tokenizer())
    assert dict(calls.alike) == {0: [0, 2], 1: [1, 3]}, "windows and whole texts alternate"
    assert [len(call.args[0][0]) for call in calls.of[1]][1:] == [len(calls.of[1][0].args[0][0]) - 1, 1]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in hf.modules())


def test_a_model_is_left_as_it_was(tmp_path: Any) -> None:
    hf = raw_model(make_checkpoint(tmp_path / "m", "llama"))
    probe.block_calls(hf, byte_tokenizer())
    assert hf.config._attn_implementation == "sdpa"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in hf.modules())


def test_a_fault_in_one_kind_of_block_names_all_of_that_kind() -> None:
    hf = tiny("gemma2")
    calls = probe.block_calls(hf, byte_tokenizer())
    model = load(hf)
    broken = model.blocks[1].attn
    with hooked(broken.hook_out, lambda tensor, hook: -tensor):  # noqa: ARG005 - transformer-lens passes both
        assert not probe.check_wrapper(model, probe.BlockCalls({0: calls.of[0]}, calls.alike)).differing
        with pytest.raises(ValueError, match="block 1 differs"):
            probe.check_wrapper(model, calls)


def test_a_model_whose_blocks_are_not_found_is_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_block_list", lambda _: None)
    assert it.identity(load(tiny("llama"))).wrapper == "unchecked"


@pytest.mark.parametrize(
    "kind", [*FAMILIES, "qwen3", "gemma3_text", "gemma4_text", "falcon_h1", "mixtral", "olmo2", "bloom", "deepseek_v2", "phi3"]
)
@pytest.mark.filterwarnings("ignore:transformer-lens computes something else")
def test_a_text_is_read_and_steered_in_a_batch_as_alone(kind: str) -> None:
    model = load(tiny(kind, **({"scale_attn_weights": True} if kind == "gpt2" else {})))
    texts = ["the cat", "x", "a dog"] if kind == "phi3" else ["the cat sat on a mat and the dogs run far", "x", "a dog: 12"]
    site, new = "blocks.2.hook_resid_pre", 3
    together = it.capture(model, texts, site, progress=False)
    steer = it.add(it.SteeringVector(torch.arange(WIDTH) / 4, site, it.identity(model)))
    generated = it.generate(model, texts, steer, max_new_tokens=new, progress=False)
    for index, text in enumerate(texts):
        alone = it.capture(model, [text], site, progress=False)[site]
        assert torch.allclose(together[site][together.text_index == index], alone, rtol=1e-4, atol=1e-4)
        assert it.generate(model, [text], steer, max_new_tokens=new, progress=False) == generated[index : index + 1]


def test_longrope_is_used_up_to_its_switch() -> None:
    model = load(tiny("phi3"))
    with pytest.raises(ValueError, match="the model's context is 8"):
        it.capture(model, ["the cat sat on a mat"], "blocks.2.hook_resid_pre")
    with pytest.raises(ValueError, match="5 tokens and 6 are to come, the model's context is 8|context is 8"):
        it.generate(model, ["the cat"], max_new_tokens=6)


def test_attention_in_both_directions_is_refused() -> None:
    with pytest.raises(ValueError, match="which reads texts in both directions: what can be loaded"):
        load(tiny("gemma3_text", use_bidirectional_attention=True))
