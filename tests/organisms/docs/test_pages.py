"""What holds for every page of the documentation: its length, its links, and the tables that repeat what the code says."""

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
LONGEST = 1500
"""Words of a page. What `reproduce` writes, and what a page includes, is not counted."""
GENERATED = ("RESULTS.md", "REAL.md", "api.md")
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#{1,3} (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower().strip() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def broken(page: Path, text: str) -> list[str]:
    """Links of a page to files or headings that there are not."""
    gone = []
    for target, anchor in LINK.findall(re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)):
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            gone.append(f"{target}#{anchor}" if anchor else target)
    return gone


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert broken(page, page.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_found() -> None:
    text = (
        "[a](nowhere.md) [b](limits.md#no-such-heading) [c](limits.md#the-moves) [d](#none) `[e](code.md)` [f](https://x.org/y)"
    )
    assert broken(DOCS / "limits.md", text) == ["nowhere.md", "limits.md#no-such-heading", "#none"]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in GENERATED], ids=lambda page: page.stem)
def test_no_page_is_too_long(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").split()) <= LONGEST


def test_every_page_is_in_the_index() -> None:
    listed = re.findall(r"^```\{toctree\}\n(.*?)^```", (DOCS / "index.md").read_text(), re.DOTALL | re.MULTILINE)
    names = [line for block in listed for line in block.splitlines() if line and not line.startswith(":")]
    pages = sorted({page.stem for page in DOCS.glob("*.md")} - {"index"})
    assert sorted(names) == pages
    assert {target for target, _ in LINK.findall((DOCS / "index.md").read_text()) if target} >= {f"{page}.md" for page in pages}


def test_the_readme_takes_two_screens_and_leads_each_reader_on() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60 and text.count("![") == 1
    for page in (text, (DOCS / "index.md").read_text(encoding="utf-8").replace("](", "](docs/")):
        for first in ("start", "first_real_model", "moving", "limits"):
            assert f"](docs/{first}.md)" in page
    [code] = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    start = re.search(r"^```python\n(.*?)^```", (DOCS / "start.md").read_text(), re.DOTALL | re.MULTILINE)
    assert start is not None and statements(code) == statements(start[1]) and len(statements(code)) <= 10


def statements(code: str) -> list[str]:
    """Lines of code without comments and empty lines."""
    return [line for line in (re.sub(r" +#.*", "", line) for line in code.splitlines()) if line]


def test_the_table_of_extras_is_that_of_the_project() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", (DOCS / "install.md").read_text(), re.MULTILINE))
    assert rows.keys() == extras.keys()
    for name, packages in rows.items():
        if name != "dev":
            assert packages.split(", ") == sorted(re.match(r"[\w-]+", one)[0] for one in extras[name])  # type: ignore[index]


def test_the_versions_on_the_page_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (DOCS / "install.md").read_text()
    held = {re.match(r"[\w-]+", one)[0]: one for one in project["dependencies"]}  # type: ignore[index]
    assert project["requires-python"] == ">=3.11,<3.14" and "| Python | 3.11 to 3.13 |" in page
    assert "transformers>=5.21,<5.24" in held["transformers"] and "| transformers | 5.21, 5.22 and 5.23 |" in page
    assert "transformer-lens>=3.9,<5" in held["transformer-lens"] and "| transformer-lens | 3.9 or later, before 5 |" in page
    assert "sae-lens>=6.54,<7" in held["sae-lens"] and "| sae-lens | 6.54 or later, before 7 |" in page
    assert "torch>=2.6,<3" in held["torch"] and "| torch | 2.6 or later, before 3 |" in page
