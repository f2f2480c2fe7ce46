"""Two tiny models, their task and a sparse autoencoder, which the tests of this folder share."""

from pathlib import Path

import pytest

import interp_transfer as it
from tests.registered import checkpoints, make_cats, models, pairs_file
from tests.tiny_sae import sae

__all__ = ["checkpoints", "models", "pairs_file", "sae"]


@pytest.fixture(scope="session")
def cats(pairs_file: Path) -> it.Task:  # noqa: F811
    """The task of the pairs, with a judge whose verdict changes whenever a completion does, about half of the times."""
    return make_cats(pairs_file, lambda _, completion: sum(map(ord, completion)) % 2 == 0)
