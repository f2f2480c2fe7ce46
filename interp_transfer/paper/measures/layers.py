"""Which layers can be steered (Table 3): the paper's prompt steering at the trigger, and the difference in means everywhere."""

from collections.abc import Sequence
from typing import Any

from interp_transfer.activations.positions import substring
from interp_transfer.evaluation.evaluator import evaluator
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.models.sites import layer_of, residual_sites
from interp_transfer.paper.bench import model_for, task_of
from interp_transfer.paper.rows import Found, Row, Verdict, graded, share, value_of
from interp_transfer.vectors.extract import extract_each, prompt_steering

STRONG, WEAK = 0.8, 0.35
"""Success of the last layer that the paper takes, and of the one behind it."""


def measure(
    edition: str, n: int, seed: int, task: str, model: str, strengths: Sequence[float] = (1.0, 5.0), options: dict | None = None
) -> list[Row]:
    """A row for each layer: success of prompt steering at each strength, and of the difference in means at strength 1."""
    made = task_of(task, edition, options)
    loaded = model_for(model, made)
    test = evaluator(loaded, made, "test", n=min(n, len(made.prompts("test"))), seed=seed)
    sites = residual_sites(loaded)
    contrast = made.contrast("train")
    means = extract_each(loaded, contrast, sites, seed=seed, progress=False)
    triggers = made.safe_trigger, made.trigger  # type: ignore[attr-defined]
    rows: list[Row] = []
    for site in sites:
        vectors = prompt_steering(loaded, contrast, site, triggers)
        given: list[list[tuple[Intervention, ...]]] = [
            [tuple(add(v, x, substring(triggers[1], token=k)) for k, v in enumerate(vectors))] for x in strengths
        ]
        given.append([(add(means[site], 1.0, made.positions),)])
        judged = test.judge_each(given, [*strengths, 1.0], progress=False)
        row: dict[str, Any] = {"layer": layer_of(site)}
        for x, c in zip(strengths, judged, strict=False):
            row |= {f"at the trigger, {x:g}: success": share(c.success), f"at the trigger, {x:g}: intact": share(c.intact)}
        rows.append(
            row | {"all tokens, 1: success": share(judged[-1].success), "all tokens, 1: intact": share(judged[-1].intact)}
        )
    return rows


def verdict(found: Found) -> Verdict:
    """Whether success is high in early layers and drops sharply."""
    details, drops = [], 0
    for case, rows in found.items():
        columns = [name for name in rows[0] if name.startswith("at the trigger") and name.endswith("success")]
        curves = {name: [value_of(row, name) for row in rows] for name in columns}
        drops += any(max(curve) >= STRONG and curve[-1] <= WEAK for curve in curves.values())
        told = [f"{name.partition(':')[0]}: {', '.join(f'{x:.2f}' for x in curve)}" for name, curve in curves.items()]
        details.append(f"{case}, from the first layer on: {'; '.join(told)}")
    sentence = f"Steering at the trigger works in early layers and not in the last ones in {drops} of {len(found)} models."
    return Verdict(graded(drops, len(found)), sentence, tuple(details))
