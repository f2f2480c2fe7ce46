"""Notebook views: driven in Python, and seen as a reader without a kernel sees them."""

import builtins
import html
import importlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from interp_transfer.activations.capture import capture
from interp_transfer.escape import visible
from interp_transfer.features.cards import FeatureCard, feature_cards
from interp_transfer.features.sae import Sae
from interp_transfer.features.train import Recipe, train_sae
from interp_transfer.interventions.generation import generate
from interp_transfer.interventions.intervention import add
from interp_transfer.reporting.widgets import VIEW, Explorer, explore

SITE, THERE = "blocks.2.hook_resid_pre", "blocks.3.hook_resid_pre"
HOSTILE = ("<script>alert(1)</script>", "</script>", "a\u202eb", "\x00\n", "\U0001f468\u200d\U0001f469", " &amp;")
STRONG = 200.0
"""Changes a completion whichever feature it is."""
TOWN = "User: Name a town.\nAssistant:"


@pytest.fixture(scope="module")
def model(_wrapped: Callable[[str], Any]) -> Any:
    return _wrapped("qwen2")


@pytest.fixture(scope="module")
def other(_wrapped: Callable[[str], Any]) -> Any:
    return _wrapped("llama")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [f"User: Where is {i}?\nAssistant: In the {'north' if i % 2 else 'south'}." for i in range(40)]


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    return ["User: Where is 41?\nAssistant:", "User: Is 42 in the north?\nAssistant:"]


def trained(model: Any, texts: list[str], site: str) -> Sae:
    return train_sae(capture(model, texts, site), site, Recipe(epochs=1, expansion=2), progress=False)


@pytest.fixture(scope="module")
def sae(model: Any, texts: list[str]) -> Sae:
    return trained(model, texts, SITE)


@pytest.fixture(scope="module")
def twin(other: Any, texts: list[str]) -> Sae:
    return trained(other, texts, THERE)


@pytest.fixture(scope="module")
def cards(sae: Sae, model: Any, texts: list[str]) -> list[FeatureCard]:
    found = feature_cards(sae, model, texts, range(20), examples=2, progress=False)
    return sorted(found, key=lambda card: -card.density)[:4]


@pytest.fixture
def explorer(sae: Sae, model: Any, cards: list[FeatureCard], prompts: list[str]) -> Explorer:
    return explore(sae, model, cards, prompts=prompts, strengths=(-1, 0, 1, STRONG), max_new_tokens=8)


def cells(explorer: Explorer) -> list[str]:
    """The completions that the widget shows."""
    return [html.unescape(cell) for cell in re.findall(r"<td [^>]*>(.*?)</td>", explorer.controls.output.value, re.S)]


def test_controls_change_what_is_shown(
    explorer: Explorer, sae: Sae, model: Any, cards: list[FeatureCard], prompts: list[str]
) -> None:
    def said(card: FeatureCard, strength: float, positions: str, prompt: str) -> str:
        steer = add(sae.feature(card.index, size=card.size), strength, positions)
        return visible(generate(model, [prompt], steer, max_new_tokens=8)[0])

    def answers() -> list[str]:
        return cells(explorer)

    unsteered = [*map(visible, generate(model, prompts, max_new_tokens=8))]
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
    explorer.controls.prompt.value = TOWN
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
    explorer.controls.prompt.value = TOWN
    assert "alert" not in explorer.controls.output.value


def test_what_a_model_says_is_escaped(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        importlib.import_module("interp_transfer.reporting.widgets"), "generate", lambda *_, **__: ["".join(HOSTILE)]
    )
    explorer.controls.prompt.value = "<img src=x>"
    shown = explorer.controls.output.value
    assert "<script" not in shown and "&lt;script&gt;" in shown and "\u202e" not in shown and "\u2400" in shown


def test_two_models_side_by_side(
    sae: Sae, model: Any, twin: Sae, other: Any, cards: list[FeatureCard], prompts: list[str]
) -> None:
    both = explore(sae, model, cards[:2], moved=(twin, other, None), prompts=prompts, strengths=(0, 1), max_new_tokens=6)
    shown = html.unescape(both.controls.output.value)
    assert f"source: {sae.model.name}" in shown and f"target: {twin.model.name}" in shown
    assert cells(both)[2] == visible(generate(other, prompts[:1], max_new_tokens=6)[0])
    # A twin of another number, in another size: what is added is its own.
    moved_card = replace(cards[1], index=5, size=STRONG, model="micro-b")
    moved = explore(
        sae, model, cards[:1], moved=(twin, other, {cards[0].index: moved_card}), prompts=prompts, strengths=(0, 1),
        max_new_tokens=6,
    )  # fmt: skip
    expected = generate(other, prompts[:1], add(twin.feature(5, size=STRONG), 1.0), max_new_tokens=6)[0]
    assert moved.controls.strength.value == 1.0 and cells(moved)[3] == visible(expected)
    assert "feature 5" in moved.static_html()


def test_the_bundle_holds_the_widget_and_a_picture(explorer: Explorer, cards: list[FeatureCard], prompts: list[str]) -> None:
    bundle = explorer._repr_mimebundle_()
    assert bundle[VIEW]["model_id"] == explorer.controls.whole.model_id
    picture = bundle["text/html"]
    assert f"feature {cards[0].index}" in picture and picture.count("<tr><td") >= 8
    for prompt in prompts:
        assert prompt.splitlines()[0] in picture
    assert "<td" in picture and "200" in picture and "<script" not in picture and "http" not in picture
    assert bundle["text/plain"] == f"Explorer(4 features of {explorer._models[0][0].model.name})"
    hiding = explorer.controls.whole.children[-1].value
    assert re.search(r"\.([\w-]+)", hiding).group(1) in picture  # type: ignore[union-attr]


def test_a_live_notebook_gets_both_one_after_the_other(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    display = importlib.import_module("IPython.display")
    monkeypatch.setattr(display, "display", lambda data, raw: shown.append(data))
    explorer._ipython_display_()
    assert [set(data) - {"text/plain"} for data in shown] == [{"text/html"}, {VIEW}]
    assert shown[0]["text/html"] == explorer.static_html()


def test_refusals(
    sae: Sae, model: Any, other: Any, cards: list[FeatureCard], prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="nothing to choose from"):
        explore(sae, model, [], prompts=prompts)
    with pytest.raises(ValueError, match="nothing to choose from"):
        explore(sae, model, cards, prompts="one")
    with pytest.raises(ValueError, match="this SAE and the model"):
        explore(sae, other, cards, prompts=prompts)
    real = builtins.__import__
    monkeypatch.setattr(
        importlib, "import_module", lambda name: real("no_such_module_at_all") if "ipywidgets" in name else real(name)
    )
    with pytest.raises(ValueError, match=re.escape("pip install 'interp-transfer[notebooks]'")):
        explore(sae, model, cards, prompts=prompts)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the kernel's and nbconvert's libraries, not ours
def test_a_notebook_run_in_batch_keeps_the_picture(
    sae: Sae, folder: Any, texts: list[str], prompts: list[str], tmp_path: Path, look: Callable[[str], Any]
) -> None:
    from nbconvert import HTMLExporter

    sae.save(tmp_path / "sae")
    code = f"""import interp_transfer as it
from interp_transfer.features.cards import feature_cards
from interp_transfer.features.sae import load_sae
from interp_transfer.reporting.widgets import explore
model = it.load_model({str(folder("qwen2"))!r}, device="cpu")
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
