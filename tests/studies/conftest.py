"""Fixtures that the tests of studies share."""

from pathlib import Path

import pytest

import interp_transfer as it
from tests.registered import SITE, cats, checkpoints, models, pairs_file, registered

__all__ = ["cats", "checkpoints", "models", "pairs_file", "registered"]

QUICK = {"mapper": "affine", "n": 4, "directions": 2, "seeds": 2, "variants": False, "side_effects": False, "progress": False}


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, models, cats) -> Path:
    """The folder of a small run of a task and models that are objects, with everything but variants."""
    out = tmp_path_factory.mktemp("run") / "out"
    options = {**QUICK, "side_effects": True}
    it.run(cats, *models, source_site=SITE, target_site=SITE, out=out, **options)
    return out
