"""What a browser does with the pages: no network, no errors of accessibility, on a phone, on paper, and without scripts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interp_transfer.models.identity import ModelIdentity
from interp_transfer.reporting.completions import all_completions, before_after, differences, partly_steered
from interp_transfer.reporting.feature_page import write_features
from interp_transfer.reporting.noise_page import write_noise
from interp_transfer.reporting.report import write_report
from interp_transfer.reporting.sweep_page import write_sweep
from interp_transfer.reporting.two_runs_page import write_two_runs
from interp_transfer.studies.switch_page import write_switch
from tests.reporting.conftest import make_completions, make_result, sealed
from tests.reporting.test_feature_page import card, facts, has_text
from tests.torture import outputs

Save = Callable[[dict[str, Any], dict[str, Any]], Path]
Json = dict[str, Any]
Visit = Callable[..., Any]


def run_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(sealed(make_result())))
    (folder / "completions.json").write_text(json.dumps(make_completions()))
    return folder


@pytest.fixture
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of the tests of hostile text, with harmless names."""
    names = ["blocks.1.hook_resid_pre", "all", "last"]
    texts = dict(zip(names, names, strict=True))
    model = ModelIdentity("micro-qwen-s", "1" * 16)
    for name, value in {"NAMES": names, "TEXTS": texts, "ALL": "whatever it is", "MODEL": model}.items():
        monkeypatch.setattr(outputs, name, value)


