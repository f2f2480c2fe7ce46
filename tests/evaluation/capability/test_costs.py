"""What an intervention costs elsewhere: figures by hand, and conditions that have to come out one way."""

import math
from collections.abc import Callable
from statistics import mean
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.capability.costs import off_distribution, perplexity
from interp_transfer.interventions.transforms import Add
from interp_transfer.models.tokens import tokenize
from tests.checkpoints import TEXTS as ALL_TEXTS
from tests.checkpoints import WIDTH

TEXTS = [text for text in ALL_TEXTS if len(text) > 1]
SITE = "blocks.2.hook_resid_pre"


@torch.no_grad()
def test_perplexity_and_divergence_by_hand(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("llama")
    steer = it.Intervention(SITE, Add(torch.linspace(-2, 2, WIDTH)))
    found = off_distribution(model, TEXTS, steer)
    losses, before, kls = [], [], []
    for ids in tokenize(model, TEXTS):
        own = model(torch.tensor([ids]))[0].log_softmax(-1)[:-1]
        with it.applied(model, steer):
            other = model(torch.tensor([ids]))[0].log_softmax(-1)[:-1]
        said = torch.tensor(ids[1:])[:, None]
        losses.append(-float(other.gather(1, said).mean()))
        before.append(-float(own.gather(1, said).mean()))
        kls.append(float((own.exp() * (own - other)).sum(-1).mean()))
    assert found.loss.value == pytest.approx(mean(losses), rel=1e-4)
    assert found.loss_before.value == pytest.approx(mean(before), rel=1e-4)
    ends = perplexity(found.loss)
    assert (ends.value, ends.low, ends.high) == pytest.approx(
        tuple(math.exp(end) for end in (mean(losses), found.loss.low, found.loss.high)), rel=1e-4
    )
    assert found.kl.value == pytest.approx(mean(kls), rel=1e-3) and found.kl.value > 0.01
    assert 0 <= found.kl.low < found.kl.value < found.kl.high and found.kl.n == ends.n == len(TEXTS)


def test_positions_count_from_the_first_token(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    shift = Add(torch.linspace(-2, 2, WIDTH))
    every, behind = (off_distribution(model, TEXTS, it.Intervention(SITE, shift, at)) for at in ("all", "generated"))
    first = off_distribution(model, TEXTS, it.Intervention(SITE, shift, 0))
    assert len({round(one.kl.value, 6) for one in (every, behind, first)}) == 3


def test_nothing_done_costs_nothing(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("llama")
    none, zero = (off_distribution(model, TEXTS, *i) for i in ((), (it.Intervention(SITE, Add(torch.zeros(WIDTH))),)))
    assert none.kl.value == pytest.approx(0, abs=1e-6) and zero.kl.value == pytest.approx(0, abs=1e-5)
    assert zero.loss.value == pytest.approx(none.loss.value, abs=1e-5)


def test_what_cannot_be_measured(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    for texts, match in (([], "no texts"), ("one", "no texts"), (["a"], "one token")):
        with pytest.raises(ValueError, match=match):
            off_distribution(model, texts)
