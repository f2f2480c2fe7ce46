"""A sparse autoencoder of the first of the two tiny models, for tests of features, rankings and quality."""

from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.features.sae import Sae
from interp_transfer.features.train import Recipe, train_sae

SITE = "blocks.3.hook_resid_pre"


@pytest.fixture(scope="session")
def sae(models: Any, cats: it.Task) -> Sae:
    """An SAE of 256 features at SITE, trained for a few steps."""
    rows = it.capture(models[0], cats.texts("train"), SITE, progress=False)
    return train_sae(rows, SITE, Recipe(epochs=4, expansion=16, batch_size=128), progress=False)
