"""The shorter way through a bridge: the same numbers, every hook that is there still fires, everything put back."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import interp_transfer as it
from interp_transfer.models.bypass import bypassed
from interp_transfer.models.hooked_model import huggingface_model
from interp_transfer.models.sites import hooked
from tests.checkpoints import FAMILIES, TEXTS, hook_count

TOKENS = torch.tensor([[3, 40, 41, 100, 7], [5, 6, 7, 8, 9]])


def wrappers(model: Any) -> list[str]:
    """Names of the wrappers that a forward pass goes through."""
    found = []

    def walk(module: nn.Module, path: str) -> None:
        for name, child in module._modules.items():
            if child is not None:
                inside = child._modules.get("_original_component")
                found.extend([f"{path}{name}"] if inside is not None else [])
                walk(child if inside is None else inside, f"{path}{name}.")

    walk(huggingface_model(model), "")
    return found


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_without_hooks_the_same_comes_out(family: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)
    before = wrappers(model)
    slow = model(TOKENS)
    with bypassed(model):
        fast = model(TOKENS)
        left = {name.split(".")[-1] for name in wrappers(model) if ".attn." not in name and ".attention." not in name}
        assert left <= {"attn", "attention", "wpe"}, "joint projections and position embeddings stay"
        assert family not in ("llama", "qwen2", "gemma2") or not left
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)
    assert wrappers(model) == before
    model.run_with_cache(TOKENS)  # transformers then keeps hooks of its own in the model
    with bypassed(model):
        assert len(wrappers(model)) < len(before) / 2
    if family == "gpt2":
        it.capture(model, TEXTS, ["hook_embed", "hook_pos_embed"])  # whose size is not that of the batch before


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_hook_that_fires_still_fires_and_sees_the_same(family: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)

    def read(sites: list[str], fast: bool) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {}

        def make(site: str) -> Any:
            return lambda a, hook: seen.__setitem__(site, a.clone()) if isinstance(a, Tensor) else None

        with ExitStack() as stack:
            for site in sites:
                stack.enter_context(hooked(model.hook_dict[site], make(site)))
            if fast:
                stack.enter_context(bypassed(model))
            model(TOKENS)
        return seen

    sites = [s for s in model.hook_dict if "blocks." not in s or "blocks.1." in s]
    every = read(sites, fast=False)
    assert len(every) > 20
    for site, expected in every.items():
        alone = read([site], fast=True)
        assert site in alone, f"{site} did not fire"
        torch.testing.assert_close(alone[site], expected, atol=1e-5, rtol=1e-4, msg=lambda m, s=site: f"{s}: {m}")


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_edit_has_the_same_effect(family: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)
    parts = (
        "hook_resid_pre",
        "hook_resid_post",
        "hook_attn_out",
        "hook_mlp_out",
        "attn.hook_z",
        "attn.hook_pattern",
    )
    sites = [f"blocks.1.{part}" for part in parts] + [
        "hook_embed",
        "ln_final.hook_in",
        "unembed.hook_in",
    ]
    plain = model(TOKENS)
    for site in sites:
        if site not in model.hook_dict:
            continue
        with model.hooks(fwd_hooks=[(site, lambda a, hook: a + torch.sin(7 * a))]):
            slow = model(TOKENS)
            with bypassed(model):
                fast = model(TOKENS)
        assert not torch.allclose(slow, plain, atol=1e-3), site
        torch.testing.assert_close(fast, slow, atol=1e-4, rtol=1e-3, msg=lambda m, s=site: f"{s}: {m}")


def test_hooks_of_pytorch_on_wrappers_are_heard(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    fired: list[str] = []
    chosen = {
        name: module for name, module in huggingface_model(model).named_modules() if "1._original" in name and "mlp" in name
    }
    handles = [
        module.register_forward_hook(lambda *_, name=name: fired.append(name))
        for name, module in chosen.items()
        if "hook_" not in name
    ]
    try:
        model(TOKENS)
        slow = list(fired)
        fired.clear()
        with bypassed(model):
            model(TOKENS)
    finally:
        for handle in handles:
            handle.remove()
    assert fired == slow and len(fired) > 3


def test_gradients_are_heard(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    site, seen = "blocks.1.attn.hook_z", []
    with model.hooks(bwd_hooks=[(site, lambda grad, hook: seen.append(grad.clone()))]):
        model(TOKENS).sum().backward()
        with bypassed(model):
            model(TOKENS).sum().backward()
    model.zero_grad()
    assert len(seen) == 2
    torch.testing.assert_close(seen[0], seen[1], atol=1e-4, rtol=1e-3)


def test_nothing_is_done_where_wrappers_matter(folder: Callable[[str], Any]) -> None:
    model: Any = it.load_model(str(folder("gpt2")))
    before = wrappers(model)
    model.set_use_attn_result(True)
    with bypassed(model):
        assert wrappers(model) == before
    model.set_use_attn_result(False)
    with bypassed(model):
        assert wrappers(model) != before
    model.enable_compatibility_mode()
    with bypassed(model):
        assert wrappers(model) == before
    expected = model(TOKENS)
    with bypassed(model):
        torch.testing.assert_close(model(TOKENS), expected)


def test_put_back_after_an_exception_and_when_nested(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("gemma2")
    before = wrappers(model)
    with pytest.raises(ZeroDivisionError), bypassed(model), bypassed(model):
        raise ZeroDivisionError
    assert wrappers(model) == before and hook_count(model) == 0
    it.capture(model, TEXTS, "blocks.1.hook_resid_pre")
    it.generate(model, TEXTS, max_new_tokens=2)
    assert wrappers(model) == before


def test_edited_parts_of_a_joint_projection_count(folder: Callable[[str], Any]) -> None:
    for family in ("gpt2", "gpt_neox"):
        model: Any = it.load_model(str(folder(family)))
        site = "blocks.2.hook_resid_pre"
        before = it.capture(model, TEXTS, site)[site]
        value = model.blocks[1].attn.v.original_component
        value.weight = nn.Parameter(3.0 * value.weight)
        assert not torch.allclose(before, it.capture(model, TEXTS, site)[site], atol=1e-3)
        slow = model(TOKENS)
        with bypassed(model):
            torch.testing.assert_close(model(TOKENS), slow, atol=1e-5, rtol=1e-4)
