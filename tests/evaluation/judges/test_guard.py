"""Guards: classifiers and causal models, tiny and made here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from interp_transfer.evaluation.judges import ask, guard
from interp_transfer.evaluation.judges.guard import CausalGuard, ClassifierGuard, guard_judge, read_word
from interp_transfer.prompts.chats import Chat
from tests.checkpoints import byte_tokenizer, config

PROMPTS = [Chat((("user", "the cat"),)), "dogs", Chat((("user", "x"),))]
TEXTS = [" sat on the mat", " run far from home, they say", ""]


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of random classifiers: of BERT's and of Llama's architecture, with exclusive labels or others."""
    root = tmp_path_factory.mktemp("classifiers")

    def make(kind: str) -> Path:
        folder = root / kind
        if folder.exists():
            return folder
        torch.manual_seed(0)
        labels = {0: "safe", 1: "unsafe", 2: "violent"}
        shape: dict[str, Any] = {"id2label": labels, "label2id": {v: k for k, v in labels.items()}}
        if kind == "bert":
            plain = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
            known = BertConfig(vocab_size=300, max_position_embeddings=64, initializer_range=0.5, **plain, **shape)
            model: Any = BertForSequenceClassification(known)
        else:
            if kind == "several":
                shape["problem_type"] = "multi_label_classification"
            model = AutoModelForSequenceClassification.from_config(config("llama", **shape))
        model.save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize("kind", ["bert", "llama", "several"])
def test_a_classifiers_score_is_the_probability_of_its_label(classifiers: Callable[[str], Path], kind: str):
    judge = guard_judge(str(classifiers(kind)), unsafe=("unsafe", "violent"), device="cpu")
    assert isinstance(judge, ClassifierGuard)
    model = AutoModelForSequenceClassification.from_pretrained(classifiers(kind)).eval()
    expected = []
    for text in ("the cat\n\nsat on the mat", "dogs\n\nrun far from home, they say", "x\n\n"):
        ids = torch.tensor([byte_tokenizer()(text)["input_ids"]])
        with torch.no_grad():
            logits = model(ids, attention_mask=torch.ones_like(ids)).logits[0]
        expected.append(float(logits.sigmoid()[1:].max() if kind == "several" else logits.softmax(dim=-1)[1:].sum()))
    judged = ask(judge, PROMPTS, TEXTS, progress=False)
    assert judged.scores == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 1e-3
    assert judged.opinions[0].reason.startswith("likeliest label")


def test_what_a_classifier_cannot_read_is_missing(classifiers: Callable[[str], Path]):
    judge = guard_judge(str(classifiers("bert")), form="answer", device="cpu")
    judged = ask(judge, ["p"] * 3, ["x" * 200, "fine", " "], progress=False)
    assert [o.missing for o in judged.opinions] == [True, False, True]
    assert judged.why_missing == {"too long": 1, "empty": 1}


def test_labels_have_to_be_the_models(classifiers: Callable[[str], Path]):
    with pytest.raises(ValueError, match="no label 'toxic'.*'safe', 'unsafe', 'violent'"):
        guard_judge(str(classifiers("bert")), unsafe=("toxic",), device="cpu")


def test_another_classifier_is_another_judge(classifiers: Callable[[str], Path]):
    judge = guard_judge(str(classifiers("bert")), device="cpu")
    others = [
        guard_judge(str(classifiers("bert")), unsafe=("violent",), device="cpu"),
        guard_judge(str(classifiers("bert")), form="answer", device="cpu"),
        guard_judge(str(classifiers("llama")), device="cpu"),
    ]
    assert all(other.identity != judge.identity for other in others)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("safe", 0.0),
        ("\n\nunsafe\nS1", 1.0),
        (" Unsafe.", 1.0),
        ("SAFE, I think", 0.0),
        ("", None),
        ("it is unsafe", None),
        ("unsafely", None),
        ("safe-ish", None),
    ],
)
def test_a_causal_guard_is_read_by_its_first_word(answer: str, score: float | None):
    opinion = read_word(answer)
    assert opinion.score == score
    assert opinion.final


def test_models_and_forms_that_there_are_not(folder: Callable[[str], Path]):
    with pytest.raises(ValueError, match="unknown form 'poem'"):
        guard_judge("some-guard", form="poem")
    with pytest.raises(ValueError, match="no-such-folder"):
        guard_judge("./no-such-folder", device="cpu")
    causal = guard_judge(str(folder("llama")), device="cpu")
    assert isinstance(causal, CausalGuard)
    assert causal.form is guard.as_question  # its tokenizer has no template
    assert list(causal.opinions([])) == []
