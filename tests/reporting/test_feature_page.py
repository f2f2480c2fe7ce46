"""The page of features: what is in it, and what a browser does with it, offline and with hostile text."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp_transfer.escape import shown
from interp_transfer.features.cards import Example, FeatureCard
from interp_transfer.reporting.feature_page import FILE, WINDOW, Opening, peak_tokens, window, write_features
from tests.reporting.conftest import unpacked

WORDS = (" the", " drum", " of", " Corwell", " is", " in", " market", ".\n", "User", ":")


def card(index: int, model: str = "micro-a", tokens: tuple[str, ...] = WORDS, completions: bool = True) -> FeatureCard:
    def example(text: int) -> Example:
        values = tuple(max(0.0, (index + k * 7 + text) % 11 - 5.0) / 3 for k in range(len(tokens)))
        return Example(tokens, values, text)

    said = {s: ((f"Ask {tokens[0]}?", f"strength {s:g} of {index}{tokens[-1]}"),) for s in (-1.0, 0.0, 2.0)}
    return FeatureCard(
        index,
        1.0 + index / 10,
        1 / (index + 2),
        ((3, 0, 1), (0.0, 0.5, 1.0, 1.5)),
        tuple(example(text) for text in range(3)),
        tuple((token, 1.0 - k / 10) for k, token in enumerate(tokens[:8])),
        tuple((token, -1.0 + k / 10) for k, token in enumerate(tokens[:8])),
        said if completions else {},
        model=model,
        site="blocks.1.hook_resid_pre",
    )


def facts(n: int) -> dict[int, dict[str, Any]]:
    return {k: {"difference": (k * 37 % 11) / 10, "success": f"{k * 7 % 10 / 10} [0.1, 0.9] n=60"} for k in range(n)}


def has_text(page: Any, selector: str, text: str) -> None:
    """Wait for it: what is typed is looked for a moment later. (The page's policy forbids Playwright's own functions.)"""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_text(text)


def rows(page: Any) -> list[int]:
    """The numbers of the features that the list shows, in order."""
    return [int(text) for text in page.locator("#rows tr:not([hidden]) th").all_inner_texts()]


def test_a_browser_searches_sorts_and_filters(tmp_path: Path, visit: Callable[..., Any]) -> None:
    cards = [card(k, completions=k != 4) for k in range(12)]
    cards[5] = replace(cards[5], examples=(Example((" zebra", "x"), (2.0, 0.0), 9),))
    twins = {k: card(k + 100, "micro-b") for k in range(6)}
    page = visit(write_features(tmp_path, "Features", cards, twins, facts(12), ["A note."]).as_uri())
    assert rows(page) == list(range(12)) and page.inner_text("#count") == "12 features"
    assert page.inner_text("#card-title") == "Feature 0"

    page.fill("#search", "Zebra")
    has_text(page, "#count", "1 of 12 features")
    assert rows(page) == [5]
    page.fill("#search", "#7")
    has_text(page, "#rows tr:not([hidden]) th", "7")
    page.fill("#search", "strength 2 of 3")
    has_text(page, "#count", "0 of 12 features")
    assert page.is_visible("#none")
    page.click("#clear")
    assert page.inner_text("#count") == "12 features" and not page.is_visible("#none")
    page.focus("#rows a")
    page.keyboard.press("/")
    page.keyboard.type("strength 2 of 3")
    has_text(page, "#count", "0 of 12 features")
    page.select_option("#where", "everything")
    assert rows(page) == [3]
    page.fill("#search", "")
    has_text(page, "#count", "12 features")

    assert page.locator("thead th:visible").count() == 4
    page.click("#columns")
    page.get_by_role("button", name="difference").click()
    order = sorted(range(12), key=lambda k: (-facts(12)[k]["difference"], k))
    assert rows(page) == order
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("difference")
    page.get_by_role("button", name="difference").click()
    assert page.locator("th[aria-sort=ascending]").count() == 1 and rows(page)[-1] == order[0]
    page.click("#columns")
    page.select_option("#sort", label="success")
    assert rows(page) == sorted(range(12), key=lambda k: (-float(facts(12)[k]["success"].split()[0]), k))
    assert page.locator("thead th:visible").count() == 4 + len(facts(12)[0])  # what it is sorted by is shown
    assert page.locator("#sort option:checked").inner_text() == "success \u25be"
    page.select_option("#sort", label="as listed")
    assert rows(page) == list(range(12)) and page.locator("th[aria-sort]").count() == 0

    page.check("#twin")
    assert sorted(rows(page)) == list(range(6))
    page.check("#completions")
    assert sorted(rows(page)) == list(range(6))  # 4 has none of its own, its twin has
    page.fill("#least", "30")
    has_text(page, "#count", "2 of 12 features")
    assert sorted(rows(page)) == [0, 1]


def test_a_browser_chooses_by_keyboard_and_slides(tmp_path: Path, visit: Callable[..., Any]) -> None:
    cards = [card(k) for k in range(5)]
    twins = {k: replace(card(k, "micro-b"), completions={0.0: (("Ask  the?", f"twin {k}"),)}) for k in range(4)}
    address = write_features(tmp_path, "Features", cards, twins, facts(5)).as_uri()
    page = visit(f"{address}#feature-2")
    assert page.inner_text("#card-title") == "Feature 2"
    assert page.locator(".side").count() == 2 and page.locator(".side svg rect").count() == 6
    assert page.locator("tr.this a[aria-current=true]").inner_text() == "2"

    page.focus("#search")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "0"
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#card-title") == "Feature 1" and page.url.endswith("#feature-1")
    page.keyboard.press("End")
    assert page.inner_text("#card-title") == "Feature 4" and page.locator(".side").count() == 1
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    has_text(page, "#card-title:focus", "Feature 3")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the button "previous", which keeps the focus
    assert page.inner_text("#card-title") == "Feature 2"
    assert "previous" in page.evaluate("document.activeElement.textContent")

    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator(".strength output").inner_text().startswith("\u22121 \u00d7")
    assert page.locator(".answer").all_inner_texts() == ["strength -1 of 2:", "(not generated)"]
    page.keyboard.press("ArrowRight")
    assert page.locator(".strength output").inner_text() == "0 (unsteered)"
    assert page.locator(".answer").all_inner_texts() == ["strength 0 of 2:", "twin 2"]
    page.evaluate("location.hash = '#feature-0'")
    has_text(page, "#card-title", "Feature 0")
    assert page.locator(".strength output").inner_text() == "0 (unsteered)"  # kept


def test_it_opens_at_the_feature_and_the_strengths_that_it_speaks_of(tmp_path: Path, visit: Callable[..., Any]) -> None:
    def said(strengths: tuple[float, ...], model: str) -> dict[float, tuple[tuple[str, str], ...]]:
        return {s: (("Ask?", f"{model} at {s:g}"),) for s in strengths}

    one, twin = (
        replace(card(2, model), completions=said((-1.0, 0.0, 3.0, own), model)) for model, own in (("a", 7.5), ("b", 14.0))
    )
    cards, opening = [card(0), card(1), one], Opening(2, (7.5, 14.0))
    page = visit(write_features(tmp_path, "Features", cards, {2: twin}, facts(3), opening=opening).as_uri())
    assert page.inner_text("#card-title") == "Feature 2"
    assert page.locator(".answer").all_inner_texts() == ["a at 7.5", "b at 14"]
    assert page.locator(".strength output").inner_text().startswith("a: 7.5 \u00d7 its size, b: 14 \u00d7 its size")
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".answer").all_inner_texts() == ["a at 3", "b at 3"]
    page.evaluate("location.hash = '#feature-0'")
    has_text(page, "#card-title", "Feature 0")
    page.evaluate("location.hash = '#feature-2'")
    has_text(page, "#card-title", "Feature 2")
    assert page.locator(".answer").all_inner_texts() == ["a at 3", "b at 3"], "the strength that was chosen is kept"
    with pytest.raises(ValueError, match="opens at feature 9, which has no card"):
        write_features(tmp_path, "Features", cards, opening=Opening(9, (1.0, 1.0)))


def test_columns_say_what_they_are(tmp_path: Path, visit: Callable[..., Any]) -> None:
    path = write_features(tmp_path, "Features", [card(0)], facts=facts(1), meanings={"difference": "wanted minus other"})
    page = visit(path.as_uri())
    titles = [head.get_attribute("title") for head in page.locator("thead button").all()]
    assert titles[1] == "share of tokens on which it fires; sort by fires on"
    assert titles[4:] == ["wanted minus other; sort by difference", "sort by success"]
    page.click("details.columns summary")
    assert page.inner_text("details.columns dl").endswith("wanted minus other")


def test_a_narrow_window_does_not_scroll_sideways(tmp_path: Path, visit: Callable[..., Any]) -> None:
    path = write_features(tmp_path, "Features", [card(0), card(1)], {0: card(0, "micro-b")}, facts(2))
    page = visit(path.as_uri(), viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_five_hundred_features_with_twins_are_small_and_fast(
    tmp_path: Path, visit: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def large(index: int, model: str) -> FeatureCard:
        tokens = tuple(f" {model}{k}" for k in range(60))
        some = card(index, model)
        texts = [
            Example(tuple(f"{t}{index * 5 % 600 + n}" for t in tokens), (0.123, *([0.0] * 49), *([0.456] * 10)), n)
            for n in range(5)
        ]
        said = {
            float(s): tuple((f"prompt {p} " * 8, f"completion {index} {s} {p} " * 8) for p in range(3)) for s in range(-2, 4)
        }
        return replace(some, examples=tuple(texts), completions=said)

    cards, twins = [large(k, "a") for k in range(500)], {k: large(k, "b") for k in range(500)}
    path = write_features(tmp_path, "Features", cards, twins, facts(500))
    size = path.stat().st_size
    assert size < 10e6
    page = visit(path.as_uri())
    assert len(rows(page)) == 500
    [paint] = page.evaluate("performance.getEntriesByType('paint').filter(e => e.name === 'first-contentful-paint')")
    with capsys.disabled():
        print(f"\n500 features with twins: {size / 1e6:.1f} MB, first contentful paint {paint['startTime']:.0f} ms")  # noqa: T201


def blocks(path: Path) -> dict[str, Any]:
    return unpacked(path.read_text(encoding="utf-8"))


def test_a_twin_is_shown_on_the_same_texts(tmp_path: Path) -> None:
    one, two = card(0), card(40)
    other = Example(("same", " text"), (0.0, 0.7), 1)
    twin = replace(two, examples=(Example(("more",), (2.0,), 8), two.examples[0]), others=(other,))
    plain = blocks(write_features(tmp_path, "Features", [one], {0: twin}))
    texts = plain["index"]["texts"]
    sides = [[None if x is None else (x[-1], "".join(texts[x[0]])) for x in pair] for pair in plain["card-0"]["pairs"]]
    words = "".join(map(shown, WORDS))
    assert sides == [[(0, words), (0, words)], [(1, words), (1, "same text")], [(2, words), None]]
    assert [[None if x is None else x[-1] for x in pair] for pair in plain["card-0"]["more"]] == [[None, 8]]


def test_long_texts_are_cut_around_their_peak(tmp_path: Path) -> None:
    n, peak = 1000, 700
    long = Example(tuple(f" w{k}" for k in range(n)), tuple(float(k == peak) for k in range(n)), 0)
    assert window(long)[0] < peak < window(long)[1] == window(long)[0] + WINDOW
    plain = blocks(write_features(tmp_path, "Features", [replace(card(0), examples=(long,))]))
    [[number, before, after, at, values, text]] = plain["card-0"]["pairs"][0]
    assert plain["index"]["texts"][number][at] == " w700" and values[at] == 1 and text == 0
    assert before + after + len(values) == n and len(values) == WINDOW


def test_facts_are_plain_values_in_columns(tmp_path: Path) -> None:
    facts = {0: {"scale": np.float64(1.0), "found": True}, 1: {"scale": 5, "found": True, "odd": float("nan")}}
    index = blocks(write_features(tmp_path, "Features", [card(0), card(1)], facts=facts))["index"]
    assert [name for name, _ in index["columns"][4:]] == ["scale", "found", "odd"]
    assert [row["facts"] for row in index["rows"]] == [[1, "yes", None], [5, "yes", None]]


def test_refusals_and_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 cards of 0 features"):
        write_features(tmp_path, "Features", [])
    with pytest.raises(ValueError, match="2 cards of 1 features"):
        write_features(tmp_path, "Features", [card(0), card(0)])
    with pytest.raises(ValueError, match="a twin of feature 3, which has no card"):
        write_features(tmp_path, "Features", [card(0)], {3: card(3)})
    with pytest.raises(ValueError, match="facts of feature 3, which has no card"):
        write_features(tmp_path, "Features", [card(0)], facts={3: {}})
    with pytest.raises(ValueError, match="fact 'x' of feature 0 is a list: give a string, a number or None"):
        write_features(tmp_path, "Features", [card(0)], facts={0: {"x": [1]}})
    with pytest.raises(ValueError, match="is called 'size'"):
        write_features(tmp_path, "Features", [card(0)], facts={0: {"size": 1}})
    assert write_features(tmp_path / "new" / "folder", "Features", [card(0)]) == tmp_path / "new" / "folder" / FILE


def test_a_feature_that_never_fires_has_a_card(tmp_path: Path, visit: Callable[..., Any]) -> None:
    dead = FeatureCard(9, 0.0, 0.0, ((), ()), ())
    page = visit(write_features(tmp_path, "Features", [dead]).as_uri())
    assert "Fires on none of the texts" in page.inner_text("#card") and "never fires" in page.inner_text("#rows")
    assert peak_tokens(dead) == []
