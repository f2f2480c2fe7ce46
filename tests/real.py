"""Real models for tests with the marker ``real``."""

from functools import cache
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.models.sources import source_of


@cache
def _loaded(name: str) -> Any:
    return it.load_model(name, device="cpu")


def real_model(name: str) -> Any:
    """A real model from the user's cache, loaded once; the test is skipped if it was not fetched."""
    if not source_of(name).folder.is_dir():
        pytest.skip(f"{name} is not in the cache: interp-transfer models get {name}")
    return _loaded(name)
