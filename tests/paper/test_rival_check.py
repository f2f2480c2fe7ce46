"""The recipe written anew against the released package, in an environment of its own: SAKLAS_PYTHON names its Python."""

import importlib.util
import os
from pathlib import Path

import pytest

from tests.real import real_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "rival_check.py"


@pytest.mark.real
@pytest.mark.slow
def test_the_released_package_moves_vectors_to_the_same_place():
    python = os.environ.get("SAKLAS_PYTHON")
    if not python:
        pytest.skip("SAKLAS_PYTHON is not set: install saklas into an environment of its own, and name its Python")
    spec = importlib.util.spec_from_file_location("rival_check", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    for name in example.DEFAULT:
        real_model(name)
    lines = example.main(python)
    assert len(lines) == 24, "blocks that both models have"
    for line in lines:
        assert line["cosine"] > 0.999 and abs(line["length"] - 1) < 0.01 and abs(line["factor"] - 1) < 0.01
        assert line["R-squared"] > 0.999, "fewer rows than dimensions are reproduced"
