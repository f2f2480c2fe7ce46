"""Effect against cost: a line for each condition, pale ones for further draws."""

from typing import Any

import pytest

from interp_transfer.plots.effect import MANY, effect_curves


def point(condition: str, draw: int, strength: float, rate: float, clean_kl: float) -> dict[str, Any]:
    share = {"rate": rate, "low": max(0.0, rate - 0.1), "high": min(1.0, rate + 0.1), "n": 100}
    about = {"condition": condition, "draw": draw, "strength": strength}
    return {**about, "success": share, "intact": share, "clean_kl": clean_kl}


ROWS = [point("moved", draw, s, s / 4, 0.01 * s) for draw in (0, 1) for s in (2.0, 1.0)]
ROWS += [point("random", draw, s, 0.0, 0.02 * s) for draw in range(MANY + 1) for s in (1.0, 2.0)]


def test_a_line_for_each_draw_in_both_panels_over_clean_kl() -> None:
    drawn: Any = effect_curves(ROWS)
    lines = [t for t in drawn.data if t.mode == "lines+markers"]
    moved = [t for t in lines if t.name == "moved"]
    assert len(lines) == 2 * (2 + MANY + 1) and len(moved) == 4
    assert all(list(t.x) == [0.01, 0.02] and list(t.y) == [0.25, 0.5] for t in moved)
    assert sorted(t.opacity for t in moved) == [0.35, 0.35, 1.0, 1.0]
    assert all(t.opacity == 0.35 for t in lines if t.name == "random"), "many draws are all alike"
    assert [t.name for t in lines if t.showlegend] == ["random", "moved"]


def test_the_chosen_points_of_first_draws_are_ringed_and_the_budget_is_drawn() -> None:
    figure: Any = effect_curves(ROWS, budget=0.03, chosen=[("moved", 0, 2.0), ("moved", 1, 1.0), ("random", 0, 1.0)])
    rings = [t for t in figure.data if t.mode == "markers"]
    assert [(ring.x[0], ring.y[0]) for ring in rings] == [(0.02, 0.5)] * 2
    assert {shape.x0 for shape in figure.layout.shapes} == {0.03}


def test_costs_of_zero_stay_on_the_logarithmic_scale() -> None:
    figure: Any = effect_curves([point("native", 0, 0.0, 0.0, 0.0), point("native", 0, 1.0, 0.5, 0.1)])
    assert list(figure.data[0].x) == pytest.approx([1e-4, 0.1])
    with pytest.raises(ValueError, match="no rows"):
        effect_curves([])


def test_points_of_equal_cost_are_close_together() -> None:
    rows = [point("native", 0, 1.0, 0.5, 0.19), point("moved", 0, 2.0, 0.5, 0.197)]
    figure: Any = effect_curves(rows, budget=0.2)
    low, high = figure.layout.xaxis.range
    assert 10**low < 0.1 < 0.2 < 10**high < 0.3, "with the tick of 0.1"
