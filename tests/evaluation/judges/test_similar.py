"""Similarity of embeddings, by a tiny encoder that is made here."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from interp_transfer.evaluation.judges import Item, ask, similar
from interp_transfer.evaluation.judges.similar import similarity_judge
from tests.checkpoints import make_checkpoint, raw_model, raw_tokenizer


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mean pooling over a tiny GPT-2, as sentence-transformers saves it."""
    from sentence_transformers import SentenceTransformer

    root = tmp_path_factory.mktemp("encoder")
    SentenceTransformer(str(make_checkpoint(root / "words", "gpt2")), device="cpu").save(str(root / "whole"))
    assert (root / "whole" / "modules.json").exists()
    return root / "whole"


def test_it_is_the_cosine_of_mean_states(encoder: Path, folder: Callable[[str], Path]):
    texts, others = ["the cat sat", "dogs run", "12 + 7"], ["a cat sat", "far from home, they say", "12 + 7"]
    model, tok = raw_model(folder("gpt2")), raw_tokenizer(folder("gpt2"))

    def state(text: str) -> torch.Tensor:
        with torch.no_grad():
            return model(torch.tensor([tok(text)["input_ids"]]), output_hidden_states=True).hidden_states[-1][0].mean(dim=0)

    expected = [float(torch.cosine_similarity(state(a), state(b), dim=0)) for a, b in zip(texts, others, strict=True)]
    judged = ask(similarity_judge(str(encoder), device="cpu"), ["p"] * 3, texts, others, progress=False)
    assert judged.scores == pytest.approx(expected, abs=1e-4)
    assert judged.scores[2] == pytest.approx(1)
    assert judged.opinions[2].reason == "the same text"
    assert len({round(s, 3) for s in judged.scores}) == 3


def test_nothing_is_like_nothing_only(encoder: Path):
    judged = ask(similarity_judge(str(encoder), device="cpu"), ["p"] * 3, ["", "a", " "], ["a", "", ""], progress=False)
    assert judged.scores == [0, 0, 1]


def test_portions_keep_the_order(encoder: Path, monkeypatch: pytest.MonkeyPatch):
    judge = similarity_judge(str(encoder), device="cpu")
    texts = ["a", "bb", "the cat", "dogs", "run"]
    whole = ask(judge, ["p"] * 5, texts, texts[::-1], progress=False)
    monkeypatch.setattr(similar, "PORTION", 2)
    assert ask(judge, ["p"] * 5, texts, texts[::-1], progress=False).scores == pytest.approx(whole.scores, abs=1e-5)


def test_another_encoder_is_another_judge(encoder: Path):
    judge = similarity_judge(str(encoder), device="cpu")
    before = judge.identity
    assert judge.identity == before
    with torch.no_grad():
        next(judge.encoder.parameters()).add_(0.1)
    assert judge.identity != before


def test_an_encoder_that_is_none(tmp_path: Path, encoder: Path):
    with pytest.raises(ValueError, match="give its name or folder"):
        similarity_judge(str(tmp_path / "nothing"), device="cpu")
    with pytest.raises(ValueError, match="give references="):
        ask(similarity_judge(str(encoder), device="cpu"), ["p"], ["a"])


def test_numbers_that_are_none_are_missing(encoder: Path):
    judge = similarity_judge(str(encoder), device="cpu")
    with torch.no_grad():
        next(judge.encoder.parameters()).fill_(torch.nan)
    [(_, opinion)] = judge.opinions([Item("p", "a", "b")])
    assert opinion.missing
    assert opinion.reason.startswith("not a number")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r"interp-transfer\[judges\]"):
        similarity_judge("any")
