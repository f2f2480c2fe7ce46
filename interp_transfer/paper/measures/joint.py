"""Several vectors at once: the best single one and the best set, chosen on validation prompts, judged on test prompts.

Both are compared with sets of random vectors at the same sites and tokens, in the same proportions and at the same cost, and
with the mean activation at the first site.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from interp_transfer.evaluation.baselines import random_like
from interp_transfer.evaluation.evaluator import Condition
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.transforms import Add
from interp_transfer.mapping.collect import collect
from interp_transfer.paper.joint import best_joint, fit_each
from interp_transfer.paper.rows import Row
from interp_transfer.paper.setup import TwoModels, shares
from interp_transfer.search.strengths import Steer, judge_pooled
from interp_transfer.vectors.extract import extract_each
from interp_transfer.vectors.vector import SteeringVector


def measure(
    setup: TwoModels, target_layers: Sequence[int], source_layers: Sequence[int] = (), mapper: str | None = None
) -> list[Row]:
    """Measure a row for each condition.

    Args:
        setup: the models and the task.
        target_layers: blocks before which vectors are added.
        source_layers: blocks before which moved vectors are found.
        mapper: kind of mapper; native vectors of the target unless given.
    """
    target, sites = setup.target, [_site(layer) for layer in target_layers]
    if mapper is None:
        vectors = extract_each(target.model, setup.task.contrast("train"), sites, setup.task.read)
    else:
        vectors = _moved(setup, [_site(layer) for layer in source_layers], sites, mapper)
    joint = best_joint(target.validation, vectors, budget=setup.task.budget, progress=False)
    rows = [_row("unsteered", target.test.unsteered(progress=False))]
    for count in sorted({1, len(joint.steps)}):
        steps, interventions = joint.steps[:count], joint.interventions[:count]
        name = "best alone" if count == 1 else f"{count} together"
        added = " and ".join(f"{s.vector}, {s.positions}, {s.strength:.3g}" for s in steps)
        rows.append(_row(f"{name}: {added}", target.test.judge(interventions, progress=False), steps[-1].judged))
        random = judge_pooled(target.validation, target.test, _random(interventions), progress=False)
        rows.append(_row(f"{name}: random vectors", random))
    rows.append(_row("mean ablated at the first", target.test.mean_ablated(joint.interventions[0], progress=False)))
    return rows


def _site(layer: int) -> str:
    return f"blocks.{layer}.hook_resid_pre"


def _moved(setup: TwoModels, sources: Sequence[str], targets: Sequence[str], kind: str) -> dict[str, SteeringVector]:
    a, b = setup.source.model, setup.target.model
    vectors = extract_each(a, setup.task.contrast("train"), list(sources), setup.task.read)
    sites = [(s, t) for s in sources for t in targets]
    pairs = collect(a, b, setup.task.texts("train"), *map(list, zip(*sites, strict=True)), progress=False)
    mappers = fit_each(pairs, kind, progress=False)
    return {f"{s} to {t}": mapper.transfer(vectors[s]) for (s, t), mapper in mappers.items()}


def _row(condition: str, judged: Condition, validation: Any = None) -> Row:
    intact = None if validation is None else validation.intact
    return {"condition": condition, "validation, intact": intact, **shares(judged), "clean KL": judged.cost}


def _random(interventions: Sequence[Intervention]) -> list[Steer]:
    """Sets of random vectors of the lengths of some vectors, each as a function of a common factor."""

    def scaled(drawn: Sequence[Intervention]) -> Steer:
        return lambda x: tuple(replace(one, transform=Add(one.transform.direction * x)) for one in drawn)  # type: ignore[attr-defined]

    return [scaled(drawn) for drawn in zip(*(random_like(one, seed) for seed, one in enumerate(interventions)), strict=True)]
