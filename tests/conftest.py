"""What the tests share: checkpoints made once, models wrapped once, nothing from the network."""

import atexit
import os
import shutil
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # two files are tested at a time; what they start counts as well

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import interp_transfer as it
from tests import shape_checks  # noqa: F401  # before the modules of the package, which it changes
from tests.checkpoints import hooks_of, make_checkpoint

USERS_CACHE = os.environ.get("XDG_CACHE_HOME")
_cache = tempfile.TemporaryDirectory(prefix="interp_transfer-cache-")
atexit.register(_cache.cleanup)
os.environ["XDG_CACHE_HOME"] = _cache.name

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()


LONGEST = ("test_notebooks.py", "test_code_blocks.py")
"""Files that take minutes: begun first, so that no process is left waiting for another's last file."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all else in its order."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A cache folder for these tests alone; real models are where the user keeps them."""
    if item.get_closest_marker("real") is None:
        os.environ["XDG_CACHE_HOME"] = _cache.name
    elif USERS_CACHE is not None:
        os.environ["XDG_CACHE_HOME"] = USERS_CACHE
    else:
        os.environ.pop("XDG_CACHE_HOME", None)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint of a family, made when it is first asked for. Read it, do not change it."""
    root, made = tmp_path_factory.mktemp("checkpoints"), {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = make_checkpoint(root / family, family)
        return made[family]

    return get


@pytest.fixture
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def _wrapped(folder: Callable[[str], Path]) -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def get(family: str) -> Any:
        if family not in made:
            made[family] = it.load_model(str(folder(family)), device="cpu")
        return made[family]

    return get


@pytest.fixture
def wrapped(_wrapped: Callable[[str], Any]) -> Iterator[Callable[[str], Any]]:
    """A family's model as ``load_model`` wraps it, shared by all tests: each must leave it without hooks."""
    used: list[Any] = []

    def get(family: str) -> Any:
        used.append(_wrapped(family))
        return used[-1]

    yield get
    for model in used:
        assert not hooks_of(model), "the test left hooks behind"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all tests that look at pages."""
    from interp_transfer.reporting.png_export import BROWSERS

    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page without network; it may request nothing, go nowhere, say nothing on the console and raise no error.

    A page of ours is returned when it has unpacked its data and drawn its figures.
    """
    events: list[str] = []
    pages: list[tuple[str, Any]] = []

    def go(url: str, before: str = "", **options: Any) -> Any:
        page, own = browser.new_context(offline=True, **options).new_page(), url.split("#")[0]
        page.add_init_script(before)
        pages.append((own, page))
        page.on("console", lambda message: events.append(message.text))
        page.on("pageerror", lambda error: events.append(str(error)))
        page.on("dialog", lambda dialog: events.append(dialog.message))
        page.on("popup", lambda popup: events.append(popup.url))
        page.on("request", lambda one: None if one.url.startswith((own, "data:", "blob:")) else events.append(one.url))
        page.goto(url)
        if options.get("java_script_enabled", True) and page.locator("script#data").count():
            page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield go
    events += [page.url for own, page in pages if page.url.split("#")[0] != own]
    for _, page in pages:
        page.context.close()
    assert events == []
