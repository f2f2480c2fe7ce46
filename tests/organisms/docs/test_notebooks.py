"""Every example runs from top to bottom."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.real import real_model

NOTEBOOKS = sorted((Path(__file__).parents[3] / "examples").glob("*.ipynb"))


def run(path: Path, seconds: int) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=seconds, kernel_name="python3").execute()
    assert all(cell.get("outputs") is not None for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the kernel's libraries, not ours
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if "real" not in path.stem], ids=lambda path: path.stem)
def test_notebook_runs(path):
    run(path, 300)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_notebook_of_real_models_runs():
    for name in ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"):
        real_model(name)  # skips where it is not in the cache
    [path] = [path for path in NOTEBOOKS if "real" in path.stem]
    run(path, 1200)


def test_there_are_notebooks():
    assert {path.stem[:2] for path in NOTEBOOKS} >= {"01", "02", "03", "04", "05", "06", "07", "08", "09"}
