"""Which layers can be steered (Table 3): the paper's prompt steering at the trigger, and the difference in means everywhere."""

from collections.abc import Sequence
from typing import Any

from interp_transfer.activations.positions import substring
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.models.sites import layer_of, residual_sites
from interp_transfer.paper.charts import Chart, Headline, curves, headline_of
from interp_transfer.paper.prompt_steering import prompt_steering
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, grade, value_of
from interp_transfer.paper.setup import OneModel, shares
from interp_transfer.stats import Estimate
from interp_transfer.vectors.extract import extract_each

STRONG, WEAK = 0.8, 0.35
"""Success of the last layer that the paper takes, and of the one after it."""


def measure(setup: OneModel, strengths: Sequence[float] = (1.0, 5.0)) -> list[Row]:
    """Measure a row for each layer: prompt steering at each strength, and the difference in means at strength 1."""
    task, model = setup.task, setup.model
    sites = residual_sites(model)
    contrast = task.contrast("train")
    means = extract_each(model, contrast, sites, seed=setup.seed, progress=False)
    rows: list[Row] = []
    for site in sites:
        vectors = prompt_steering(model, contrast, site, (task.safe_trigger, task.trigger))
        conditions: list[tuple[Intervention, ...]] = [
            tuple(add(v, x, substring(task.trigger, token=k)) for k, v in enumerate(vectors)) for x in strengths
        ]
        conditions.append((add(means[site], 1.0, task.positions),))
        judged = setup.test.judge_each(conditions, [*strengths, 1.0], progress=False)
        row: dict[str, Any] = {"layer": layer_of(site)}
        for x, c in zip(strengths, judged, strict=False):
            row |= shares(c, f"at the trigger, {x:g}: ")
        rows.append(row | shares(judged[-1], "all tokens, 1: "))
    return rows


def verdict(cases: RowsByCase) -> Verdict:
    """Whether success is high in early layers and drops sharply."""
    details, drops = [], 0
    for case, rows in cases.items():
        columns = [name for name in rows[0] if name.startswith("at the trigger") and name.endswith("success")]
        curves = {name: [value_of(row, name) for row in rows] for name in columns}
        drops += any(max(curve) >= STRONG and curve[-1] <= WEAK for curve in curves.values())
        summary = [f"{name.partition(':')[0]}: {', '.join(f'{x:.2f}' for x in curve)}" for name, curve in curves.items()]
        details.append(f"{case}, from the first layer on: {'; '.join(summary)}")
    sentence = f"Steering at the trigger works in early layers and not in the last ones in {drops} of {len(cases)} models."
    return Verdict(grade(drops, len(cases)), sentence, tuple(details))


def chart(cases: RowsByCase) -> Chart:
    """Success by layer, at the trigger and at all tokens."""
    columns = [name for rows in cases.values() for name in rows[0] if name.endswith(": success")]
    names = {name: name.removesuffix(": success").replace(", ", ", strength ") for name in columns}
    return curves(cases, "success", ("layer", "layer"), names)


def headline(cases: RowsByCase) -> Headline:
    """Success of steering at the trigger in the last layer, and in the best one."""

    def pick(rows: Sequence[Row]) -> tuple[Estimate, float]:
        column = next(name for name in rows[0] if name.startswith("at the trigger") and name.endswith("success"))
        return estimate_of(rows[-1], column), max(value_of(row, column) for row in rows)

    return headline_of(cases, "success at the trigger, last layer", "best layer", pick)
