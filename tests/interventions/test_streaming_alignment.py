"""The sequences that a source has to read for a growing text, compared with results by hand."""

from typing import Any

import pytest

from interp_transfer.activations.align import align
from interp_transfer.interventions.streaming_alignment import StreamingAligner, TargetTokens, same_tokens
from tests.checkpoints import byte_tokenizer
from tests.family_tokenizers import family_tokenizer


@pytest.fixture(scope="module")
def gemma() -> Any:
    return family_tokenizer("gemma")


def found(aligner: StreamingAligner, ids: list[int], prompt: int, positions: list[int]) -> list[dict[int, Any]]:
    """By position, the source's tokens that are its aligner, sequence by sequence."""
    return [
        {
            p: aligner.source.convert_ids_to_tokens(one.ids[i:j])
            for p, i, j in zip(one.positions, one.first, one.stop, strict=True)
        }
        for one in aligner.pair([TargetTokens(ids, prompt, positions)])[0]
    ]


@pytest.mark.parametrize("strategy", ["last_so_far", "same_boundary", "mean_in_span", "index_left", "index_right"])
def test_a_prompt_is_paired_as_a_whole_text_is(gemma: Any, strategy: str) -> None:
    for source, target in ((gemma, byte_tokenizer()), (byte_tokenizer(True), gemma)):
        for text in ("User: hi there, dogs", "né 😀 x", " y"):
            ids = target(text)["input_ids"]
            asked = TargetTokens(ids, len(ids), list(range(len(ids))))
            whole = align(source, target, [text], strategy)
            got = StreamingAligner(source, target, strategy).pair([asked])[0]
            pairs = [(p, i, j) for one in got for p, i, j in zip(one.positions, one.first, one.stop, strict=True)]
            columns = (whole.target.tolist(), whole.first.tolist(), whole.stop.tolist())
            assert pairs == list(zip(*columns, strict=True)), text
            assert all(one.ids == source(text)["input_ids"][: len(one.ids)] for one in got)


def test_a_word_is_paired_by_what_it_is_so_far() -> None:
    fine: Any = byte_tokenizer()
    coarse: Any = family_tokenizer("llama")
    prompt, word = fine("The answer:")["input_ids"], [fine.convert_tokens_to_ids(t) for t in ("Ġ", "n", "o", "t")]
    assert coarse.tokenize(" not") == ["Ġnot"] or len(coarse.tokenize(" not")) < 4
    aligner = StreamingAligner(coarse, fine, "last_so_far")
    ids = [*prompt, *word]
    for n in range(len(word)):
        position = len(prompt) + n
        now = found(aligner, ids[: position + 1], len(prompt), [position])
        so_far = coarse.tokenize("The answer:" + " not"[: n + 1])
        assert now == [{position: so_far[-1:]}], "as if nothing came behind"
    # The same again at once, as teacher forcing asks for it: what has changed takes a sequence of its own.
    fresh = StreamingAligner(coarse, fine, "last_so_far").pair([TargetTokens(ids, len(prompt), list(range(len(ids))))])[0]
    every = [p for one in fresh for p in one.positions]
    assert every == list(range(len(ids)))
    for one in fresh:
        for p, last in zip(one.positions, one.stop, strict=True):
            if p < len(prompt):
                assert one.ids[:last] == coarse("The answer:")["input_ids"][:last]
            else:
                assert one.ids[:last] == coarse("The answer:" + " not"[: p - len(prompt) + 1])["input_ids"]
    assert found(StreamingAligner(coarse, fine, "word_ends"), ids, len(prompt), [len(prompt) - 1]) == [{len(prompt) - 1: [":"]}]
    assert found(StreamingAligner(coarse, fine, "word_ends"), ids, len(prompt), [len(ids) - 1]) == [], "the word may go on"


def test_specials_are_text_in_a_prompt_and_nothing_when_generated(gemma: Any) -> None:
    fine: Any = byte_tokenizer(True)
    begin, end = fine.bos_token_id, fine.eos_token_id
    a = fine.convert_tokens_to_ids("a")
    aligner = StreamingAligner(gemma, fine, "last_so_far")
    (only,) = aligner.pair([TargetTokens([begin, a, end, a], 4, [0, 1, 2, 3])])[0]
    assert only.ids == gemma("a<|end|>a")["input_ids"], "BOS is no text, and the source has its own; <|end|> was written"
    assert only.ids[only.first[0]] == gemma.bos_token_id, "BOS belongs to BOS"
    (only,) = aligner.pair([TargetTokens([begin, a, end, a], 2, [0, 1, 2, 3])])[0]
    assert only.ids == gemma("aa")["input_ids"][: len(only.ids)]
    assert only.positions == [0, 1, 2, 3]


def test_bytes_that_make_no_character_yet_are_not_read(gemma: Any) -> None:
    fine: Any = byte_tokenizer()
    prompt, face = fine("a")["input_ids"], fine("😀")["input_ids"]
    assert len(face) == 4
    aligner = StreamingAligner(gemma, fine, "same_boundary")
    for n in range(1, 5):
        ids = [*prompt, *face[:n]]
        now = aligner.pair([TargetTokens(ids, 1, [n])])[0]
        if n < 4:
            assert now == [], "no token of the source ends within the character"
        else:
            assert [one.ids for one in now] == [gemma("a😀")["input_ids"]]
    # Tokens that no tokenizer would have chosen are decoded one by one.
    letters = [fine.convert_tokens_to_ids(x) for x in ("t", "h", "e")]
    assert fine("the")["input_ids"] != letters
    (one,) = StreamingAligner(gemma, fine, "last_so_far").pair([TargetTokens(letters, 3, [2])])[0]
    assert one.ids == gemma("the")["input_ids"]


def test_tokens_of_one_tokenizer() -> None:
    (one,) = same_tokens(TargetTokens([5, 6, 7, 8], 2, [1, 2]))
    assert (one.ids, one.positions, one.first, one.stop) == ([5, 6, 7], [1, 2], [1, 2], [2, 3])
    assert same_tokens(TargetTokens([5], 1, [])) == []
