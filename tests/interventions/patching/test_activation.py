"""Patching against a forward pass done by hand, and attribution patching against it where it is exact and where it is not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.interventions.patching import Metric, activation_patching, attribution_patching, logit_difference
from interp_transfer.interventions.transforms import At
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.sites import head_parts
from tests.checkpoints import LAYERS, raw_model


@pytest.fixture(params=["qwen2", "gemma2", "gpt2"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def pairs(wrapped: Callable[[str], Any], family: str) -> tuple[HookedModel, list[str], list[str], Metric]:
    """Random models, prompts of equal numbers of tokens, and some logit as the metric."""
    model = wrapped(family)
    clean, corrupted = ["abc def", "xyz"], ["abd def", "wyz"]
    lengths = [[len(model.tokenizer(t)["input_ids"]) for t in side] for side in (clean, corrupted)]
    assert lengths[0] == lengths[1]
    return model, clean, corrupted, lambda logits, _: logits[:, 65] - logits[:, 66]


def test_a_patch_is_what_it_is_by_hand(pairs: Any, family: str, folder: Callable[[str], Any]) -> None:
    model, clean, corrupted, metric = pairs
    site = "blocks.2.hook_resid_pre"
    found = activation_patching(model, clean, corrupted, metric, site, progress=False)
    raw: Any = raw_model(folder(family))
    block = (raw.transformer.h if family == "gpt2" else raw.model.layers)[2]
    for text in range(2):
        ids = [torch.tensor([model.tokenizer(side[text])["input_ids"]]) for side in (clean, corrupted)]
        with torch.no_grad():
            whole = [raw(each, output_hidden_states=True) for each in ids]
            base, goal = (metric(out.logits[:, -1], [text]) for out in whole[::-1])
            assert float(found.corrupted[text]) == pytest.approx(float(base), abs=1e-4)
            assert float(found.clean[text]) == pytest.approx(float(goal), abs=1e-4)
            for k, position in enumerate(found.positions):
                hidden = whole[1].hidden_states[2].clone()
                hidden[:, position] = whole[0].hidden_states[2][:, position]

                def put(_: Any, args: tuple, kwargs: dict, hidden: Any = hidden) -> tuple:
                    return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

                handle = block.register_forward_pre_hook(put, with_kwargs=True)
                patched = float(metric(raw(ids[1]).logits[:, -1], [text]))
                handle.remove()
                assert float(found.effect[text, 0, k]) == pytest.approx(patched - float(base), abs=1e-4)
    assert found.effect.abs().max() > 1e-3, "patches that do nothing show nothing"


def test_all_tokens_of_any_residual_stream_bring_everything_back(pairs: Any) -> None:
    model, clean, corrupted, metric = pairs
    found = activation_patching(model, clean, corrupted, metric, by_position=False, progress=False)
    assert found.recovered.shape == (LAYERS, 1)
    torch.testing.assert_close(found.recovered, torch.ones(LAYERS, 1), atol=1e-3, rtol=1e-3)
    assert found.tokens == ("all tokens",)


def test_heads_together_are_the_whole_site(pairs: Any) -> None:
    model, clean, corrupted, metric = pairs
    site = "blocks.3.attn.hook_z"
    attribution = attribution_patching(model, clean, corrupted, metric, site, by_position=False, by_head=True)
    whole = attribution_patching(model, clean, corrupted, metric, site, by_position=False)
    assert [head for _, head in attribution.places] == [0, 1, 2, 3]
    torch.testing.assert_close(attribution.effect.sum(dim=1), whole.effect[:, 0], atol=1e-5, rtol=1e-4)
    exact = activation_patching(model, clean, corrupted, metric, site, by_head=True, progress=False)
    assert exact.effect.shape == (2, 4, len(exact.positions))
    rows = it.capture(model, clean, site, "last")[site]
    for head, part in enumerate(head_parts(model, site)):

        def put(a: torch.Tensor, at: At, part: slice = part) -> torch.Tensor:
            return torch.cat([a[:, : part.start], rows[at.row][:, part], a[:, part.stop :]], dim=1)

        for text in range(2):
            ids = torch.tensor([model.tokenizer(corrupted[text])["input_ids"]])
            with it.applied(model, it.Intervention(site, put, "last"), rows=torch.tensor([text])), torch.no_grad():
                change = metric(model(ids)[:, -1], [text]) - exact.corrupted[text]
            torch.testing.assert_close(exact.effect[text, head, -1:], change, atol=1e-4, rtol=1e-3)
    assert exact.effect[:, :, -1].abs().min() > 0


def test_attribution_is_the_slope_of_patching(pairs: Any) -> None:
    """For a small step toward the clean activation both are the same."""
    model, clean, corrupted, metric = pairs
    site = "blocks.1.hook_mlp_out"
    found = attribution_patching(model, clean, corrupted, metric, site, by_position=False)
    rows = [it.capture(model, texts, site) for texts in (clean, corrupted)]
    step = 1e-2
    for text in range(2):
        change = (rows[0][site] - rows[1][site])[rows[0].text_index == text]
        moved = it.Intervention(site, lambda a, at, change=change: a + step * change[at.position])
        with it.applied(model, moved), torch.no_grad():
            ids = torch.tensor([model.tokenizer(corrupted[text])["input_ids"]])
            after = float(metric(model(ids)[:, -1], [text])[0])
        slope = (after - float(found.corrupted[text])) / step
        assert slope == pytest.approx(float(found.effect[text, 0, 0]), rel=0.1, abs=2e-3)


def test_bad_input_is_refused(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")

    def metric(logits: Any, _: Any) -> Any:
        return logits[:, 0]

    wrong: list[tuple[str, Any, Any]] = [
        ("pair 0 has", ["abc"], ["abcdef"]),
        ("at least one", [], []),
        ("at least one", ["a"], ["a", "b"]),
    ]
    for said, clean, corrupted in wrong:
        with pytest.raises(ValueError, match=said):
            activation_patching(model, clean, corrupted, metric, progress=False)
    with pytest.raises(ValueError, match="no site of attention heads"):
        activation_patching(model, ["a"], ["b"], metric, by_head=True, progress=False)
    with pytest.raises(ValueError, match="did you mean"):
        attribution_patching(model, ["a"], ["b"], metric, "blocks.0.hook_resid_pree")
    with pytest.raises(ValueError, match="or NaN"):
        activation_patching(model, ["a"], ["b"], lambda logits, _: logits[:, 0] * float("nan"), progress=False)
    with pytest.raises(ValueError, match="begin with the same token"):
        logit_difference(model, ["abc"], ["abc"])
