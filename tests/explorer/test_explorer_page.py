"""The page on this machine, in Chromium: type, slide, hover, copy as code; hostile text; a server that ends; light and dark."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.escape import visible
from interp_transfer.explorer import colours
from interp_transfer.explorer.opening import session
from interp_transfer.explorer.page import last_state, save
from interp_transfer.explorer.panels import Generation
from interp_transfer.explorer.session import Session
from interp_transfer.interventions.streaming import TokenStream
from tests.checkpoints import hooks_of
from tests.explorer.conftest import SITE, events, serving, vector_of
from tests.torture.hostile import ALL, TEXTS, hidden_from, raw_controls

SECONDS = 30_000
"""Milliseconds that a page may take."""
NARROW = 400


@pytest.fixture
def own(a: Any, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr(it, "load_model", lambda *_, **__: a)
    prompts = ["the cat", "a dog sat on"]
    return session(a, {"one": vector_of(a), "other": vector_of(a, seed=1)}, prompts=prompts)


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page; it may talk to its own server alone, go nowhere, and say nothing on the console."""
    said: list[str] = []
    contexts: list[Any] = []

    def go(url: str, **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page, own = contexts[-1].new_page(), url.split("?")[0]
        page.set_default_timeout(SECONDS)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda one: None if one.url.startswith((own, "data:", "blob:")) else said.append(one.url))
        page.goto(url)
        return page

    yield go
    for context in contexts:
        context.close()
    assert [line for line in said if "ERR_CONNECTION" not in line and "ERR_INCOMPLETE" not in line] == []


def finished(page: Any) -> None:
    from playwright.sync_api import expect

    expect(page.locator(".it-status")).to_contain_text("Done", timeout=SECONDS)


def after(page: Any, act: Callable[[], Any]) -> None:
    """Do something that begins a run, and wait for its end."""
    page.evaluate("() => { document.querySelector('.it-status').textContent = ''; }")
    act()
    finished(page)


def shown(page: Any) -> dict[str, str]:
    return {
        panel.get_attribute("aria-label"): "".join(panel.locator(".it-token:not(.it-asked)").all_text_contents())
        for panel in page.locator(".it-panel").all()
    }


def test_type_slide_hover_and_copy(own: Session, a: Any, open_page: Callable[..., Any]) -> None:
    with serving(own) as (url, _):
        page = open_page(url, permissions=["clipboard-read", "clipboard-write"])
        finished(page)
        assert page.locator("textarea").input_value() == "the cat"
        page.locator("textarea").click()
        after(page, lambda: page.keyboard.type(" sat", delay=20))
        assert own.state.prompt.replace(" sat", "") == "the cat" and own.state.example is None
        slider = page.get_by_label("Strength, slider")
        after(page, lambda: slider.fill("2.5"))
        assert page.get_by_label("Strength", exact=True).input_value() == "2.5" and own.state.strength == 2.5
        assert page.get_by_label("Block, slider").is_disabled()
        assert "belongs to blocks.2.hook_resid_pre" in page.locator(".it-source_block small").inner_text()
        after(page, lambda: page.get_by_label("Add").select_option("other"))
        after(page, lambda: page.get_by_label("Colour tokens by").select_option("change"))
        token = page.locator(".it-panel").nth(1).locator(".it-token").nth(2)
        token.hover()
        tip = page.get_by_role("tooltip")
        assert "nats" in tip.inner_text() and tip.locator("tbody tr").count() == colours.CHANGES
        page.mouse.move(0, 0)
        assert not tip.is_visible()
        page.locator(".it-panel").nth(1).locator(".it-token[tabindex='0']").focus()
        assert tip.is_visible()
        here = page.evaluate("document.activeElement.textContent")
        page.keyboard.press("ArrowLeft")
        assert tip.is_visible() and page.evaluate("document.activeElement.classList.contains('it-asked')"), here
        page.keyboard.press("Escape")
        assert not tip.is_visible()
        page.get_by_role("button", name="Copy as code").click()
        page.get_by_text("The code is copied.").wait_for()
        code = page.evaluate("navigator.clipboard.readText()")
        names: dict[str, Any] = {}
        exec(code, names)
        assert {name: visible(text) for name, text in names["completions"].items()} == own.last["texts"]
        assert set(shown(page)) == set(own.last["texts"]) == {"unsteered", "vector x 2.5"}
        assert page.locator(".it-code code").inner_text().strip() == code.strip()
        again = open_page(url)  # a page that is opened again shows the last state
        again.locator(".it-panel").nth(1).wait_for()
        assert shown(again) == shown(page)
        assert again.get_by_label("Colour tokens by").input_value() == "change"
    assert not hooks_of(a)


