"""Several maps under one penalty."""

import pytest
import torch

from interp_transfer.activations.align import same_tokens
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.kinds import RIDGES
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.paper.joint import fit_each

SOURCE, TARGET = ModelIdentity("a", "1" * 16), ModelIdentity("b", "2" * 16)
A, B, C = "blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"


def test_maps_of_several_pairs_share_the_penalty_of_the_least_error():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(600, 4, generator=generator), torch.randn(600, 3, generator=generator)
    y = a @ torch.randn(4, 5, generator=generator) + b @ torch.randn(3, 5, generator=generator)
    index = torch.arange(600) // 10
    pairs = PairedActivations({A: a, B: b}, {C: y}, ((A, C), (B, C)), index, index, SOURCE, TARGET, same_tokens(600))
    mappers = fit_each(pairs, "affine")
    shared = {mapper.card.settings["ridge"] for mapper in mappers.values()}
    assert len(shared) == 1
    errors = {r: sum(fit(pairs, "affine", sites=p, ridge=r).card.fvu for p in pairs.site_pairs) for r in RIDGES}
    assert shared == {min(errors, key=lambda r: errors[r])}
    assert {m.card.settings["ridge"] for m in fit_each(pairs, "affine", ridge=0.5).values()} == {0.5}
    assert set(fit_each(pairs, "procrustes")) == set(pairs.site_pairs)
    with pytest.raises(ValueError, match="unknown setting 'ridge' of 'procrustes'"):
        fit_each(pairs, "procrustes", ridge=0.1)
