from typing import Any

import pytest

from interp_transfer.plots.alignment import aligned_tokens


def test_each_pair_is_a_line_between_its_tokens():
    figure: Any = aligned_tokens("so <b>", [("so", 2), ("Ġ<b>", 6)], [("s", 1), ("o", 2), ("Ġ<b", 5)], [(0, 1)], ("a", "b"))
    lines, above, below = figure.data
    assert list(lines.x) == [1.0, 1.0, None], "both tokens end at the second character"
    assert lines.y[0] > lines.y[1]
    assert list(above.text) == ["so", "␣&lt;b&gt;"]
    assert list(above.marker.symbol) == ["circle", "circle-open"]
    assert list(below.marker.symbol) == ["circle-open", "circle", "circle-open"]


def test_spaces_and_ends_of_lines_are_seen():
    figure: Any = aligned_tokens("a \n", [("Ġa", 1), ("Ċ", 3)], [("▁a", 1), ("\n", 3)], [])
    assert list(figure.data[1].text) == list(figure.data[2].text) == ["␣a", "⏎"]


def test_a_long_text_goes_on_below():
    figure: Any = aligned_tokens("x" * 250, [("a", 50), ("b", 150), ("c", 250)], [], [])
    assert len(set(figure.data[1].y)) == 3
    assert list(figure.data[1].x) == [49.0, 49.0, 49.0]


def test_a_link_to_nothing_is_refused():
    with pytest.raises(ValueError, match="joins token 1 with token 0"):
        aligned_tokens("x", [("x", 1)], [("x", 1)], [(1, 0)])