def test_everything_is_reached_by_the_keyboard(own: Session, open_page: Callable[..., Any]) -> None:
    with serving(own) as (url, _):
        page = open_page(url)
        finished(page)
        reached = set()
        for _ in range(30):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id.split('-').pop() || document.activeElement.textContent"))
    assert {"examples", "prompt", "item", "strength", "positions", "view", "colour", "Generate", "Copy as code"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_errors_and_no_scrolling_sideways(scheme: Any, own: Session, open_page: Callable[..., Any]) -> None:
    pytest.importorskip("axe_playwright_python")
    from axe_playwright_python.sync_playwright import Axe

    with serving(own) as (url, _):
        page = open_page(url, color_scheme=scheme, viewport={"width": NARROW, "height": 800}, bypass_csp=True)
        finished(page)
        after(page, lambda: page.get_by_label("Colour tokens by").select_option("change"))
        page.locator(".it-code summary").click()
        page.locator(".it-token[tabindex='0']").first.focus()
        report = Axe().run(page)
        assert report.violations_count == 0, report.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
        assert page.evaluate("document.querySelector('.it-explorer').dataset.theme") == scheme


def test_hostile_text_is_text(
    a: Any, open_page: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, visit: Callable[..., Any]
) -> None:
    def step(self: Generation) -> str:
        self.ids, self.text, self.ended = [1], ALL, True
        return ALL

    monkeypatch.setattr(Generation, "step", step)
    names = list(TEXTS.values())
    pieces = [(name, (0, 1)) for name in names]
    monkeypatch.setattr(colours, "token_spans", lambda *_: pieces)
    reading = colours.Reading(ALL, [0.5] * len(pieces), [[(name, 0.1, 0.9) for name in names]] * len(pieces))
    vectors = {name: vector_of(a) for name in names}
    encodable = [name.encode("utf-8", "replace").decode() for name in names]
    own = session(a, vectors, prompts=["the cat", *encodable])
    own.state = replace(own.state, colour="")
    with serving(own) as (url, _):
        page = open_page(url, viewport={"width": NARROW, "height": 800})
        page.locator(".it-text").first.wait_for()
        finished(page)
        text = page.evaluate("document.querySelector('.it-panels').textContent")
        assert hidden_from(text) == []
        monkeypatch.setattr(Session, "_reading", lambda *_: reading)
        after(page, lambda: page.get_by_label("Colour tokens by").select_option("projection"))
        page.locator(".it-token").nth(1).hover()
        everything = page.evaluate("document.body.innerText + document.querySelector('.it-tip').textContent")
        assert hidden_from(everything) == [] and raw_controls(everything) == []
        assert page.evaluate("document.title").startswith("/") or "owned" not in page.title()
        assert page.locator("#interp-transfer-explorer :is(img, iframe, script, style, link, base, meta, svg)").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
        # As the item of a list, a name goes there and back.
        after(page, lambda: page.get_by_label("Add").select_option(index=len(names) - 1))
        assert own.state.item == names[-1]
    saved = visit(save(own, tmp_path / "saved.html").as_uri(), viewport={"width": NARROW, "height": 800})
    assert saved.locator("img, iframe").count() == 0 and raw_controls(saved.evaluate("document.body.textContent")) == []
    assert hidden_from(saved.evaluate("document.querySelector('table').innerText"), stored=True) == [] or own.last["read"]
    (tmp_path / "view.html").write_text(f"<meta charset=utf-8><link rel=icon href='data:,'>{last_state(own)}", encoding="utf-8")
    assert visit((tmp_path / "view.html").as_uri()).locator("script, img, iframe").count() == 0


def test_a_server_that_ends_in_the_middle_of_a_text(
    own: Session, open_page: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = TokenStream.advance

    def slowly(self: TokenStream, *args: Any) -> None:
        time.sleep(0.2)
        advance(self, *args)

    with serving(own) as (url, server):
        page = open_page(url)
        finished(page)
        monkeypatch.setattr(TokenStream, "advance", slowly)
        page.locator("textarea").fill("another text")
        page.wait_for_timeout(1500)
        assert "Generating" in page.locator(".it-status").inner_text()
        server.force_exit = server.should_exit = True
        page.get_by_role("alert").get_by_text("last state").wait_for()
        assert page.locator(".it-panel").count() == 2 and page.locator(".it-text").first.inner_text() != ""
        assert page.get_by_role("button", name="Stop").is_disabled()
        page.get_by_role("button", name="Generate").click()
        page.get_by_role("alert").get_by_text("cannot be reached").wait_for()


def test_the_last_state_is_a_page_without_scripts(own: Session, visit: Callable[..., Any], tmp_path: Path) -> None:
    events(own, colour="change", strength=2.0)
    path = save(own, tmp_path / "deep" / "last.html")
    page = visit(path.as_uri(), java_script_enabled=False, viewport={"width": NARROW, "height": 800})
    text = page.locator("body").text_content()
    assert "strength 2" in text and "added: one" in text and "vector x 2" in text
    assert "".join(page.locator("td").nth(1).locator(".it-token").all_text_contents()) != ""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for scheme in ("light", "dark"):
        report = axe.run(visit(path.as_uri(), color_scheme=scheme, bypass_csp=True))
        assert report.violations_count == 0, report.generate_report()
    page.locator("summary").click()
    assert "it.generate(" in page.locator("code").inner_text()
    assert page.locator(".it-token").nth(1).get_attribute("title").count("after") == colours.CHANGES
    assert SITE in page.content() and path.stat().st_size < 100_000
