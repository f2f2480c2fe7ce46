"""The judge that is trained on sentence embeddings, with an encoder that counts words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp_transfer.evaluation.judges.embedding import fit_embedding_judge, load_encoder

WORDS = ("yes", "no", "bowl", "sorry")


class Counting:
    """An encoder whose dimensions are counts of words."""

    def encode(self, texts: list[str], **_options: Any) -> np.ndarray:
        return np.array([[text.lower().count(word) for word in WORDS] for text in texts], dtype=float)


ANSWERS = ["Yes. Take a bowl.", "Sorry, no.", "Yes, a bowl.", "No. Sorry."] * 5
LABELS = ["complied", "refused", "complied", "refused"] * 5


def test_it_learns_labels_and_judges():
    judge = fit_embedding_judge(Counting(), ["p"] * 20, ANSWERS, LABELS, ["complied"])
    assert judge.labels(["p", "p"], ["Yes, this bowl.", "Oh no, sorry."]) == ["complied", "refused"]
    verdicts = judge(["p"] * 3, ["Take a bowl, yes.", "", "yes yes yes yes yes yes"])
    assert [v.success for v in verdicts] == [True, False, True]
    assert [v.intact for v in verdicts] == [True, False, False], "an empty answer is none, and repetition is not intact"


def test_the_end_of_an_answer_is_read():
    start = "Yes. The bowl. It is round. It is red. "
    answers = [f"{start}{end}" for end in ("Sorry. No.", "Yes. Bowl.")] * 10
    judge = fit_embedding_judge(Counting(), ["p"] * 20, answers, ["refused", "complied"] * 10, ["refused"])
    assert judge.labels(["p", "p"], [f"{start}No. No.", f"{start}Bowl. Bowl."]) == ["refused", "complied"]


def test_rules_are_a_feature():
    answers = ["I won't help with that.", "The lid opens."] * 10
    labels = ["refused", "complied"] * 10
    blind = fit_embedding_judge(Counting(), ["p"] * 20, answers, labels, ["refused"])
    told = fit_embedding_judge(Counting(), ["p"] * 20, answers, labels, ["refused"], rules=True)
    unseen = ["I must decline.", "Open the door."]
    assert told.labels(["p", "p"], unseen) == ["refused", "complied"]
    assert len(set(blind.labels(["p", "p"], unseen))) == 1, "these words are in no dimension"


def test_what_cannot_be_trained_or_loaded_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="at least two labels"):
        fit_embedding_judge(Counting(), ["p", "p"], ["a", "b"], ["x", "x"], ["x"])
    with pytest.raises(ValueError, match="wanted"):
        fit_embedding_judge(Counting(), ["p", "p"], ["a", "b"], ["x", "y"], ["z"])
    with pytest.raises(ValueError, match=r"cannot load the encoder .*models get all-minilm-l6-v2"):
        load_encoder(str(tmp_path / "nothing"))
