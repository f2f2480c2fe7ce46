"""Texts beyond a context: what is read of them is what a model with a longer context reads at the same place."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.mapping import pair_reader
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.stored import open_pairs
from interp_transfer.mapping.truncation import readable
from interp_transfer.models.load import load_model
from interp_transfer.models.tokens import tokenizer_of
from tests.checkpoints import byte_tokenizer, make_checkpoint, word_tokenizer

S, T = "blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dogs", "run", "far", "from", "home", "they", "say", "12", "+", "7"]
FEW, BYTES = 12, 22  # tokens that the model of whole words can read, and those of bytes
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"


def sentence(words: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


TEXTS = [sentence(3 + (7 * i) % 32, i) for i in range(24)]
"""Of 3 to 34 words: of those that are too long, some meet the one limit first and some the other."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two models of bytes and one of whole words; in capitals, the same with a longer context."""
    root, made = tmp_path_factory.mktemp("models"), {}
    for name, family, seed, context in (("a", "qwen2", 0, BYTES), ("b", "qwen2", 1, BYTES), ("w", "llama", 2, FEW)):
        tokenizer: dict[str, Any] = {"tokenizer": word_tokenizer(WORDS)} if name == "w" else {}
        for called, length in ((name, context), (name.upper(), 1000)):
            folder = make_checkpoint(root / f"{name}-{length}", family, seed, max_position_embeddings=length)
            made[called] = load_model(str(folder), device="cpu", **tokenizer)
    return made


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_reader, "ROWS_PER_PORTION", 60)


def collected(models: dict[str, Any], pair: str, texts: Any, too_long: str = "refuse", **kwargs: Any) -> Any:
    return it.collect(models[pair[0]], models[pair[1]], texts, S, T, too_long=too_long, progress=False, **kwargs)


def content(pairs: Any) -> list[torch.Tensor]:
    return [column[:] for column in (pairs.source[S], pairs.target[T], pairs.text_index, pairs.target_token)]


def too_much(models: dict[str, Any], pair: str, text: str) -> bool:
    """Whether one of two models cannot read a text."""
    return any(len(tokenizer_of(models[name])(text)["input_ids"]) > (FEW if name == "w" else BYTES) for name in pair)


def beyond(models: dict[str, Any], pair: str) -> list[int]:
    """Texts that one of two models cannot read."""
    return [i for i, text in enumerate(TEXTS) if too_much(models, pair, text)]


