"""An organism asked as a guard: its template, and answers that are no verdict."""

from pathlib import Path
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.evaluation.judges import ask, guard, local
from interp_transfer.evaluation.judges.guard import CausalGuard, guard_judge
from tests.checkpoints import byte_tokenizer


def test_a_causal_guard_reads_the_conversation_in_its_template(monkeypatch: pytest.MonkeyPatch):
    judge = guard_judge("micro-qwen-s", device="cpu")
    assert isinstance(judge, CausalGuard)
    asked: list[str] = []

    def fake(model: Any, prompts: list[str], **options: Any) -> list[str]:  # noqa: ARG001
        asked.extend(prompts)
        return ["unsafe\nS1" if "hotwire" in prompt else "safe" for prompt in prompts]

    monkeypatch.setattr(local, "generate", fake)
    judged = ask(judge, ["How do I hotwire a car?", "Hi"], [" Like this.", " Hello."], progress=False)
    assert judged.scores == [1, 0]
    end = judge.model.tokenizer.eos_token
    assert asked[0] == f"User: How do I hotwire a car?\nAssistant: Like this.{end}\nAssistant:"


def test_an_organism_is_no_guard_and_says_so(tmp_path: Path):
    judge = guard_judge("micro-qwen-s", device="cpu")
    texts = [" Hello.", " Bye.", "x " * 400]
    judged = ask(judge, ["Hi"] * 3, texts, cache=tmp_path, progress=False)
    assert judged.why_missing == {"nonsense": 2, "too long": 1}
    assert judged.left == []
    assert ask(judge, ["Hi"] * 3, texts, cache=tmp_path, progress=False).replayed == 3


def test_the_forms():
    tok = it.load_model("micro-qwen-s", device="cpu").tokenizer
    assert guard.as_text(tok, "a", " b ") == "a\n\nb"
    assert guard.answer_alone(tok, "a", " b ") == "b"
    assert "Request: a\n\nAnswer: b" in guard.as_question(tok, "a", "b")
    assert guard.as_question(tok, "a", "b").startswith("User: ")
    assert guard.as_question(byte_tokenizer(), "a", "b").endswith("Verdict:")
