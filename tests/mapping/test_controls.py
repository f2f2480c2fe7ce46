"""The control that knows tokens alone."""

import pytest
import torch

from interp_transfer.activations.align import same_tokens
from interp_transfer.activations.positions import Layout
from interp_transfer.interventions.transforms import At
from interp_transfer.mapping.collect import PairedActivations
from interp_transfer.mapping.controls import token_means
from interp_transfer.models.identity import ModelIdentity

SITES = ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre")
MODELS = ModelIdentity("a", "1" * 16), ModelIdentity("b", "2" * 16)


def paired(x: torch.Tensor, y: torch.Tensor, tokens: torch.Tensor) -> PairedActivations:
    texts = torch.arange(len(x)) // 10
    return PairedActivations({SITES[0]: x}, {SITES[1]: y}, (SITES,), texts, tokens, *MODELS, same_tokens(len(x)))


def test_partners_shuffled_within_texts_stay_in_their_text():
    numbers = torch.arange(60.0)[:, None]
    pairs = paired(numbers, numbers.clone(), torch.arange(60))
    texts = pairs.text_index
    within = pairs.shuffled(1, within_text=True).target[SITES[1]][:, 0].long()
    assert torch.equal(texts[within], texts) and not torch.equal(within, torch.arange(60))
    assert sorted(within.tolist()) == list(range(60)), "every row keeps a partner, and each partner is used once"
    across = pairs.shuffled(1).target[SITES[1]][:, 0].long()
    assert not torch.equal(texts[across], texts)


def test_token_means_are_the_means_of_each_token():
    torch.manual_seed(0)
    tokens = torch.randint(3, 8, (1000,)) * 10
    y = tokens[:, None] + torch.randn(1000, 4)
    pairs = paired(torch.randn(1000, 3), y, tokens)
    control = token_means(pairs)
    train, judge = pairs.split(0.1, 0)
    for token in (30, 70):
        expected = y[train][tokens[train] == token].mean(0)
        torch.testing.assert_close(control.of(torch.tensor([token]))[0], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(control.of(torch.tensor([31, 999])), y[train].mean(0).expand(2, 4), rtol=1e-4, atol=1e-4)
    residue = (y[judge] - control.of(tokens[judge])).square().sum() / (y[judge] - y[judge].mean(0)).square().sum()
    assert control.fvu == pytest.approx(float(residue), rel=1e-4)
    ids = torch.tensor([[30, 70]])
    layout = Layout(ids, torch.ones_like(ids, dtype=torch.bool), torch.tensor([2]), torch.tensor([0]), None)
    at = At(layout, (torch.zeros(2, dtype=torch.long), torch.arange(2)))
    assert torch.equal(control(torch.zeros(2, 4), at), control.of(ids[0]))
