"""The control that knows tokens alone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from interp_transfer.activations.align import same_tokens
from interp_transfer.activations.positions import Layout
from interp_transfer.interventions.transforms import At
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.paper import token_means as module
from interp_transfer.paper.token_means import token_means
from tests.planted_pairs import planted

SITES = ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre")
MODELS = ModelIdentity("a", "1" * 16), ModelIdentity("b", "2" * 16)


def paired(x: torch.Tensor, y: torch.Tensor, tokens: torch.Tensor) -> PairedActivations:
    texts = torch.arange(len(x)) // 10
    return PairedActivations({SITES[0]: x}, {SITES[1]: y}, (SITES,), texts, tokens, *MODELS, same_tokens(len(x)))


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


@pytest.mark.parametrize("block", [8192, 256])
def test_token_means_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    memory, disk = planted(3000, tmp_path)
    one = token_means(memory)
    monkeypatch.setattr(module, "BLOCK_ROWS", block)
    other = token_means(disk)
    assert torch.equal(one.ids, other.ids) and other.fvu == pytest.approx(one.fvu, rel=1e-9)
    torch.testing.assert_close(other.means, one.means)
    torch.testing.assert_close(other.rest, one.rest)


def test_no_more_than_a_block_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, disk = planted(3000, tmp_path)
    most, empty = 0, torch.empty

    def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal most
        out = empty(*args, **kwargs)
        most = max(most, len(out)) if out.ndim == 2 else most
        return out

    monkeypatch.setattr(module, "BLOCK_ROWS", 256)
    monkeypatch.setattr(torch, "empty", watched)
    token_means(disk)
    assert most == 256
