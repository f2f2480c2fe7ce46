"""Files beside the page of results: a figure and a table of numbers for each experiment, and the figure of all claims."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from interp_transfer.escape import markdown
from interp_transfer.io import write_files
from interp_transfer.paper.charts import Chart, Curves, Headline
from interp_transfer.paper.experiment import Experiment
from interp_transfer.paper.kinds import kind
from interp_transfer.paper.rows import RowsByCase, Verdict
from interp_transfer.paper.svg import Claim, draw, forest
from interp_transfer.reporting.csv_export import csv_text
from interp_transfer.stats import Estimate

FOLDER = "results"
"""Folder of the files, beside the page."""
FOREST = "claims.svg"
COUNTED = {
    "yes": "agree with {}",
    "in part": "agree in part with {}",
    "no": "do not agree with {}",
    "cannot tell": "cannot tell about {}",
}
"""Words for a number of claims with a verdict."""


class Measured(NamedTuple):
    """An experiment of which something was measured.

    Attributes:
        experiment: that it is.
        rows: of each case that was measured.
        verdict: on them.
    """

    experiment: Experiment
    rows: RowsByCase
    verdict: Verdict


def write_assets(page: Path, measured: Sequence[Measured], folder: str = FOLDER) -> None:
    """Write the files of a page: ``figures/NAME.svg`` and ``csv/NAME.csv`` of each experiment, and ``figures/claims.svg``.

    Args:
        page: the page.
        measured: the experiments of which anything was measured.
        folder: folder of the files, beside the page.
    """
    files = {f"csv/{one.name}.csv": csv_text(table(one, rows)) for one, rows, _ in measured}
    for one, rows, _ in measured:
        if (chart := chart_of(one, rows)) is not None:
            files[f"figures/{one.name}.svg"] = draw(chart, figure_alt(one.title, chart))
    if claims := claims_of(measured):
        files[f"figures/{FOREST}"] = forest(claims, forest_alt(claims))
    write_files({page.parent / folder / name: text.encode() for name, text in files.items()})


def chart_of(one: Experiment, rows: RowsByCase) -> Chart | None:
    """The figure of an experiment; None if nothing was measured, or its kind has no figure."""
    module = kind(one.kind).module if rows else None
    return module.chart(rows) if module is not None and hasattr(module, "chart") else None


def links(one: Experiment, rows: RowsByCase, folder: str = FOLDER) -> dict[str, str]:
    """Where a page finds the figure of an experiment, what it shows in words, and where its table is; empty for none."""
    chart = chart_of(one, rows)
    drawn = {} if chart is None else {"figure": f"{folder}/figures/{one.name}.svg", "alt": alt(figure_alt(one.title, chart))}
    return {"figure": "", "alt": "", "csv": f"{folder}/csv/{one.name}.csv" if rows else "", **drawn}


def alt(text: str) -> str:
    """A text as Markdown takes it in place of a picture."""
    return markdown(text).replace("[", "").replace("]", "")


def table(one: Experiment, rows_by_case: RowsByCase) -> pd.DataFrame:
    """All rows of an experiment: an estimate is four columns, its value, ends and n."""
    cases = {case.name: case for case in one.cases}
    lines: list[dict[str, Any]] = []
    for name, rows in rows_by_case.items():
        for row in rows:
            line: dict[str, Any] = {"case": name}
            for column, value in row.items():
                if isinstance(value, Estimate):
                    line |= {column: value.value, f"{column} low": value.low, f"{column} high": value.high}
                    line |= {f"{column} n": value.n}
                else:
                    line[column] = value
            lines.append(line | ({"the paper": cases[name].reported} if cases[name].reported else {}))
    return pd.DataFrame(lines)


def claims_of(measured: Sequence[Measured]) -> list[Claim]:
    """The claims whose kind has a headline, with the paper's number at the first of each case's lines."""
    claims = []
    for one, rows, verdict in measured:
        module = kind(one.kind).module
        if not hasattr(module, "headline"):
            continue
        headline: Headline = module.headline(rows)
        points = {case.name: case.point for case in one.cases}
        claims.append(Claim(one.title, verdict.agrees, headline, [points.pop(line.case, None) for line in headline.lines]))
    return claims


def figure_alt(title: str, chart: Chart) -> str:
    """What the figure of an experiment shows, in words."""
    names = dict.fromkeys(name.replace("_", " ") for case in chart.cases.values() for name in case)
    over = f" over {chart.x}" if isinstance(chart, Curves) else ""
    cases = "1 case" if len(chart.cases) == 1 else f"{len(chart.cases)} cases"
    shown = f"{title}: {chart.axis}{over} in {cases}, with 95% intervals: {'; '.join(names)}."
    return f"{shown} The numbers are in the table below."


def forest_alt(claims: Sequence[Claim]) -> str:
    """What the figure of all claims shows, in words."""
    return f"Our number for each claim with its 95% interval, and the paper's. {counts(claims)}"


def counts(claims: Sequence[Claim]) -> str:
    """How many claims have which verdict, as a sentence."""
    verdicts = [claim.agrees for claim in claims]
    parts = [words.format(verdicts.count(word)) for word, words in COUNTED.items() if word in verdicts]
    listed = " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
    return f"Of {len(claims)} claims, our results {listed}."
