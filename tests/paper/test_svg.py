"""Figures are well-formed, show every number where it belongs, and need neither colour nor a light page."""

import re
import xml.etree.ElementTree as ET

from interp_transfer.paper import svg
from interp_transfer.paper.charts import Curves, Dots, Headline, Line
from interp_transfer.stats import Estimate

SVG = "{http://www.w3.org/2000/svg}"
LOW, MIDDLE, HIGH = (Estimate(x, x - 0.1, x + 0.1, 50) for x in (0.1, 0.5, 0.9))


def marks(text: str) -> dict[str, float]:
    """The middle of each mark, by its title."""
    found = {}
    for node in ET.fromstring(text).iter():
        title = node.find(f"{SVG}title")
        if title is not None:
            numbers = [float(x) for x in re.findall(r"[-\d.]+", node.get("points") or node.get("d") or "")][::2]
            found[str(title.text)] = float(node.get("cx") or sum(numbers) / len(numbers))
    return found


def test_dots_are_drawn_at_their_shares_with_their_numbers() -> None:
    text = svg.draw(Dots("success", {"a": {"unsteered": LOW, "native": MIDDLE}, "b": {"native": HIGH}}), "what it shows")
    at = marks(text)
    assert list(at) == [f"{x:.3f} [{x - 0.1:.3f}, {x + 0.1:.3f}], n = 50" for x in (0.1, 0.5, 0.9)]
    low, middle, high = at.values()
    assert abs((middle - low) - (high - middle)) < 0.2 and low < middle
    root = ET.fromstring(text)
    assert root.get("aria-label") == "what it shows" and root.get("role") == "img"
    background = root.find(f"{SVG}rect")
    assert background is not None and background.get("fill") == "#fff", "legible on a dark page"


def test_curves_have_a_panel_for_each_case() -> None:
    lines = {"native": [("1", HIGH), ("5", LOW)], "random": [("1", LOW), ("5", LOW)]}
    text = svg.draw(Curves("success", "strength", {"first": lines, "second": lines}), "alt")
    assert len(re.findall("<title>0.900", text)) == 2 and len(re.findall("<title>0.100", text)) == 6
    assert text.count(">strength</text>") == 2 and 'stroke-dasharray="2 3"' in text, "random differs in its line as well"


def test_names_of_others_are_text() -> None:
    hostile = "<script>alert(1)</script> & \u202e\n\x00 x"
    text = svg.draw(Dots(hostile, {hostile: {hostile: LOW}}), f'"{hostile}')
    assert "<script" not in text and "\u202e" not in text
    assert [node.tag for node in ET.fromstring(text).iter() if "script" in node.tag] == []


def test_each_verdict_has_a_shape_of_its_own() -> None:
    words = ("yes", "in part", "no", "cannot tell")
    assert len({svg.VERDICTS[word][1].symbol for word in words}) == len(words)
    claims = [svg.Claim(word, word, Headline("success", "native", (Line("a", MIDDLE, 0.9),)), [0.2]) for word in words]
    text = svg.forest(claims, "all claims")
    assert len(marks(text)) == 1 and text.count("<title>0.500") == len(words)
    assert text.count("l-5.5 -9.5h11z") == len(words) + 1, "the paper's number of each, and the legend's"
    assert "does not agree" in text and "success; tick: native" in text


def test_a_share_beyond_the_ends_stays_inside() -> None:
    wide = Estimate(-0.2, -0.5, 1.4, 3)
    for x in re.findall(r"M(-?[\d.]+) [\d.]+H(-?[\d.]+)", svg.draw(Dots("cosine", {"a": {"native": wide}}), "alt")):
        assert all(0 <= float(end) <= svg.WIDTH for end in x)
