"""The toolkit against hooks written here on plain transformers models: same activations, same steered tokens."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.models.hooked_model import huggingface_model
from interp_transfer.models.tokens import tokenize
from tests.checkpoints import FAMILIES, LAYERS, TEXTS, WIDTH, blocks, first, part, raw_model

WHAT = ("resid_pre", "resid_post", "mlp_out", "attn_out")
SITES = {f"blocks.{layer}.hook_{what}": (layer, what) for layer in range(LAYERS) for what in WHAT}
PLACES = ("all", "prompt", "generated", "last")
NEW = 6
PROMPTS = TEXTS[:3]
LAYER = 2


@pytest.fixture(scope="module")
def raw_of(folder: Callable[[str], Path]) -> Callable[[str], Any]:
    """The plain transformers model of a family, loaded once."""
    return cache(lambda family: raw_model(folder(family)))


@contextmanager
def raw_reads(raw: Any, family: str) -> Iterator[dict[str, list[torch.Tensor]]]:
    """What passes every site, read by plain PyTorch hooks."""
    reads: dict[str, list[torch.Tensor]] = {site: [] for site in SITES}
    handles = []
    for site, (layer, what) in SITES.items():
        module, side = part(raw, family, layer, what)

        def hook(_: Any, args: tuple, kwargs: dict, out: Any, site: str = site, side: str = side) -> None:
            reads[site].append((args[0] if args else kwargs["hidden_states"]) if side == "input" else first(out))

        handles.append(module.register_forward_hook(hook, with_kwargs=True))
    yield reads
    for handle in handles:
        handle.remove()


@torch.no_grad()
def read_rows(raw: Any, family: str, ids: list[list[int]], padding: str) -> dict[str, torch.Tensor]:
    """Activations of all real tokens, texts one after the other: one at a time, or in one batch padded on a side."""
    with raw_reads(raw, family) as reads:
        if padding == "none":
            for row in ids:
                raw(torch.tensor([row]))
            return {site: torch.cat([x[0] for x in seen]) for site, seen in reads.items()}
        width = max(map(len, ids))
        fill = [[1] * (width - len(row)) for row in ids]
        tokens = torch.tensor([f + row if padding == "left" else row + f for f, row in zip(fill, ids, strict=True)])
        mask = torch.tensor([len(f) * [0] + len(row) * [1] for f, row in zip(fill, ids, strict=True)])
        mask = mask if padding == "left" else mask.flip(1) * 0 + (torch.arange(width) < torch.tensor([[len(r)] for r in ids]))
        raw(tokens, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
        return {site: seen[0][mask.bool()] for site, seen in reads.items()}


@pytest.mark.parametrize("padding", ["none", "right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_captured_activations_are_those_of_a_raw_hook(
    family: str, padding: str, raw_of: Callable[[str], Any], wrapped: Callable[[str], Any]
) -> None:
    model, raw = wrapped(family), raw_of(family)
    truth = read_rows(raw, family, tokenize(model, TEXTS), padding)
    model.tokenizer.padding_side = "left" if padding == "left" else "right"
    try:
        acts = it.capture(model, TEXTS, list(SITES), batch_tokens=1 if padding == "none" else 10_000)
    finally:
        model.tokenizer.padding_side = "right"
    assert set(acts) == set(SITES)
    for site in SITES:
        torch.testing.assert_close(acts[site], truth[site], atol=1e-5, rtol=1e-5, msg=lambda m, s=site: f"{s}: {m}")


def in_place(where: str, position: torch.Tensor, prompt: int) -> torch.Tensor:
    """Whether an absolute position of a text is among the steered ones."""
    return {
        "all": position >= 0,
        "prompt": position < prompt,
        "generated": position >= prompt,
        "last": position == prompt - 1,
    }[where]


@torch.no_grad()
def raw_generate(
    raw: Any, family: str, prompt: list[int], steer: dict[str, torch.Tensor], where: str, end: int | None
) -> list[int]:
    """Greedy tokens of one prompt, each site of ``steer`` edited by a plain PyTorch hook."""
    start = 0  # absolute position of the first token of the pass

    def at(length: int) -> torch.Tensor:
        return in_place(where, torch.arange(start, start + length), len(prompt))[:, None]

    handles = []
    for site, vector in steer.items():
        module, side = part(raw, family, *SITES[site])

        def before(_: Any, args: tuple, kwargs: dict, v: torch.Tensor = vector) -> tuple[tuple, dict]:
            if args:
                return (args[0] + v * at(args[0].shape[1]), *args[1:]), kwargs
            hidden = kwargs["hidden_states"]
            return args, {**kwargs, "hidden_states": hidden + v * at(hidden.shape[1])}

        def after(_: Any, __: tuple, out: Any, v: torch.Tensor = vector) -> Any:
            new = first(out) + v * at(first(out).shape[1])
            return (new, *out[1:]) if isinstance(out, tuple) else new

        if side == "input":
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        else:
            handles.append(module.register_forward_hook(after))
    ids, past, out = list(prompt), None, []
    for _ in range(NEW):
        start = len(ids) - 1 if past is not None else 0
        answer = raw(torch.tensor([ids[start:]]), past_key_values=past, use_cache=True)
        past = answer.past_key_values
        out.append(int(answer.logits[0, -1].argmax()))
        ids.append(out[-1])
        if out[-1] == end:
            break
    for handle in handles:
        handle.remove()
    return out


def steer_at(model: Any, site: str, where: str, scale: float = 3.0) -> tuple[Any, torch.Tensor]:
    direction = scale * torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
    vector = it.SteeringVector(direction, site, it.identity(model))
    return it.add(vector, 1.0, positions=where), direction


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("family", FAMILIES)
def test_steered_tokens_are_those_of_a_raw_hook(
    family: str, where: str, raw_of: Callable[[str], Any], wrapped: Callable[[str], Any]
) -> None:
    model, raw = wrapped(family), raw_of(family)
    end = model.tokenizer.eos_token_id
    site = f"blocks.{LAYER}.hook_resid_pre"
    steer, direction = steer_at(model, site, where)
    truth = [raw_generate(raw, family, ids, {site: direction}, where, end) for ids in tokenize(model, PROMPTS)]
    for cached in (True, False):
        assert generate_tokens(model, PROMPTS, steer, max_new_tokens=NEW, use_cache=cached) == truth
        assert generate_tokens(model, PROMPTS, steer, max_new_tokens=NEW, use_cache=cached, batch_tokens=1) == truth
    assert truth != generate_tokens(model, PROMPTS, max_new_tokens=NEW), (
        "the steering changed no token, so this test shows nothing: raise its strength"
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("what", ["resid_post", "mlp_out", "attn_out"])
def test_steering_other_sites_is_that_of_a_raw_hook(
    family: str, what: str, raw_of: Callable[[str], Any], wrapped: Callable[[str], Any]
) -> None:
    model, raw = wrapped(family), raw_of(family)
    site = f"blocks.{LAYER}.hook_{what}"
    steer, direction = steer_at(model, site, "all")
    end = model.tokenizer.eos_token_id
    truth = [raw_generate(raw, family, ids, {site: direction}, "all", end) for ids in tokenize(model, TEXTS)]
    assert generate_tokens(model, TEXTS, steer, max_new_tokens=NEW) == truth
    assert truth != generate_tokens(model, TEXTS, max_new_tokens=NEW)


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_strength_changes_nothing(family: str, raw_of: Callable[[str], Any], wrapped: Callable[[str], Any]) -> None:
    model, raw = wrapped(family), raw_of(family)
    steer, _ = steer_at(model, f"blocks.{LAYER}.hook_resid_pre", "all", scale=0.0)
    end = model.tokenizer.eos_token_id
    truth = [raw_generate(raw, family, ids, {}, "all", end) for ids in tokenize(model, TEXTS)]
    assert generate_tokens(model, TEXTS, max_new_tokens=NEW) == truth
    assert generate_tokens(model, TEXTS, steer, max_new_tokens=NEW) == truth


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hooked_transformer_gives_the_same_as_a_bridge(
    family: str, folder: Callable[[str], Path], wrapped: Callable[[str], Any]
) -> None:
    bridge = wrapped(family)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nobody is told of what they asked for
        model = it.load_model(str(folder(family)), device="cpu", wrapper="hooked_transformer")
    assert huggingface_model(model) is None
    assert it.identity(model) == it.identity(bridge)
    ours, theirs = it.capture(model, TEXTS, list(SITES)), it.capture(bridge, TEXTS, list(SITES))
    for site in SITES:
        torch.testing.assert_close(ours[site], theirs[site], atol=1e-5, rtol=1e-5, msg=lambda m, s=site: f"{s}: {m}")
    assert torch.equal(ours.token, theirs.token) and torch.equal(ours.position, theirs.position)

    contrast = list(zip(TEXTS[:2], TEXTS[2:], strict=True))
    site = f"blocks.{LAYER}.hook_resid_pre"
    vector = it.extract(model, contrast, site)
    torch.testing.assert_close(vector.direction, it.extract(bridge, contrast, site).direction, atol=1e-5, rtol=1e-5)

    plain = generate_tokens(bridge, TEXTS, max_new_tokens=NEW)
    for where in PLACES:
        steer, direction = steer_at(model, site, where)
        here, there = [it.add(it.SteeringVector(direction, site, it.identity(m)), 1.0, where) for m in (model, bridge)]
        expected = generate_tokens(bridge, TEXTS, there, max_new_tokens=NEW)
        assert generate_tokens(model, TEXTS, here, max_new_tokens=NEW) == expected, where
        assert generate_tokens(model, TEXTS, steer, max_new_tokens=NEW, use_past_kv_cache=False) == expected, where
        assert expected != plain


def test_later_blocks_do_not_run(folder: Callable[[str], Path]) -> None:
    model = it.load_model(str(folder("qwen2")))
    ran: list[int] = []
    for index, block in enumerate(blocks(huggingface_model(model))):
        block.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
    it.capture(model, TEXTS, ["blocks.0.hook_mlp_out", "blocks.1.hook_resid_mid"])
    assert ran == [0, 1]
    ran.clear()
    it.capture(model, TEXTS, "blocks.2.hook_resid_pre")
    assert max(ran) == 2, "the block whose input is read is entered, no later one"
