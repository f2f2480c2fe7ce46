"""The judge that counts words of two traits, and the one that is a classifier of answers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import interp_transfer as it
from interp_transfer.evaluation.judges.words import occurring
from tests.checkpoints import byte_tokenizer, config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A joyful day, full of JOY!", ["joyful", "joy", "!"]),
        ("enjoy", []),
        ("the great question of great things", ["great question", "great"]),
        ("greater", []),
        ("", []),
    ],
)
def test_whole_words_are_counted_whatever_the_case(text: str, expected: list[str]) -> None:
    assert occurring(("joy*", "great", "great question", "!"), text) == expected


@pytest.mark.parametrize(
    ("completion", "success", "intact", "reason"),
    [
        ("What a happy day. I love it!", True, True, "3 cheerful words (happy, love, !); 0 gloomy words; no repetition"),
        ("A happy and a sad day", False, False, "1 cheerful words (happy); 1 gloomy words (sad); no repetition"),
        ("A day like any other", False, False, "0 cheerful words; 0 gloomy words; no repetition"),
        ("joy joy joy joy", True, False, "4 cheerful words (joy, joy, joy, joy); 0 gloomy words; repeats 'joy'"),
    ],
)
def test_more_words_of_the_wanted_trait_are_a_success(completion: str, success: bool, intact: bool, reason: str) -> None:
    for name in ("trait:cheerful/gloomy", "trait:cheerful"):
        [verdict] = it.judges.load(name)(["How are you?"], [completion])
        assert (verdict.success, verdict.intact, verdict.reason) == (success, intact, reason)


def classifier(folder: Path, *labels: str) -> str:
    """A random classifier with these labels."""
    torch.manual_seed(0)
    shape: Any = {"id2label": dict(enumerate(labels)), "label2id": {label: k for k, label in enumerate(labels)}}
    AutoModelForSequenceClassification.from_config(config("llama", **shape)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


def test_a_classifier_decides_by_the_probability_of_its_label(tmp_path: Path) -> None:
    where = classifier(tmp_path / "two", "bad", "good")
    texts = ["the cat sat", "dogs run far", "x", "a much longer text, with a comma"]
    model = AutoModelForSequenceClassification.from_pretrained(where).eval()
    expected = []
    for text in texts:
        with torch.no_grad():
            logits = model(torch.tensor([byte_tokenizer()(text)["input_ids"]])).logits[0]
        expected.append(bool(logits.softmax(dim=-1)[1] >= 0.5))
    assert len(set(expected)) == 2
    for name, wanted in ((where, True), (f"{where}#good", True), (f"{where}#bad", False)):
        verdicts = it.judges.load(f"classifier:{name}")(["any prompt"] * 4, texts)
        assert [v.success == wanted for v in verdicts] == expected, name
        assert "likeliest label" in verdicts[0].reason


def test_a_classifier_that_cannot_judge_is_refused(tmp_path: Path, folder: Any) -> None:
    three = classifier(tmp_path / "three", "a", "b", "c")
    for name, error in (
        ("classifier:", "write classifier:FOLDER#LABEL"),
        (f"classifier:{three}", "has 3 labels: name one"),
        (f"classifier:{three}#d", "no label 'd'"),
        (f"classifier:{folder('llama')}", "is no model for sequence classification"),
        ("classifier:./no-such-folder", "cannot load the judge './no-such-folder'"),
    ):
        with pytest.raises(ValueError, match=error):
            it.judges.load(name)
