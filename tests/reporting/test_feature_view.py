"""Static views of a feature, as a reader without a kernel sees them."""

import re
from dataclasses import replace

import pytest

from interp_transfer.features.cards import Example, FeatureCard
from interp_transfer.reporting.feature_view import feature_view, histogram_svg, tokens_view

HOSTILE = ("<script>alert(1)</script>", "</script>", "a\u202eb", "\x00\n", "\U0001f468\u200d\U0001f469", " &amp;")
SAID = {0.0: (("ask", "nothing added"),), 1.0: (("ask", "a valid answer"),)}


def hostile() -> FeatureCard:
    example = Example(HOSTILE, (0.0, 0.5, 1.0, 0.0, 2.0, 0.1), 0)
    ranked = tuple((token, 1.0) for token in HOSTILE)
    said = {1.0: tuple((f"ask {token}", f"say {token}") for token in HOSTILE)}
    return FeatureCard(
        3, 1.0, 0.5, ((1, 2), (0.0, 1.0, 2.0)), (example, example), ranked, ranked, said, (), HOSTILE[0], HOSTILE[1]
    )


def test_a_view_says_what_the_card_says() -> None:
    example = Example((" the", " drum"), (0.0, 2.0), 4)
    card = replace(hostile(), examples=(example,), completions=SAID, model="micro-a")
    drawn = feature_view(card)._repr_html_()
    assert "a valid answer" in drawn and "<svg" in drawn and "Promotes" in drawn and "alert(1)" in drawn
    spans = re.findall(r"<span[^>]*>(.*?)</span>", drawn, re.S)
    assert len(spans) == sum(len(example.tokens) for example in card.examples)
    beside = feature_view(card, replace(card, index=99))._repr_html_()
    assert "feature 99" in beside and beside.count("<svg") == 2
    assert repr(feature_view(card)) == f"FeatureView({card.index} of {card.model})" and "0 (unsteered)" in drawn
    dead = FeatureCard(9, 0.0, 0.0, ((), ()), ())
    assert "Fires on none" in feature_view(dead)._repr_html_()
    with pytest.raises(ValueError, match="nothing to show"):
        tokens_view(dead)


def test_a_histogram_as_svg() -> None:
    drawn = histogram_svg((2, 0, 4), (0.0, 1.0, 2.0, 3.0))
    heights = [float(h) for h in re.findall(r'<rect [^>]*height="([\d.]+)"', drawn)]
    assert heights == [39.0, 0.0, 78.0] and "highest bar: 4" in drawn
    assert histogram_svg((), ()) == ""
    with pytest.raises(ValueError, match="2 counts between 2 edges"):
        histogram_svg((1, 2), (0.0, 1.0))