@pytest.mark.parametrize("pair", ["ab", "wb", "bw"])
def test_a_cut_text_gives_the_first_rows_of_the_whole_one(models: dict[str, Any], pair: str) -> None:
    found, whole = collected(models, pair, TEXTS, "cut"), collected(models, pair.upper(), TEXTS)
    long, read = beyond(models, pair), readable([models[name] for name in pair], TEXTS, "cut", 0).texts
    assert 5 < len(long) < 20 and (found.alignment.texts_cut, found.alignment.texts_dropped) == (len(long), 0)
    assert f"{len(long)} texts too long and cut" in repr(found) and repr(found).count("too long") == 1
    assert f"{len(long)} texts too long and cut" in repr(found.alignment)
    for index, (text, short) in enumerate(zip(TEXTS, map(str, read), strict=True)):
        assert text.startswith(short) and (short == text) == (index not in long)
        assert not too_much(models, pair, short)
        longer = " ".join(text.split()[: len(short.split()) + 1])
        assert short == text or too_much(models, pair, longer), "one more word would be too much"
        mine, theirs = ([rows[p.text_index == index] for rows in content(p)] for p in (found, whole))
        assert 0 < len(mine[0]) <= len(theirs[0]) and (len(mine[0]) < len(theirs[0])) == (index in long)
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other[: len(one)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bos", [False, True])
def test_a_character_is_never_cut(tmp_path: Path, bos: bool) -> None:
    folder = make_checkpoint(tmp_path / "m", "qwen2", max_position_embeddings=30)
    model = load_model(str(folder), device="cpu", tokenizer=byte_tokenizer(bos))
    for start in range(4):
        text = "x" * start + "日本🎉é" * 30
        (short,) = readable((model, model), [text], "cut", 0).texts
        assert isinstance(short, str) and text.startswith(short)
        whole, ids = (byte_tokenizer(bos)(t)["input_ids"] for t in (text, short))
        assert ids == whole[: len(ids)] and 30 - 4 < len(ids) <= 30


@pytest.mark.parametrize("pair", ["ab", "wb"])
def test_dropped_texts_leave_no_trace_but_their_numbers(models: dict[str, Any], pair: str) -> None:
    long = beyond(models, pair)
    within = [i for i in range(len(TEXTS)) if i not in long]
    found, without = collected(models, pair, TEXTS, "drop"), collected(models, pair, [TEXTS[i] for i in within])
    for one, other in zip(content(found)[:2], content(without)[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.target_token, without.target_token)
    assert torch.equal(found.text_index, torch.tensor(within)[without.text_index])
    assert found.alignment.texts_dropped == len(long) and f"{len(long)} texts too long and dropped" in repr(found)
    assert found.alignment.target_tokens == without.alignment.target_tokens
    assert fit(found, "affine", held_out=0.2).card.rows > 0


@pytest.mark.parametrize("too_long", ["cut", "drop"])
def test_a_store_goes_on_with_the_same_choice(models: dict[str, Any], tmp_path: Path, too_long: str) -> None:
    memory = collected(models, "wb", TEXTS, too_long)
    for upto in (7, 16, 24):
        disk = collected(models, "wb", TEXTS[:upto], too_long, store=tmp_path)
    assert [len(column) for column in content(disk)] == [len(column) for column in content(memory)]
    for one, other in zip(content(disk), content(memory), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    for found in (disk, open_pairs(tmp_path)):
        assert (found.alignment.texts_cut, found.alignment.texts_dropped, found.alignment.coverage) == (
            memory.alignment.texts_cut,
            memory.alignment.texts_dropped,
            memory.alignment.coverage,
        )
    assert repr(disk).startswith(repr(memory)[:-1])
    other = {"cut": "drop", "drop": "cut"}[too_long]
    with pytest.raises(ValueError, match=rf"meta\['too_long'\] is '{too_long}' in the store, and '{other}' is asked for"):
        collected(models, "wb", TEXTS, other, store=tmp_path)
    with pytest.raises(ValueError, match=rf"meta\['too_long'\] is '{too_long}' in the store, and 'refuse' is asked for"):
        collected(models, "wb", TEXTS[:1], store=tmp_path)
    collected(models, "wb", TEXTS[:1], store=tmp_path / "refused")
    with pytest.raises(ValueError, match=rf"meta\['too_long'\] is 'refuse' in the store, and '{too_long}' is asked for"):
        collected(models, "wb", TEXTS[:1], too_long, store=tmp_path / "refused")


def test_whole_portions_may_be_dropped(models: dict[str, Any], tmp_path: Path) -> None:
    """At the beginning, in the middle and at the end, and at a site of another width than the stream's."""
    long, short = [sentence(60, i) for i in range(30)], [sentence(4, i) for i in range(6)]
    texts, site = [*long, *short[:3], *long, *short[3:], *long], "blocks.1.mlp.hook_post"
    for store in (None, tmp_path):
        how = {"too_long": "drop", "progress": False}
        found = it.collect(models["a"], models["b"], iter(texts), site, T, store=store, **how)
        alone = it.collect(models["a"], models["b"], short, site, T, progress=False)
        assert found.alignment.texts_dropped == 90
        assert found.text_index[:].unique().tolist() == [30, 31, 32, 63, 64, 65]
        torch.testing.assert_close(found.source[site][:], alone.source[site], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="all 30 texts are longer than the models' contexts"):
        collected(models, "ab", long, "drop", store=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_done_is_said_before_any_work(models: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"text 2 has .* context is 22.*, or collect with too_long='cut' or too_long='drop'"):
        collected(models, "ab", [*TEXTS[:2], "dogs " * 100])
    with pytest.raises(ValueError, match=r"text 9 has .* or collect with too_long='cut' or too_long='drop'"):
        collected(models, "ab", iter([*["x"] * 9, "dogs " * 100]))
    with pytest.raises(ValueError, match="unknown too_long='crop': did you mean 'drop'"):
        collected(models, "ab", TEXTS, "crop")
    with pytest.raises(ValueError, match="text 2 is longer .* no place within them where a token of either ends"):
        collected(models, "wb", ["the cat", "the mat", "dogs" * 60], "cut")
    for too_long in ("cut", "drop"):
        with pytest.raises(ValueError, match="text 1 .* has no tokens"):
            collected(models, "ab", ["x", "", "dogs " * 100], too_long)


def test_conversations_are_dropped_and_never_cut(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "wb":
        monkeypatch.setattr(tokenizer_of(models[name]), "chat_template", TEMPLATE)
    short, long = ([{"role": "user", "content": sentence(n, n)}] for n in (2, 40))
    found, alone = (collected(models, "wb", texts, "drop") for texts in ([long, short, long, short], [short, short]))
    assert found.text_index.unique().tolist() == [1, 3] and found.alignment.texts_dropped == 2
    torch.testing.assert_close(found.source[S], alone.source[S], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="too_long='cut' is for plain texts, and these are conversations"):
        collected(models, "wb", [short], "cut")
    with pytest.raises(ValueError, match="text 0 has .* or collect with"):
        collected(models, "wb", [long])
