"""The documentation as Sphinx builds it: without a warning, whole at any width, and as axe wants it."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
FIRST = ("index", "start", "install", "troubleshooting")
"""The pages that a newcomer meets first."""
WIDE = """() => {
    const width = document.documentElement.clientWidth
    const scrolls = e => e && e.tagName !== 'ARTICLE' && (['auto', 'scroll', 'hidden'].includes(getComputedStyle(e).overflowX)
        || scrolls(e.parentElement))
    return [...document.querySelectorAll('article *')]
        .filter(e => e.getBoundingClientRect().right > width + 1 && !scrolls(e)).map(e => e.outerHTML.slice(0, 80))
}"""
"""Elements of a page that are wider than the window, and that nothing lets scroll."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built from a copy, because building writes the tutorial and a picture to its sources."""
    pytest.importorskip("sphinx")
    home = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "docs", home / "docs", ignore=shutil.ignore_patterns("tutorial"))
    for name in ("examples", "interp_transfer", "tests"):
        (home / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(home / "docs"), str(home / "built")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return home / "built"


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_first_pages_have_no_violations_and_request_nothing(width: int, scheme: str, built: Path, browser: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with browser.new_context(offline=True, viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        page, requests = context.new_page(), []
        page.on("request", lambda one: requests.append(one.url))
        for name in FIRST:
            page.goto((built / f"{name}.html").as_uri())
            violations = Axe().run(page).response["violations"]
            assert [(one["id"], one["nodes"][0]["html"]) for one in violations] == [], name
    assert [url for url in requests if not url.startswith((built.as_uri(), "data:"))] == []


@pytest.mark.slow
def test_no_page_sticks_out_of_a_phone(built: Path, browser: Any) -> None:
    with browser.new_context(offline=True, viewport={"width": 400, "height": 900}) as context:
        page = context.new_page()
        wide = {}
        for path in sorted(built.glob("*.html")):
            page.goto(path.as_uri())
            wide[path.stem] = page.evaluate(WIDE)
    assert len(wide) > 40 and {name: found for name, found in wide.items() if found} == {}
