import json
from typing import Any

import pytest
from plotly.graph_objects import Figure

from interp_transfer.plots.conditions import condition_points
from interp_transfer.plots.strength import KL_FLOOR, strength_curves
from interp_transfer.plots.style import styles


def point(condition: str, strength: float, rate: float, clean_kl: float) -> dict[str, Any]:
    share = {"rate": rate, "low": max(0.0, rate - 0.1), "high": min(1.0, rate + 0.1), "n": 100}
    return {"condition": condition, "strength": strength, "success": share, "intact": share, "clean_kl": clean_kl}


ROWS = [point(name, s, s / 4, 0.1 * s) for name in ("native", "moved") for s in (2.0, 0.25, 1.0)]


def traces(figure: Figure) -> list[Any]:
    return list(figure.data)


def layout(figure: Figure) -> Any:
    return figure.layout


def lines(figure: Figure, name: str) -> list[Any]:
    return [t for t in traces(figure) if t.name == name and t.mode == "lines+markers"]


def test_a_line_for_each_condition_in_each_panel_in_order_of_strength() -> None:
    figure = strength_curves(ROWS)
    success, intact, cost = lines(figure, "moved")
    assert list(success.x) == list(cost.x) == [0.25, 1.0, 2.0]
    assert list(intact.y) == [0.0625, 0.25, 0.5]
    assert list(cost.y) == pytest.approx([0.025, 0.1, 0.2])
    assert [success.yaxis, intact.yaxis, cost.yaxis] == ["y", "y2", "y3"]
    assert [success.showlegend, intact.showlegend, cost.showlegend] == [True, False, False]


def test_bands_are_the_intervals() -> None:
    figure = strength_curves(ROWS)
    band = next(t for t in traces(figure) if t.fill == "toself")
    assert list(band.y) == pytest.approx([0.1625, 0.35, 0.6, 0.4, 0.15, 0.0])


def test_costs_of_zero_stay_on_the_logarithmic_scale() -> None:
    figure = strength_curves([point("native", 0.0, 0.0, 0.0), point("native", 1.0, 0.5, 0.1)])
    assert lines(figure, "native")[2].y[0] == KL_FLOOR
    assert layout(figure).xaxis.type is None  # a strength of zero cannot stand on a logarithmic axis
    assert layout(strength_curves(ROWS)).xaxis.type == "log"


def test_a_condition_has_the_same_colour_in_every_figure() -> None:
    share = {"rate": 0.5, "low": 0.4, "high": 0.6, "n": 10}
    points = condition_points({"moved": {"strength": 1.0, "success": share, "intact": share, "clean_kl": 0.1}})
    assert traces(points)[0].marker.color == "#dd5f1e"
    assert lines(strength_curves(ROWS), "moved")[0].line.color == "#dd5f1e"


def test_the_usual_conditions_differ_in_more_than_colour() -> None:
    looks = styles(["native", "moved", "random", "shuffled"]).values()
    assert len({s.symbol for s in looks}) == 4
    assert len({s.dash for s in looks}) >= 3


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows to draw"):
        strength_curves([])


def test_the_figure_is_plain_data() -> None:
    assert json.loads(str(strength_curves(ROWS).to_json()))["data"]


def test_some_panels_of_another_thing_than_strengths() -> None:
    figure = strength_curves(ROWS, panels={"success": "it is gone", "clean_kl": "cost"}, below="noise: its size")
    success, cost = lines(figure, "moved")
    assert [success.yaxis, cost.yaxis] == ["y", "y2"]
    assert [a.text for a in layout(figure).annotations] == ["it is gone", "cost"]
    assert layout(figure).xaxis2.title.text == "noise: its size"
    assert success.customdata[0].startswith("noise 0.25<br>")


def test_a_condition_looks_the_same_however_its_name_is_written():
    names = ("mean ablated", "shuffled within text", "untrained")
    found = styles(names)
    assert [found[name] for name in names] == list(styles([name.replace(" ", "_") for name in names]).values())
    assert len({(one.colour, one.symbol) for one in found.values()}) == len(names)
