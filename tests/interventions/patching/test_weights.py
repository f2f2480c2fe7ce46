"""Weight patching: which weights are exchanged, and that they come back."""

import pytest
import torch

import interp_transfer as it
from interp_transfer.interventions.patching.weights import SCHEMES, spaced, weights_from
from tests.checkpoints import make_checkpoint, raw_model

TEXTS = ["one two three", "four five"]


@pytest.fixture(scope="module", params=["qwen2", "llama", "gemma2"])
def pair(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    one = make_checkpoint(root / "one", request.param)
    hf = raw_model(one)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    other = make_checkpoint(root / "other", request.param)
    hf.save_pretrained(other)
    return it.load_model(str(one), device="cpu"), it.load_model(str(other), device="cpu"), one, other


def logits(model):
    with torch.no_grad():
        return model(torch.tensor([[3, 5, 7, 9]]))


def test_everything_makes_it_the_other_and_all_of_it_comes_back(pair):
    model, donor, *_ = pair
    before = logits(model)
    with pytest.raises(KeyError), weights_from(model, donor):
        torch.testing.assert_close(logits(model), logits(donor), rtol=0, atol=0)
        assert it.generate(model, TEXTS, max_new_tokens=4, progress=False) == it.generate(
            donor, TEXTS, max_new_tokens=4, progress=False
        )
        raise KeyError
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme_takes_what_it_says(pair, scheme):
    model, donor, one, other = pair
    count = 1 if scheme == "spaced" else None
    mixed, theirs = raw_model(one), dict(raw_model(other).named_parameters())
    n_layers, number = mixed.config.num_hidden_layers, 0
    with torch.no_grad():
        for name, parameter in mixed.named_parameters():
            block = int(name.split(".")[2]) if name.startswith("model.layers.") else None
            outer = name.startswith(("model.embed_tokens", "lm_head"))
            taken = {
                "everything": True,
                "blocks": block is not None,
                "embeddings": outer,
                "spaced": block == n_layers // 2,
            }[scheme]
            if taken:
                number += parameter.numel()
                parameter.copy_(theirs[name])
        expected = mixed(torch.tensor([[3, 5, 7, 9]])).logits
    with weights_from(model, donor, scheme, count) as changed:
        torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
        assert changed == number
    if scheme != "everything":
        assert (expected - logits(donor)).abs().max() > 1e-3
    assert (expected - logits(model)).abs().max() > 1e-3


def test_blocks_are_spaced_evenly():
    assert spaced(8, 1) == [4]
    assert spaced(8, 2) == [2, 6]
    assert spaced(8, 4) == [1, 3, 5, 7]
    assert spaced(8, 8) == list(range(8))
    for count in range(1, 25):
        assert len(set(spaced(24, count))) == count
    with pytest.raises(ValueError, match="from 1 to 8"):
        spaced(8, 9)


def test_what_cannot_be_is_refused(pair, folder):
    model, donor, *_ = pair
    with pytest.raises(ValueError, match="unknown scheme 'block': did you mean 'blocks'"), weights_from(model, donor, "block"):
        pass
    with pytest.raises(ValueError, match="needs a number of blocks"), weights_from(model, donor, "spaced"):
        pass
    with pytest.raises(ValueError, match="needs a number of blocks"), weights_from(model, donor, "blocks", 2):
        pass
    with pytest.raises(ValueError, match="are the same object"), weights_from(model, model):
        pass
    other = it.load_model(str(folder("gpt2")), device="cpu")
    with pytest.raises(ValueError, match="different names or shapes"), weights_from(model, other):
        pass
