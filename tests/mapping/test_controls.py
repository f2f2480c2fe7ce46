"""The control whose partners are exchanged."""

import torch

from interp_transfer.activations.align import same_tokens
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.models.identity import ModelIdentity

SITES = ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre")
MODELS = ModelIdentity("a", "1" * 16), ModelIdentity("b", "2" * 16)


def test_partners_shuffled_within_texts_stay_in_their_text():
    numbers = torch.arange(60.0)[:, None]
    rows, texts = torch.arange(60), torch.arange(60) // 10
    source, target = {SITES[0]: numbers}, {SITES[1]: numbers.clone()}
    pairs = PairedActivations(source, target, (SITES,), texts, rows, *MODELS, same_tokens(60))
    within = pairs.shuffled(1, within_text=True).target[SITES[1]][:, 0].long()
    assert torch.equal(texts[within], texts) and not torch.equal(within, torch.arange(60))
    assert sorted(within.tolist()) == list(range(60)), "every row keeps a partner, and each partner is used once"
    across = pairs.shuffled(1).target[SITES[1]][:, 0].long()
    assert not torch.equal(texts[across], texts)
