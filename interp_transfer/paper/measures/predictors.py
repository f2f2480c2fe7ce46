"""Cheap predictors of the best pair of layers, compared with a sweep of every pair."""

import math
from collections.abc import Sequence
from typing import Any

from interp_transfer.paper.predictors import compare_predictors
from interp_transfer.paper.rows import Row, RowsByCase, three_decimals
from interp_transfer.paper.setup import TwoModels
from interp_transfer.search.predictors import PREDICTORS
from interp_transfer.stats import rate

ENOUGH = 0.05
"""Success that a first choice may lose."""
SOMETHING = 0.2
"""Best success from which on there is something to lose."""
COLUMNS = ("spearman", "spearman_low", "spearman_high", "regret", "regret_confirmed", "cost", "cost_confirmed")


def measure(setup: TwoModels) -> list[Row]:
    """Measure a row for each predictor and measure of what was reached.

    Args:
        setup: the models and the task.
    """
    a, b = setup.source.model, setup.target.model
    result = compare_predictors(a, b, setup.task, n=setup.n, seed=setup.seed, progress=False)
    rows: list[Row] = []
    for reached in ("success", "intact"):
        best = max(pair[reached] for pair in result.pairs)
        for name, row in result.table(reached).to_dict("index").items():
            figures: dict[str, Any] = {column: float(row[column]) for column in COLUMNS}
            rows.append({"predictor": str(name), "of": reached, "pairs": len(result.pairs), "best": best, **figures})
    return rows


def tables(name: str, rows_by_case: RowsByCase) -> dict[str, list[Row]]:
    """A summary over all cases, then the success of each case."""
    summary = [_summary(predictor, rows_by_case) for predictor in PREDICTORS]
    return {name: [*summary, *(_case(case, rows) for case, rows in rows_by_case.items())]}


def _summary(predictor: str, rows_by_case: RowsByCase) -> Row:
    mine: dict[str, list[dict[str, Any]]] = {
        reached: [dict(r) for rows in rows_by_case.values() for r in rows if (r["predictor"], r["of"]) == (predictor, reached)]
        for reached in ("success", "intact")
    }
    success = mine["success"]
    row: dict[str, Any] = {"predictor": predictor}
    for column, title in (("regret", "first choice"), ("regret_confirmed", "after trying its best few")):
        for reached, rows in mine.items():
            row[f"{title} loses at most {ENOUGH:g}, {reached}"] = rate([r[column] <= ENOUGH + 1e-9 for r in rows])
    worth = [r["regret"] <= ENOUGH + 1e-9 for r in success if r["best"] >= SOMETHING]
    row[f"first choice, where the best is at least {SOMETHING:g}"] = rate(worth) if worth else None
    known = [r["spearman"] for r in success if r["spearman"] is not None and not math.isnan(r["spearman"])]
    row["mean Spearman (success)"] = sum(known) / len(known) if known else None
    for column, title in (("cost", "mean cost"), ("cost_confirmed", "mean cost with trying")):
        row[title] = sum(r[column] for r in success) / len(success)
    return row


def _case(case: str, rows: Sequence[Row]) -> Row:
    """Spearman's correlation with its interval, and success lost by the first choice, and after trying the best few."""
    success: list[Any] = [row for row in rows if row["of"] == "success"]
    line: dict[str, Any] = {"task, source to target": case, "pairs": success[0]["pairs"]}
    line["best success, intact"] = ", ".join(three_decimals(dict(row)["best"]) for row in (rows[0], rows[-1]))  # type: ignore[arg-type]
    for row in success:
        spearman = "-"
        if row["spearman"] is not None and not math.isnan(row["spearman"]):
            spearman = f"{row['spearman']:.2f} [{row['spearman_low']:.2f}, {row['spearman_high']:.2f}]"
        line[row["predictor"]] = f"{spearman}; {row['regret']:.2f}, {row['regret_confirmed']:.2f}"
    return line
