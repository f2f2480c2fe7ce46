"""The script ``examples/massive_dimensions.py`` on a tiny model."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.paper.given_data import make_data

EXAMPLE = Path(__file__).parents[2] / "examples" / "massive_dimensions.py"


def test_each_block_has_a_line_with_n(tmp_path: Path, folder: Any, capsys: pytest.CaptureFixture[str]):
    main = runpy.run_path(str(EXAMPLE))["main"]
    main(str(folder("llama")), str(make_data(tmp_path / "data")), "1", "2")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(".hook")[0] for line in lines] == ["blocks.1", "blocks.2"]
    assert all("difference_in_means: AUROC" in line and "robust: AUROC" in line and "(n " in line for line in lines)
