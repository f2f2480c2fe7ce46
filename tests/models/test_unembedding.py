"""The final norm's gain, the unembedding, and the direct effect on the logits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity
from transformers import AutoModelForCausalLM

from interp_transfer.activations.capture import capture, logits_of
from interp_transfer.interventions.hooks import applied
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.models.tokens import tokenize
from interp_transfer.models.unembedding import _probe, direct_logits, final_norm, unembedding, writes_to_residual
from tests.checkpoints import FAMILIES, TEXTS, hooked_transformer

SITE = "blocks.3.hook_resid_pre"


def gain_of(hf: Any) -> tuple[torch.Tensor, bool]:
    """The final norm's gain by the weights of transformers, and whether it centres."""
    family = hf.config.model_type
    norm = {"gpt2": lambda: hf.transformer.ln_f, "gpt_neox": lambda: hf.gpt_neox.final_layer_norm}.get(
        family, lambda: hf.model.norm
    )()
    return (1 + norm.weight if family == "gemma2" else norm.weight).detach(), family.startswith("gpt")


@pytest.mark.parametrize("family", FAMILIES)
def test_gain_and_unembedding_are_those_of_the_weights(
    family: str, wrapped: Callable[[str], Any], folder: Callable[[str], Path]
) -> None:
    hf: Any = AutoModelForCausalLM.from_pretrained(folder(family))
    gain, centres = gain_of(hf)
    model = wrapped(family)
    found, found_centres = final_norm(model)
    torch.testing.assert_close(found, gain, rtol=1e-4, atol=1e-4)
    assert found_centres == centres
    table = hf.get_output_embeddings().weight.detach()
    torch.testing.assert_close(unembedding(model), table)
    rows = torch.randn(3, len(gain), generator=torch.Generator().manual_seed(0)) + 1.0
    normed = rows - rows.mean(dim=1, keepdim=True) if centres else rows
    torch.testing.assert_close(direct_logits(model, rows), (normed * gain) @ table.T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_a_hooked_transformer_gives_the_same_logits_as_a_bridge(
    family: str, wrapped: Callable[[str], Any], folder: Callable[[str], Path]
) -> None:
    bridge, older = wrapped(family), hooked_transformer(folder(family))
    rows = torch.randn(3, int(bridge.cfg.d_model), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(direct_logits(older, rows), direct_logits(bridge, rows), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gemma2"])  # it caps its logits
def test_direct_logits_point_where_the_model_goes(family: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)
    ids = tokenize(model, TEXTS[1:2])
    site = f"blocks.{int(model.cfg.n_layers) - 1}.hook_resid_post"
    stream = capture(model, TEXTS[1:2], site, ids=ids)[site][-1].float()
    direction = torch.randn(len(stream), generator=torch.Generator().manual_seed(1))
    if family.startswith("gpt"):  # their norm subtracts the mean
        stream, direction = stream - stream.mean(), direction - direction.mean()
    direction -= (direction @ stream) / (stream @ stream) * stream  # so that the norm's division stays as it is
    step = 1e-2 * float(stream.norm() / direction.norm())
    with torch.no_grad():
        before = logits_of(model, ids)[0][0, -1]
        with applied(model, Intervention(site, lambda a: a + step * direction)):
            after = logits_of(model, ids)[0][0, -1]
    expected = direct_logits(model, direction[None])[0]
    assert float(cosine_similarity(after - before, expected, dim=0)) > 0.99


@pytest.mark.parametrize("d", [1, 2, 3, 7, 64])
def test_the_probe_of_a_norm_is_normal_itself(d: int) -> None:
    probe = _probe(d)
    assert len(probe) == d and bool((probe != 0).all())
    assert float(probe.square().mean()) == pytest.approx(1.0)
    assert d == 1 or float(probe.mean()) == pytest.approx(0.0, abs=1e-6)


def test_sites_that_write_to_the_residual_stream() -> None:
    assert all(map(writes_to_residual, [SITE, "blocks.0.hook_mlp_out", "blocks.11.hook_resid_post"]))
    assert not any(map(writes_to_residual, ["blocks.0.attn.hook_z", "blocks.0.mlp.hook_in", "blocks.0.ln1.hook_normalized"]))
