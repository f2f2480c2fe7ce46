from typing import Any

import pytest

from interp_transfer.organisms.card_dots import card_dots


def card(name: str, **rates: float) -> dict:
    return {"name": name, "measured": {k: {"rate": v, "low": v - 0.1, "high": v + 0.05, "n": 40} for k, v in rates.items()}}


def test_a_mark_for_each_figure_that_a_card_has():
    figure: Any = card_dots([card("one", a=0.5, b=0.25), card("two", b=0.75)], ["a", "b"])
    one, two = figure.data
    assert list(one.x) == [0.5, 0.25] and list(two.x) == [0.75]
    assert list(one.error_x.arrayminus) == pytest.approx([0.1, 0.1])
    assert one.y[1] < 1 < two.y[0], "marks of one figure stand beside each other around its row"
    assert list(figure.layout.yaxis.ticktext) == ["a", "b"]


def test_figures_that_nobody_has_are_refused():
    with pytest.raises(ValueError, match="no card has any of these figures: c"):
        card_dots([card("one", a=0.5)], ["c"])
