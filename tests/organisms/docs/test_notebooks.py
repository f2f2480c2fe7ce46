"""Every example runs from top to bottom, and what is stored of it can be read without a network and without a kernel."""

import base64
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.real import real_model

ROOT = Path(__file__).parents[3]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
REAL = [path.stem for path in NOTEBOOKS if "smollm2-135m" in path.read_text(encoding="utf-8")]
"""Notebooks that need two real models in the cache."""
MOST_CELLS, MOST_BYTES = 11, 1_500_000
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def pages() -> Any:
    """docs/notebooks.py."""
    spec = importlib.util.spec_from_file_location("docs_notebooks", ROOT / "docs" / "notebooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(path: Path, seconds: int) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=seconds, kernel_name="python3").execute()
    assert all(cell.get("outputs") is not None for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the kernel's libraries, not ours
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem not in REAL], ids=lambda path: path.stem)
def test_notebook_runs(path):
    run(path, 300)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", REAL)
def test_notebooks_of_real_models_run(name):
    for model in ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"):
        real_model(model)  # skips where it is not in the cache
    run(ROOT / "examples" / f"{name}.ipynb", 1200)


def test_there_are_notebooks():
    assert {path.stem[:2] for path in NOTEBOOKS} >= {"01", "02", "03", "04", "05", "06", "07", "08", "09", "10"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_need_nothing_from_outside(path: Path, pages: Any) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert len(notebook["cells"]) <= MOST_CELLS and path.stat().st_size <= MOST_BYTES
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"
            data = output.get("data", {})
            assert pages.WIDGET not in data, "a widget that only its kernel can draw"
            text = json.dumps({kind: value for kind, value in data.items() if kind != "image/png"})
            assert not re.search(r"https?:|src=|@import|<script", text), text[:200]
            if pages.PLOTLY in data:
                assert base64.b64decode(data["image/png"]).startswith(PNG), "no picture beside the figure"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_in_colab_and_ends_in_a_figure(path: Path, pages: Any) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first, second = ("".join(cell["source"]) for cell in cells[:2])
    assert pages.COLAB.format(repository=pages.REPOSITORY, name=path.name) in first
    assert second.startswith(pages.INSTALL.format(repository=pages.REPOSITORY))
    *_, last = cells[-1]["outputs"]
    assert pages.PLOTLY in last["data"]


def test_outputs_are_stored_as_pictures_without_bars_and_scripts(pages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "picture", lambda figure: f"png of {figure}")
    shown = {"data": {pages.PLOTLY: {"data": []}, "text/html": '<script src="https://cdn"></script>'}, "metadata": {}}
    bar = {"data": {pages.WIDGET: {}, "text/plain": "0%|"}}
    text = {"output_type": "stream", "name": "stdout", "text": "yes"}
    [kept, said] = pages.readable([bar, shown, {"output_type": "stream", "name": "stderr", "text": "warning"}, text])
    assert kept["data"] == {pages.PLOTLY: {"data": []}, "image/png": "png of {'data': []}", "text/plain": "a plotly figure"}
    assert said == text


def test_the_address_of_the_repository_is_replaced_and_nothing_else(pages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [{"source": "# Title\n\nWords."}, {"source": "import torch\n\nx = 1"}]
    notebook = {"cells": cells}
    pages.addressed(notebook, "01.ipynb")
    once = [cell["source"] for cell in cells]
    pages.addressed(notebook, "01.ipynb")
    assert [cell["source"] for cell in cells] == once
    monkeypatch.setattr(pages, "REPOSITORY", "somebody/else")
    pages.addressed(notebook, "01.ipynb")
    first, second = (cell["source"] for cell in cells)
    assert "github/somebody/else/blob/main/examples/01.ipynb" in first and first.endswith("\n\nWords.")
    assert "OWNER" not in first + second and second.count("%pip") == 1 and second.endswith("import torch\n\nx = 1")
