"""Perplexity beside plain transformers, and repetition by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from interp_transfer.evaluation.capability import harness
from interp_transfer.evaluation.judges import ask
from interp_transfer.evaluation.judges.coherence import PerplexityJudge, RepetitionShare, distinct_n
from tests.checkpoints import CONTEXT, raw_model, raw_tokenizer

PROMPTS = ["the cat", "a much longer text, with a comma", "x", "dogs run far"]
TEXTS = [" sat on a mat", " and 12 + 7", "yz", " from home, they say |prod|"]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_perplexity_is_that_of_plain_transformers(
    folder: Callable[[str], Path], wrapped: Callable[[str], Any], family: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(harness, "LOGITS_PER_BATCH", 300 * 40)  # so that there are several batches
    model, tok = raw_model(folder(family)), raw_tokenizer(folder(family))
    expected = []
    for prompt, text in zip(PROMPTS, TEXTS, strict=True):
        start, ids = len(tok(prompt)["input_ids"]), tok(prompt + text)["input_ids"]
        assert ids[:start] == tok(prompt)["input_ids"]
        with torch.no_grad():
            labels = torch.tensor([[-100] * start + ids[start:]])
            expected.append(float(model(torch.tensor([ids]), labels=labels).loss))
    judged = ask(PerplexityJudge(wrapped(family)), PROMPTS, TEXTS, progress=False)
    assert judged.scores == pytest.approx(expected, rel=1e-4)
    assert judged.opinions[0].reason.startswith("perplexity ")


def test_a_token_across_the_boundary_is_the_completions(wrapped: Callable[[str], Any]):
    tok, text = wrapped("llama").tokenizer, "dogs run far from home"
    ids = tok(text)["input_ids"]
    at = next(i for i, token in enumerate(ids) if i > 1 and len(tok.decode([token])) > 1)  # of several letters
    before = len(tok.decode(ids[:at]))
    split = before + 1  # inside of it
    [[opinion], [same]] = [
        ask(PerplexityJudge(wrapped("llama")), [text[:cut]], [text[cut:]], progress=False).opinions for cut in (split, before)
    ]
    assert opinion.reason.endswith(f"over {len(ids) - at} tokens")
    assert opinion.score == same.score


def test_what_cannot_be_predicted_is_missing(wrapped: Callable[[str], Any]):
    texts = ["", "a", "x" * (CONTEXT + 1), "ab", ""]
    judged = ask(PerplexityJudge(wrapped("llama")), ["p", "", "p", "", ""], texts, progress=False)
    assert [o.missing for o in judged.opinions] == [True, True, True, False, True]
    assert judged.why_missing == {"empty": 3, "too long": 1}
    assert judged.left == []


def test_a_model_that_is_not_finite_gives_no_score(wrapped: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch):
    broken = lambda model, texts, scored, **placed: torch.full((int(scored.sum()), 300), torch.nan)  # noqa: E731
    monkeypatch.setattr(harness, "predicted", broken)
    judged = ask(PerplexityJudge(wrapped("llama")), ["p"], ["abc"], progress=False)
    assert judged.why_missing == {"not a number": 1}


def test_memory_that_runs_out_halves_the_batch(wrapped: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch):
    expected = ask(PerplexityJudge(wrapped("llama")), PROMPTS, TEXTS, progress=False)
    real, sizes = harness.predicted, []

    def tight(model: Any, texts: Any, scored: Any, **placed: Any) -> torch.Tensor:
        sizes.append(len(texts))
        if len(texts) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(model, texts, scored, **placed)

    monkeypatch.setattr(harness, "predicted", tight)
    judged = ask(PerplexityJudge(wrapped("llama")), PROMPTS, TEXTS, progress=False)
    assert judged.scores == pytest.approx(expected.scores, rel=1e-5)
    assert max(sizes) > 1


def test_another_model_is_another_judge(wrapped: Callable[[str], Any], tmp_path: Path):
    for family, replayed in (("llama", 0), ("llama", 1), ("gpt2", 0)):
        assert ask(PerplexityJudge(wrapped(family)), ["p"], ["abc"], cache=tmp_path, progress=False).replayed == replayed


def test_repetition_by_hand():
    texts = ["a b c d", "a b a b", "no no no no no", "one", "Yes, yes."]
    judged = ask(RepetitionShare(), ["p"] * len(texts), texts, progress=False)
    assert [o.score for o in judged.opinions] == [0.0, pytest.approx(1 / 3), 0.75, None, 0.0]
    assert "goes" not in judged.opinions[0].reason
    assert judged.opinions[2].reason == "1 of 4 differ; repeats 'no'"
    assert ask(RepetitionShare(1), ["p"], ["a b a b"], progress=False).scores == [0.5]
    with pytest.raises(ValueError, match="n=0"):
        RepetitionShare(0)


def test_distinct_n_counts_over_all_completions():
    assert distinct_n(["a b", "a b", "a c"], 1) == 3 / 6
    assert distinct_n(["a b", "a b", "a c", "d"], 2) == 2 / 3
    with pytest.raises(ValueError, match="no completion has 2 words"):
        distinct_n(["a", ""], 2)
