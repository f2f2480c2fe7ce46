"""Tokens that are coloured by a number."""

import re

from interp_transfer.plots.tokens import NEGATIVE, OPACITY, POSITIVE, ColouredTokens


def colours(shown: ColouredTokens) -> list[tuple[str, float]]:
    found = re.findall(r"background: rgba\((\d+, \d+, \d+), ([\d.]+)\)", shown._repr_html_())
    return [(colour, float(opacity)) for colour, opacity in found]


def test_signs_have_colours_and_the_largest_but_first_tokens_sets_the_scale() -> None:
    shown = ColouredTokens([["<s>", " a", " b"], ["<s>", " c"]], [[900.0, 1.0, -4.0], [-5.0, 2.0]])
    assert colours(shown) == [
        (POSITIVE, OPACITY),
        (POSITIVE, round(OPACITY / 4, 3)),
        (NEGATIVE, OPACITY),
        (NEGATIVE, OPACITY),
        (POSITIVE, round(OPACITY / 2, 3)),
    ]
    assert 'title="-4"' in shown._repr_html_() and "strongest colour is 4" in shown._repr_html_()


def test_tokens_are_text_and_empty_texts_are_shown() -> None:
    shown = ColouredTokens([["<b>", "$x$", "\u202e\n"], []], [[0.0, 0.0, 0.0], []], title="<i>")
    page = shown._repr_html_()
    assert "<b>" not in page.replace("<p><b>", "") and "&lt;b&gt;" in page and "\u202e" not in page and "&lt;i&gt;" in page
    assert "mathjax_ignore" in page and {opacity for _, opacity in colours(shown)} == {0.0}
    assert repr(shown).splitlines()[1:] == ["  +0 at '<b>'", "  no token"]
