"""The numbers that figures show are those of the right rows, with their intervals."""

import pytest

from interp_transfer.paper.assets import Measured as Got
from interp_transfer.paper.assets import claims_of, counts, figure_alt, table
from interp_transfer.paper.charts import Curves, Dots
from interp_transfer.paper.experiment import Case, Experiment, experiments
from interp_transfer.paper.kinds import kind
from interp_transfer.paper.measures import mappers, samples, steering, switching
from interp_transfer.paper.rows import Row, Verdict
from interp_transfer.stats import Estimate


def e(value: float) -> Estimate:
    return Estimate(value, value - 0.02, value + 0.03, 200)


def steered(moved: float, native: float) -> list[Row]:
    values = {"unsteered": 0.0, "native": native, "moved": moved, "moved, at strength 1": 0.5, "untrained": 0.1}
    return [{"condition": name, "success": e(x), "intact": e(x / 2), "clean KL": None} for name, x in values.items()]


@pytest.mark.parametrize("name", sorted({one.kind for one in experiments().values()}))
def test_every_kind_of_the_page_has_a_figure_and_a_headline(name: str) -> None:
    assert callable(kind(name).module.chart) and callable(kind(name).module.headline)


def test_dots_are_the_named_rows_of_each_case() -> None:
    chart = steering.chart({"a": steered(0.9, 1.0), "b": steered(0.2, 0.8)})
    assert isinstance(chart, Dots)
    assert list(chart.cases["a"]) == ["unsteered", "moved", "native"], "neither other strengths nor what is not there"
    assert chart.cases["a"]["moved"] == e(0.45) and chart.cases["b"]["native"] == e(0.4)


def test_curves_are_columns_over_a_column() -> None:
    rows: list[Row] = [
        {"what is limited": what, "number": n, "intact": e(x), "success": e(1.0)}
        for what, n, x in (("texts", 50, 0.2), ("texts", 500, 0.7), ("pairs", 4, 0.3), ("pairs", 64, 0.6))
    ]
    chart = samples.chart({"a": rows})
    assert isinstance(chart, Curves) and list(chart.cases) == ["a: texts", "a: pairs"]
    assert chart.cases["a: texts"]["intact"] == [("50", e(0.2)), ("500", e(0.7))]
    lines = samples.headline({"a": rows}).lines
    assert [(line.case, line.value, line.beside) for line in lines] == [("a", e(0.7), 0.2), ("a", e(0.6), 0.3)]


def test_the_best_map_that_is_not_linear_stands_against_the_best_affine_one() -> None:
    values = {"affine": 0.6, "procrustes": 0.8, "autoencoder": 0.7, "autoencoder, paper width": 0.5}
    rows: list[Row] = [{"mapper": m, "mode": "difference", "intact": e(x), "success": e(1.0)} for m, x in values.items()]
    rows.append({"mapper": "native vector", "mode": "-", "intact": e(0.9), "success": e(1.0)})
    [line] = mappers.headline({"a": rows}).lines
    assert (line.value, line.beside) == (e(0.7), 0.8)
    modes: list[Row] = [
        {"mapper": "autoencoder", "mode": m, "intact": e(0.9), "success": e(x)}
        for m, x in (("difference", 0.99), ("delta", 0.95), ("raw", 0.2))
    ]
    [line] = mappers.headline({"a": [*modes, rows[-1]]}).lines
    assert (line.value, line.beside) == (e(0.2), 0.95)


def test_the_switch_is_compared_with_the_second_model() -> None:
    rows: list[Row] = [{"way": way, "success": e(x)} for way, x in ((switching.DIRECT, 0.9), (switching.MAPPED, 0.6))]
    [line] = switching.headline({"a": rows}).lines
    assert (line.value, line.beside) == (e(0.6), 0.9)


@pytest.fixture
def two_cases() -> Experiment:
    cases = (Case("a", {}, "A", "60% (n = 20)", point=0.6), Case("b", {}, "B", "=1+1"))
    return Experiment("one", "cells", "steering", 200, cases, title="A claim")


def test_the_papers_number_is_at_the_first_line_of_its_case(two_cases: Experiment) -> None:
    cases = {"a": steered(0.9, 1.0), "b": steered(0.2, 0.8)}
    [claim] = claims_of([Got(two_cases, cases, Verdict("in part", "So."))])
    assert claim.reported == [0.6, None] and claim.agrees == "in part"
    assert counts([claim, claim._replace(agrees="yes")]) == "Of 2 claims, our results agree with 1 and agree in part with 1."
    assert "intact answers in 2 cases" in figure_alt("A claim", steering.chart(cases))


def test_a_table_has_a_column_for_each_end_and_no_formula(two_cases: Experiment) -> None:
    frame = table(two_cases, {"b": steered(0.9, 1.0)})
    assert list(frame)[:6] == ["case", "condition", "success", "success low", "success high", "success n"]
    assert frame["success low"].tolist()[1] == pytest.approx(0.98) and frame["success n"].tolist() == [200] * 5
