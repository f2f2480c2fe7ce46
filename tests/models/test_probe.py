"""What transformer-lens computes otherwise than the model alone is found when a model is loaded, and refused by name."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.activations.capture import forward
from interp_transfer.interventions.hooks import applied
from interp_transfer.interventions.transforms import Ablate
from interp_transfer.models import probe
from interp_transfer.models.identity import wrapper_check
from interp_transfer.models.sites import hooked
from tests.architectures import ROOT, script
from tests.checkpoints import byte_tokenizer, make_checkpoint, raw_model

TABLE = (ROOT / "docs" / "made" / "architectures.md").read_text(encoding="utf-8")
EVERY = {**{name: (name, changes) for name, changes in script.ARCHITECTURES.items()}, **script.VARIANTS}
"""By name in the table: model type and changes to a tiny configuration."""
QUICK = ("gpt2", "gemma2", "phi3", "cohere", "gpt2, unscaled", "gemma3, bidirectional", "mamba")


def tiny(name: str, **changes: Any) -> Any:
    """A transformers model of the script, with random weights."""
    kind, own = EVERY[name]
    return script.tiny(kind, **{**own, **changes})


def load(hf: Any) -> Any:
    return it.load_model(hf, tokenizer=script.tokenizer())


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in EVERY])
def test_an_architecture_is_as_in_the_table_of_the_docs(name: str) -> None:
    row = script.row(*EVERY[name])
    assert f"| {name} | {' | '.join(row.get(column, '-') for column in script.HEADS)} |\n" in TABLE
    assert "**no**" not in [value for column, value in row.items() if column != "sum"]
    assert row.get("sum") != "**no**" or row["ablation"] == "refused"  # where more is added, a direction would come back


def test_most_architectures_of_the_table_are_right() -> None:
    assert len(TABLE.splitlines()) == 2 + len(EVERY) and TABLE.count("| yes | yes | yes |") >= 20


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


@pytest.mark.parametrize("kind", ["falcon, ALiBi", "gpt2, unscaled"])
def test_a_model_that_is_wrong_without_a_hook_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"wrapper of the architecture .* computes something else: block 0 differs .*what can"):
        load(tiny(kind))


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


def test_a_model_whose_blocks_are_not_found_or_not_called_as_others_is_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    hf = tiny("llama")
    forward_of = type(hf.model.layers[0]).forward
    with monkeypatch.context() as patched:
        patched.setattr(type(hf.model.layers[0]), "forward", lambda self, *a, **k: forward_of(self, *a, **k)[:, :1])
        assert not probe.block_calls(hf, byte_tokenizer()).of, "another shape"
    with monkeypatch.context() as patched:
        patched.setattr(type(hf), "forward", lambda self, input_ids: None)
        assert not probe.block_calls(hf, byte_tokenizer()).of, "other arguments"
    monkeypatch.setattr(probe, "_block_list", lambda _: None)
    assert it.identity(load(hf)).wrapper == "unchecked"


def test_longrope_is_used_up_to_its_switch() -> None:
    model = load(tiny("phi3"))
    with pytest.raises(ValueError, match="text 0 has 49 tokens, the model's context is 48"):
        it.capture(model, ["x" * 49], "blocks.2.hook_resid_pre")
    with pytest.raises(ValueError, match="prompt 0 has 46 tokens and 3 are to come, the model's context is 48"):
        it.generate(model, ["x" * 46], max_new_tokens=3)


def test_a_wrapper_may_compute_as_the_model_s_own_attention_or_as_eager() -> None:
    hf = tiny("llama")
    calls = probe.block_calls(hf, script.tokenizer())
    for call in calls.of[0]:
        eager, own = call.outputs
        torch.testing.assert_close(own[call.real], eager[call.real], atol=1e-5, rtol=1e-4)
    model = load(hf)
    for apart in ((2.0, 1.0), (1.0, 2.0)):
        one = [
            replace(call, outputs=tuple(x * out for x, out in zip(apart, call.outputs, strict=True))) for call in calls.of[0]
        ]
        assert str(probe.check_wrapper(model, replace(calls, of={0: one}))) == "exact"
    far = [replace(call, outputs=tuple(2 * out for out in call.outputs)) for call in calls.of[0]]
    with pytest.raises(ValueError, match="block 0 differs from that of transformers"):
        probe.check_wrapper(model, replace(calls, of={0: far}))
