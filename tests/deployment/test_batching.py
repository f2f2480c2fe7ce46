"""Requests that are answered together get the answers that they get alone; one that fails or leaves harms no other."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.deployment import batching
from interp_transfer.deployment.batching import Batcher, Busy, Piece, Request, same_for_all
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.streaming import TokenStream
from tests.checkpoints import WIDTH, hooks_of

SITE = "blocks.2.hook_resid_pre"
PROMPTS = ["the cat sat", "x", "dogs run far from home, they say", "12 + 7"]


@pytest.fixture
def model(wrapped: Callable[[str], Any]) -> Any:
    return wrapped("llama")


@pytest.fixture
def batcher(model: Any) -> Iterator[Batcher]:
    made = Batcher(model, lambda settings: ([vector(model).add(torch.tensor(settings))], torch.arange(len(settings))))
    yield made
    made.close()


def vector(model: Any) -> it.SteeringVector:
    return it.SteeringVector(torch.randn(WIDTH, generator=torch.Generator().manual_seed(1)), SITE, it.identity(model))


async def collected(batcher: Batcher, prompt: str, strength: float = 0.0, new: int = 16, **options: Any) -> list[Piece]:
    return [piece async for piece in batcher.answer(Request(batcher.read(prompt), new, strength, **options))]


def text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def together(*work: Any) -> list[Any]:
    async def run() -> list[Any]:
        return await asyncio.gather(*work, return_exceptions=True)

    return asyncio.run(run())


@pytest.mark.parametrize("size", [None, 1, 5])
def test_answers_are_those_alone(model: Any, size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    build = TokenStream.__init__
    monkeypatch.setattr(TokenStream, "__init__", lambda self, m, ids, *a: batches.append(len(ids)) or build(self, m, ids, *a))
    combine = lambda settings: ([vector(model).add(torch.tensor(settings))], torch.arange(len(settings)))  # noqa: E731
    batcher = Batcher(model, combine, size)
    asked = [(PROMPTS[i % 4], (i - 16) / 4, 5 + i % 11) for i in range(32)]
    answers = together(*(collected(batcher, *one) for one in asked))
    batcher.close()
    assert sum(batches[1:]) == 32 and max(batches) == min(size or 32, max(batches))
    assert size == 1 or max(batches) > 1
    for (prompt, strength, new), pieces in zip(asked, answers, strict=True):
        ids = generate_tokens(model, [prompt], vector(model).add(strength), max_new_tokens=new, progress=False)[0]
        [whole] = it.generate(model, [prompt], vector(model).add(strength), max_new_tokens=new, progress=False)
        assert (text(pieces), pieces[-1].tokens) == (whole, len(ids))
        assert pieces[-1].finish == ("stop" if ids[-1] == model.tokenizer.eos_token_id else "length")
    assert len({text(pieces) for pieces in answers}) > 16


def test_a_later_request_is_answered_while_an_earlier_one_is_generated(batcher: Batcher) -> None:
    order: list[str] = []

    async def one(name: str, new: int, after: asyncio.Event | None, begun: asyncio.Event) -> None:
        if after is not None:
            await after.wait()
        async for piece in batcher.answer(Request(batcher.read("the cat sat"), new, 0.0)):
            order.append(name)
            begun.set()
            if piece.finish:
                order.append(f"{name} ended")

    async def both() -> None:
        begun = asyncio.Event()
        await asyncio.gather(one("long", 80, None, begun), one("short", 4, begun, asyncio.Event()))

    asyncio.run(both())
    assert order.index("short ended") < order.index("long ended")


def test_stop_texts_end_an_answer_and_are_no_part_of_it(model: Any, batcher: Batcher) -> None:
    [whole] = it.generate(model, ["dogs run"], max_new_tokens=30, progress=False)
    stop = whole[7:10]
    [pieces, other] = together(
        collected(batcher, "dogs run", 0.0, 30, stop=(stop, "nowhere")),
        collected(batcher, "dogs run", 0.0, 30, stop=("nowhere",)),
    )
    assert text(pieces) == whole[: whole.index(stop)] and pieces[-1].finish == "stop"
    assert text(other) == whole and other[-1].finish == "length"


@pytest.mark.parametrize("tail", ["ab", "a"])
def test_no_part_of_a_stop_text_is_given_before_it_is_known_to_be_none(tail: str) -> None:
    class Letters:
        def decode(self, ids: list[int], **_: Any) -> str:
            return "".join(map(chr, ids))

    given: list[Piece] = []
    row = batching._Row(Request([0], 9, stop=("abc", "xx")), lambda piece: given.append(piece), Letters())  # type: ignore[arg-type]
    for letter in f"zab-{tail}":
        row.take(ord(letter), False)
    assert text(given) == "zab-"  # type: ignore[arg-type]
    row.take(ord("c"), False)
    assert text(given) == ("zab-" if tail == "ab" else "zab-ac")  # type: ignore[arg-type]
    assert row.ended == (tail == "ab")


def test_one_that_fails_harms_no_other(model: Any, batcher: Batcher) -> None:
    [bad, good, other] = together(
        collected(batcher, "x", 1e39), collected(batcher, "the cat sat", 2.0), collected(batcher, "dogs", 0.0)
    )
    assert isinstance(bad, ValueError) and "NaN or infinity" in str(bad)
    assert text(good) == it.generate(model, ["the cat sat"], vector(model).add(2.0), max_new_tokens=16, progress=False)[0]
    assert text(other) == it.generate(model, ["dogs"], max_new_tokens=16, progress=False)[0]
    assert not hooks_of(model)


def test_an_error_in_the_middle_gives_no_text_twice(model: Any, batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    advance, calls = TokenStream.advance, []

    def fails_once(self: TokenStream, give: Any, most: int = 1) -> None:
        advance(self, give, most)
        calls.append(len(self.rows))
        if len(self.rows) > 1 and calls.count(len(self.rows)) == 2:
            raise RuntimeError("once")

    monkeypatch.setattr(TokenStream, "advance", fails_once)
    answers = together(*(collected(batcher, prompt, 1.0, 24) for prompt in PROMPTS))
    assert max(calls) > 1
    for prompt, pieces in zip(PROMPTS, answers, strict=True):
        assert text(pieces) == it.generate(model, [prompt], vector(model).add(1.0), max_new_tokens=24, progress=False)[0]


def test_who_leaves_frees_the_model(model: Any, batcher: Batcher) -> None:
    tokens: list[int] = []
    handle = model.original_model.register_forward_hook(lambda *_: tokens.append(1))

    async def leaves() -> None:
        pieces = batcher.answer(Request(batcher.read("the cat sat"), 85, 0.0))
        async for _ in pieces:
            break
        await pieces.aclose()

    try:
        asyncio.run(leaves())
        assert len(asyncio.run(collected(batcher, "x", 0.0, 5))[-1:]) == 1
        assert len(tokens) < 60
    finally:
        handle.remove()


def test_a_loop_that_ends_without_a_word_does_not_stop_the_others(batcher: Batcher) -> None:
    async def leaves() -> None:
        pieces = batcher.answer(Request(batcher.read("the cat sat"), 85, 0.0))
        await anext(pieces)

    asyncio.run(leaves())
    assert asyncio.run(collected(batcher, "x", 0.0, 5))[-1].tokens == 5


def test_too_many_requests_are_refused(batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "WAITING", 2)
    answers = together(*(collected(batcher, "the cat sat", 0.0, 10) for _ in range(60)))
    refused = [answer for answer in answers if isinstance(answer, Busy)]
    assert refused and "try again later" in str(refused[0])
    assert all(isinstance(answer, Busy) or answer[-1].tokens == 10 for answer in answers)


def test_closing_ends_what_is_in_flight(model: Any) -> None:
    batcher = Batcher(model, same_for_all(()))

    async def one() -> None:
        async for _ in batcher.answer(Request(batcher.read("the cat sat"), 90)):
            await asyncio.to_thread(batcher.close)

    with pytest.raises(Busy, match="no longer served"):
        asyncio.run(one())
    with pytest.raises(Busy, match="no longer served"):
        asyncio.run(collected(batcher, "x"))
    assert batcher._thread is not None and not batcher._thread.is_alive()


def test_requests_that_are_too_large_together_are_answered_in_turn(
    model: Any, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "TOKENS", 50)
    answers = together(*(collected(batcher, prompt, 1.0, 20) for prompt in PROMPTS * 2))
    for prompt, pieces in zip(PROMPTS * 2, answers, strict=True):
        assert text(pieces) == it.generate(model, [prompt], vector(model).add(1.0), max_new_tokens=20, progress=False)[0]


def test_models_in_16_bits_answer_each_request_by_itself(folder: Callable[[str], Any]) -> None:
    half = it.load_model(folder("llama"), device="cpu", dtype="bfloat16")
    assert Batcher(half, same_for_all(()))._size == 1
    assert Batcher(half, same_for_all(()), 8)._size == 8


def test_a_batch_of_none_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        Batcher(model, same_for_all(()), 0)


def test_caches_that_cannot_be_cut(model: Any, batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp_transfer.interventions.streaming.has_plain_cache", lambda _: False)
    monkeypatch.setattr(batcher, "_can_drop", False)
    asked = [(PROMPTS[i % 4], float(i), 3 + 7 * i) for i in range(8)]
    answers = together(*(collected(batcher, *one) for one in asked))
    for (prompt, strength, new), pieces in zip(asked, answers, strict=True):
        assert text(pieces) == it.generate(model, [prompt], vector(model).add(strength), max_new_tokens=new, progress=False)[0]


def test_a_group_that_has_ended_costs_nothing() -> None:
    assert batching._Group([]).cost == 0