PAGES: dict[str, Callable[[Path], Path]] = {
    "report": lambda folder: write_report(run_folder(folder / "one")),
    "two runs": lambda folder: write_two_runs(run_folder(folder / "one"), run_folder(folder / "other")),
    "features": lambda folder: write_features(folder, "Features", [card(0), card(1)], {0: card(0, "micro-b")}, facts(2)),
    "sweep": lambda folder: write_sweep(outputs.sweep(), folder),
    "switch": lambda folder: write_switch(outputs.switch(outputs.NAMES), folder),
    "noise": lambda folder: write_noise({"removes": outputs.doses(), "induces": outputs.doses()}, folder),
}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.usefixtures("_plain")
def test_axe_finds_no_errors_and_nothing_is_lost_on_a_phone(name: str, tmp_path: Path, visit: Visit) -> None:
    from axe_playwright_python.sync_playwright import Axe

    url = PAGES[name](tmp_path).as_uri()
    for scheme, width in (("light", 1280), ("dark", 400)):
        options = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}, "bypass_csp": True}
        page = visit(url, **options)
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        found = Axe().run(page).response["violations"]
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_clean_kl_is_in_sight_on_a_phone(save: Save, result: Json, completions: Json, visit: Visit) -> None:
    page = visit(write_report(save(result, completions)).as_uri(), viewport={"width": 400, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for row in (".key tr.this", ".judged tbody tr:nth-child(3)"):
        cell = page.locator(f"{row} td:last-child").first
        assert cell.inner_text().startswith("0.084")
        box = cell.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 400


@pytest.mark.parametrize("name", ["report", "features"])
def test_a_browser_that_cannot_unpack_says_so_and_shows_the_tables(name: str, tmp_path: Path, visit: Visit) -> None:
    url = PAGES[name](tmp_path).as_uri()
    old = visit(url, before="delete window.DecompressionStream")
    assert old.is_visible("#cannot") and "cannot unpack" in old.inner_text("#cannot")
    plain = visit(url, java_script_enabled=False)
    assert "need scripts" in plain.locator("noscript").inner_text()
    assert not plain.is_visible("#cannot")
    if name == "report":
        assert old.is_visible(".key") and old.locator("article.pair").count() == 3
        assert plain.locator("article.pair").count() == 3 and plain.is_visible(".key")
    assert visit(url).locator("#cannot:visible").count() == 0


def test_paper_is_light_and_has_all_numbers(save: Save, result: Json, completions: Json, visit: Visit) -> None:
    page = visit(write_report(save(result, completions)).as_uri(), color_scheme="dark")
    numbers = page.locator(".judged").first
    assert not numbers.is_visible()
    page.evaluate("addEventListener('beforeprint', () => { document.title += ', printed'; })")
    assert page.pdf().startswith(b"%PDF")
    assert page.title().endswith(", printed"), "the browser announces it"
    assert not numbers.is_visible(), "what was folded is folded again"
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert numbers.is_visible() and not page.is_visible("#tools") and not page.is_visible("nav")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 33, 39)"
    assert page.evaluate("document.querySelector('#conditions .plot .main-svg').clientWidth") == 640


def test_completions_are_filtered_sorted_and_searched(save: Save, result: Json, completions: Json, visit: Visit) -> None:
    said = completions["conditions"]
    completions["prompts"][42] = "User: the zebra?\nAssistant:"
    for name, text, intact in (("moved", "Stripes of the zebra.", True), ("native", "Spots of the zebra.", False)):
        said[name][42] = {"completion": text, "success": True, "intact": intact, "reason": f"a judge on {name}"}
    kinds = {(c["success"], c["intact"]) for c in said["moved"]}
    assert kinds == {(True, True), (True, False), (False, False)}, "there are failures to find"
    page = visit(write_report(save(result, completions)).as_uri())

    def prompts() -> list[int]:
        return [int(text.split()[1]) - 1 for text in page.locator("#list h3").all_inner_texts()]

    assert prompts() == list(range(10)) and page.inner_text("#count") == "200 prompts, 10 shown"
    page.click("#more")
    assert len(prompts()) == 20
    page.click("#rest")
    assert prompts() == list(range(200)) and page.inner_text("#count") == "200 prompts"

    page.select_option("#outcome", label="\u2717 no success")
    failures = [i for i, c in enumerate(said["moved"]) if not c["success"]]
    assert prompts() == failures[:10]
    page.select_option("#outcome", label="intact with moved alone")
    alone = [i for i in range(200) if said["moved"][i]["intact"] and not said["native"][i]["intact"]]
    assert prompts() == alone[:10] and 42 in alone
    page.select_option("#outcome", label="any")
    page.select_option("#whose", label="native")
    page.select_option("#order", label="outcome, worst first")
    rank = {i: (c["success"], c["intact"]) for i, c in enumerate(said["native"])}
    assert prompts() == sorted(range(200), key=lambda i: (rank[i], i))[:10]
    page.select_option("#order", label="moved against native, most different")
    assert not set(prompts()) & {i for i in range(200) if said["moved"][i]["completion"] == said["native"][i]["completion"]}

    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("/")
    page.keyboard.type("a JUDGE on moved")
    has_text(page, "#count", "1 of 200 prompts")
    assert prompts() == [42] and page.locator("#list mark").all_inner_texts() == ["a judge on moved"]
    assert page.locator("#list u").all_inner_texts() == ["Stripes", "Spots"], "what differs between moved and native"
    page.fill("#search", "nobody says this")
    has_text(page, "#count", "0 of 200 prompts")
    assert page.is_visible("#none")
    page.click("#clear")
    assert len(prompts()) == 10 and not page.is_visible("#none")
    assert page.evaluate("document.activeElement.id") == "search"

    assert page.locator("#list article").first.locator(".answers > div").count() == 4
    page.get_by_role("checkbox", name="mean ablated").check()
    assert page.locator("#list article").first.locator(".answers > div").count() == 5
    page.focus("#search")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.querySelector('h3').textContent") == "Prompt 2"
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.querySelector('h3').textContent") == "Prompt 9"
    assert page.locator("#list article[tabindex='0']").count() == 1, "one stop for the tab key"


def test_cards_are_chosen_by_the_unsteered_model_alone(completions: Any) -> None:
    for i, one in enumerate(completions["conditions"]["unsteered"]):
        one["success"] = i not in (4, 9, 11, 30)
    for i in (4, 9):
        completions["conditions"]["moved"][i] |= {"completion": "broken", "success": False, "intact": False}
    chosen = before_after(completions)
    assert chosen is not None
    assert [i for i, *_ in chosen["cards"]] == [4, 9, 11] and chosen["need"] == 4
    assert [answers[1][1]["text"] for _, _, answers in chosen["cards"][:2]] == ["broken", "broken"], "failures are shown"
    for one in completions["conditions"]["unsteered"]:
        one["success"] = True
    unchosen = before_after(completions)
    assert unchosen is not None
    assert [i for i, *_ in unchosen["cards"]] == [0, 1, 2] and unchosen["need"] == 0
    del completions["conditions"]["moved"], completions["conditions"]["native"]
    assert (before_after(completions) or {})["after"] == "random"
    completions["conditions"] = {"moved": []}
    assert before_after(completions) is None


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ("Town 3 is here.", "Town 4 is here.", (["Town ", "3", " is here."], ["Town ", "4", " is here."])),
        ("Yes.", "Yes.", (["Yes."], ["Yes."])),
        ("", "No", (["", ""], ["", "No"])),
        ("a b", "a", (["a", " b"], ["a", ""])),
        ("w " * 400 + "x", "w " * 400 + "y", (["w " * 150, "w " * 250 + "x"], ["w " * 150, "w " * 250 + "y"])),
    ],
)
def test_words_that_differ(one: str, other: str, apart: tuple[list[str], list[str]]) -> None:
    assert differences(one, other) == apart


def test_pieces_make_up_the_texts() -> None:
    texts = ("The  town,\nis\u202e far. " * 30, "A town is near; the town is far. " * 25)
    assert tuple("".join(side) for side in differences(*texts)) == texts


def test_only_where_some_tokens_are_steered_they_are_marked(save: Save, result: Json, completions: Any, visit: Visit) -> None:
    looks = dict.fromkeys(completions["conditions"], ("#000000", "x"))
    assert not partly_steered(completions) and all_completions(completions, looks)["marked"] == []
    page = visit(write_report(save(result, completions)).as_uri())
    assert "All tokens of the prompt are steered, generated tokens as well." in page.inner_text("#completions")
    completions["tokens"][0]["steered"][-1] = False
    page = visit(write_report(save(result, completions)).as_uri())
    assert "steered tokens are underlined" in page.inner_text("#completions")
    first = page.locator("#list article").first.locator(".prompt")
    assert first.locator("u").count() == len(completions["tokens"][0]["pieces"]) - 1
    assert first.inner_text() == completions["prompts"][0]
