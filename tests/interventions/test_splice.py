"""Overwriting one run's activations by another's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import interp_transfer as it
from interp_transfer.models.tokens import tokenize
from tests.checkpoints import FAMILIES, TEXTS, WIDTH

SITE = "blocks.2.hook_resid_pre"
PAIR = ["the cat sat", "the dogs ran"]


def padded(model: Any, texts: list[str]) -> tuple[Tensor, Tensor]:
    ids = tokenize(model, texts)
    width = max(map(len, ids))
    tokens = torch.tensor([[5] * (width - len(row)) + row for row in ids])
    return tokens, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_splicing_a_run_into_itself_changes_nothing(family: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)
    tokens, mask = padded(model, TEXTS)
    acts = it.capture(model, TEXTS, SITE)
    plain = model(tokens, attention_mask=mask)
    with it.applied(model, it.splice(acts, SITE, SITE)):
        spliced = model(tokens, attention_mask=mask)
    torch.testing.assert_close(spliced[mask.bool()], plain[mask.bool()], atol=1e-4, rtol=1e-4)
    made = it.generate(model, TEXTS, max_new_tokens=4)
    assert it.generate(model, TEXTS, it.splice(acts, SITE, SITE), max_new_tokens=4) == made
    assert it.generate(model, TEXTS, it.splice(acts, SITE, SITE), max_new_tokens=4, batch_tokens=1) == made


@torch.no_grad()
def test_splicing_another_run_gives_its_downstream(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    one, other = ([text[:11]] for text in ("the cat sat, and more", "x far from home"))
    ids = [tokenize(model, t)[0][:4] for t in (one, other)]
    texts = [model.tokenizer.decode(row) for row in ids]
    assert [len(row) for row in tokenize(model, texts)] == [4, 4], "texts of equal length are needed here"
    acts = it.capture(model, texts[1:], SITE)
    a, b = (torch.tensor([row]) for row in tokenize(model, texts))
    with it.applied(model, it.splice(acts, SITE, SITE)):
        spliced = model(a)
    torch.testing.assert_close(spliced, model(b), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(spliced, model(a), atol=1e-2)
    with it.applied(model, it.splice(acts, SITE, SITE, positions=1)):
        partly = model(a)
    torch.testing.assert_close(partly[:, 0], model(a)[:, 0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(partly[:, 2], model(a)[:, 2], atol=1e-3)


@torch.no_grad()
def test_mapping_and_gaps(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    acts = it.capture(model, PAIR, SITE)
    length = [len(row) for row in tokenize(model, PAIR)]
    got: list[Tensor] = []
    look = it.Intervention(SITE, lambda a: got.append(a.clone()) or a)

    def run(intervention: it.Intervention) -> Tensor:
        got.clear()
        tokens, mask = padded(model, PAIR)
        with it.applied(model, intervention, look):
            model(tokens, attention_mask=mask)
        return got[0]

    own = acts[SITE]
    torch.testing.assert_close(run(it.splice(acts, SITE, SITE, mapping=lambda x: 2 * x)), 2 * own, atol=1e-5, rtol=1e-5)
    half = it.splice(acts, SITE, SITE, mapping=lambda x: 3 * x, amount=0.5)
    torch.testing.assert_close(run(half), 2 * own, atol=1e-5, rtol=1e-5)
    untouched = it.Intervention(SITE, lambda a: a)
    assert torch.equal(run(it.splice(acts, SITE, SITE, mapping=lambda x: 3 * x, amount=0)), run(untouched))
    with pytest.raises(ValueError, match="from 0"):
        it.splice(acts, SITE, SITE, amount=1.1)
    first_text = it.capture(model, PAIR[:1], SITE)
    half = run(it.splice(first_text, SITE, SITE, mapping=torch.zeros_like))
    assert not half[: length[0]].any() and half[length[0] :].any(), "texts that were not captured keep their own"


def test_nothing_to_splice(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    with pytest.raises(ValueError, match="nothing was captured"):
        it.splice(it.capture(model, [], SITE), SITE, SITE)
    with pytest.raises(KeyError, match="was not captured"):
        it.splice(it.capture(model, PAIR, SITE), "blocks.1.hook_resid_pre", SITE)
    wide = it.splice(it.capture(model, PAIR, SITE), SITE, SITE, mapping=lambda x: x.repeat(1, 2))
    with pytest.raises(ValueError, match=f"rows of width {2 * WIDTH}"):
        it.generate(model, PAIR, wide, max_new_tokens=1)
