"""A stream's tokens are those of ``generate``, its text is whole characters, and between two pieces the model is free."""

from collections.abc import Callable
from itertools import islice
from threading import Thread
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.streaming import Sampling, TextPieces, TokenStream, stream
from interp_transfer.models.tokens import tokenize
from tests.checkpoints import FAMILIES, WIDTH, byte_tokenizer, hooked_transformer, hooks_of
from tests.family_tokenizers import family_tokenizer

SITE = "blocks.2.hook_resid_pre"
PROMPT = "the cat sat on"
TEXT = "naïve café — 東京 🙂👍🏽 family: 👨‍👩‍👧 end"


def vector_of(model: Any, seed: int = 0) -> it.SteeringVector:
    direction = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
    return it.SteeringVector(direction, SITE, it.identity(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pieces_are_the_completion_of_generate(wrapped: Callable[[str], Any], family: str) -> None:
    model = wrapped(family)
    vector = vector_of(model)
    other = "blocks.1.hook_resid_pre"
    for interventions in ((), (vector.add(2.0),), (vector.add(-3.0, "generated"),), (it.follow(model, other, SITE),)):
        [whole] = it.generate(model, [PROMPT], *interventions, max_new_tokens=24, progress=False)
        assert "".join(stream(model, PROMPT, *interventions, max_new_tokens=24)) == whole
        assert not hooks_of(model)


def test_the_first_piece_is_there_before_the_second_token_is_computed(wrapped: Callable[[str], Any]) -> None:
    model, passes = wrapped("llama"), []
    handle = model.original_model.register_forward_hook(lambda *_: passes.append(1))
    try:
        tokens = TokenStream(model, tokenize(model, [PROMPT]), ())
        given: list[list[int]] = []
        seen: list[int] = []
        tokens.advance(lambda row: given.append(row) or bool(seen.append(len(passes))), 3)
        assert seen == [1, 2, 3]
        tokens.advance(lambda row: given.append(row) or True, 3)  # pauses after one
        tokens.advance(lambda row: bool(given.append(row)), 4)
        assert len(passes) == 8
    finally:
        handle.remove()
    assert [token for [token] in given] == generate_tokens(model, [PROMPT], max_new_tokens=8, progress=False)[0]


def test_rows_are_dropped_and_the_others_go_on(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    prompts, strengths = ["x", PROMPT, "dogs run far from home", "a"], torch.tensor([0.0, 1.0, -2.0, 3.0])
    alone = [
        generate_tokens(model, [prompt], vector_of(model).add(float(s)), max_new_tokens=12, eos_token_id=-1, progress=False)[0]
        for prompt, s in zip(prompts, strengths, strict=True)
    ]
    tokens = TokenStream(model, tokenize(model, prompts), [vector_of(model).add(strengths)])
    got: list[list[int]] = [[] for _ in prompts]

    def give(new: list[int]) -> bool:
        for row, token in zip(tokens.rows, new, strict=True):
            got[row].append(token)
        return False

    tokens.advance(give, 4)
    tokens.keep([1, 3])
    tokens.advance(give, 5)
    tokens.keep([3])
    tokens.advance(give, 3)
    assert [len(row) for row in got] == [4, 9, 4, 12]
    assert all(row == whole[: len(row)] for row, whole in zip(got, alone, strict=True))


def test_between_two_pieces_the_model_is_free(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("llama")
    vector = vector_of(model)
    [plain] = it.generate(model, [PROMPT], max_new_tokens=9, progress=False)
    [whole] = it.generate(model, [PROMPT], vector.add(2.0), max_new_tokens=9, progress=False)
    pieces, between, there = stream(model, PROMPT, vector.add(2.0), max_new_tokens=9), [], []

    def unsteered() -> None:
        between.extend(it.generate(model, [PROMPT], max_new_tokens=9, progress=False))

    for piece in pieces:
        there.append(piece)
        assert not hooks_of(model)
        thread = Thread(target=unsteered)
        thread.start()
        thread.join(30)
        unsteered()
    assert "".join(there) == whole
    assert len(between) >= 2 and set(between) == {plain}


def test_an_iterator_that_is_left_behind_leaves_nothing(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("llama")
    pieces: Any = stream(model, PROMPT, it.follow(model, "blocks.1.hook_resid_pre", SITE), max_new_tokens=30)
    assert list(islice(pieces, 1))
    pieces.close()
    assert not hooks_of(model) and list(pieces) == []


def test_an_error_of_a_transform_removes_the_hooks(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("llama")
    with pytest.raises(ValueError, match="gives NaN or infinity"):
        list(stream(model, PROMPT, vector_of(model).add(1e39)))
    assert not hooks_of(model)


def test_errors_come_at_once(wrapped: Callable[[str], Any], folder: Any) -> None:
    model = wrapped("llama")
    with pytest.raises(ValueError, match="shorten the prompt"):
        stream(model, PROMPT, max_new_tokens=1000)
    with pytest.raises(ValueError, match="at least one token"):
        stream(model, PROMPT, max_new_tokens=0)
    with pytest.raises(ValueError, match="did you mean"):
        stream(model, PROMPT, it.Intervention("blocks.2.hook_resid_pr", lambda a: a))
    with pytest.raises(ValueError, match="temperature=-1"):
        stream(model, PROMPT, temperature=-1)
    with pytest.raises(ValueError, match="cannot stream"):
        stream(hooked_transformer(folder("llama")), PROMPT)


@pytest.mark.parametrize("family", ["qwen", "llama", "gemma"])
def test_characters_of_several_tokens_are_given_whole(family: str) -> None:
    tokenizer = family_tokenizer(family)
    ids = tokenizer(TEXT * 5, add_special_tokens=False)["input_ids"]
    text = TextPieces(tokenizer)
    pieces = [text.add(token) for token in ids]
    assert not any("\ufffd" in piece for piece in pieces) and text.end() == ""
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_an_incomplete_character_is_given_at_the_end() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer("ab🙂")["input_ids"]
    text = TextPieces(tokenizer)
    assert "".join(map(text.add, ids[:-1])) == "ab"
    assert text.end() == "\ufffd"


def test_text_that_was_settled_is_not_decoded_again() -> None:
    tokenizer, decoded = byte_tokenizer(), []

    class Counting:
        def decode(self, ids: list[int], **options: Any) -> str:
            decoded.append(len(ids))
            return str(tokenizer.decode(ids, **options))

    ids = tokenizer("x, y and 12 + 7 " * 60)["input_ids"]
    text = TextPieces(Counting())
    assert "".join(map(text.add, ids)) == tokenizer.decode(ids)
    assert len(ids) > 300 and max(decoded) < 100


def test_sampling_follows_the_probabilities_and_its_seed() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -9.0])
    for temperature in (0.5, 1.0):
        sampling = Sampling(temperature, seed=3)
        drawn = torch.bincount(torch.stack([sampling.scores(logits).argmax() for _ in range(4000)]), minlength=4) / 4000
        assert torch.allclose(drawn, (logits / temperature).softmax(dim=0), atol=0.03)
    nucleus = Sampling(1.0, top_p=0.8, seed=3)
    assert {int(nucleus.scores(logits).argmax()) for _ in range(400)} == {1, 2}
    assert int(Sampling(1e-30).scores(logits).argmax()) == 2
    assert Sampling(1.0).scores(logits.half()).dtype == torch.float32  # quotients exceed the range of float16
    one, same, other = (Sampling(1.0, seed=seed) for seed in (1, 1, 2))
    draws = [[int(s.scores(logits).argmax()) for _ in range(30)] for s in (one, same, other)]
    assert draws[0] == draws[1] != draws[2]


def test_draws_do_not_depend_on_the_other_rows(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("llama")
    prompts = [PROMPT, "x", "dogs run"]

    def drawn(chosen: list[int]) -> list[list[int]]:
        ids = tokenize(model, [prompts[k] for k in chosen])
        tokens = TokenStream(model, ids, (), [Sampling(0.0 if k == 1 else 1.0, seed=k) for k in chosen])
        out: list[list[int]] = []
        tokens.advance(lambda row: bool(out.append(row)), 10)
        return [list(column) for column in zip(*out, strict=True)]

    together = drawn([0, 1, 2])
    assert together == [drawn([k])[0] for k in range(3)]
    assert together[1] == generate_tokens(model, ["x"], max_new_tokens=10, eos_token_id=-1, progress=False)[0]
    assert together[0] != generate_tokens(model, [PROMPT], max_new_tokens=10, eos_token_id=-1, progress=False)[0]
