"""A model's own refusal vector: ablated everywhere (Arditi et al. 2024), subtracted, or added to make it refuse."""

from collections.abc import Sequence

import numpy as np

from interp_transfer.evaluation.completions import completions_each
from interp_transfer.evaluation.evaluator import RANDOM_PROMPTS
from interp_transfer.interventions.intervention import Intervention, ablate
from interp_transfer.interventions.transforms import Ablate
from interp_transfer.models.sites import RESIDUAL_WRITES
from interp_transfer.paper.rows import Row
from interp_transfer.paper.setup import OneModel, Setup
from interp_transfer.search.strengths import search_strengths
from interp_transfer.stats import Estimate, crossed_rate, mean_interval, rate
from interp_transfer.vectors.controls import random_vectors

NEW_TOKENS = 60

Draw = tuple[Sequence[Intervention], float | None]
"""Interventions that are applied together, and their strength, if they have one."""


def measure(setup: Setup, model: str) -> list[Row]:
    """Measure a row for each condition; each vector at the strength that its own search within the clean-KL budget chooses.

    Random rows are means over directions, each on fewer prompts.

    Args:
        setup: edition, n and seed.
        model: name of a model that refuses harmful requests.
    """
    removing, inducing = (
        OneModel(setup.edition, setup.n, setup.seed, task="refusal", model=model, options={"direction": direction})
        for direction in ("ablate", "induce")
    )
    random = random_vectors(removing.vector, setup.directions, setup.seed)
    everywhere: list[Draw] = [((Intervention(RESIDUAL_WRITES, Ablate(one.direction)),), None) for one in random]
    conditions: dict[str, list[Draw]] = {
        "as it is": [((), None)],
        "refusal ablated": [((ablate(removing.vector, everywhere=True),), None)],
        "random directions ablated": everywhere,
    }
    for side, verb in ((removing, "subtracted"), (inducing, "added")):
        conditions[f"refusal {verb}"] = [_steered(side, side.fair_strength(side.vector))]
        found = search_strengths(side.validation, {str(k): one for k, one in enumerate(random)}, progress=False, costs=False)
        strengths = [search.strength for search in found.values()]
        conditions[f"random directions {verb}"] = [
            ((side.steer(one, strength),), strength) for one, strength in zip(random, strengths, strict=True)
        ]
    return [_row(removing, inducing, name, draws) for name, draws in conditions.items()]


def _steered(side: OneModel, strength: float) -> Draw:
    return (side.steer(side.vector, strength),), strength


def _row(removing: OneModel, inducing: OneModel, name: str, draws: list[Draw]) -> Row:
    task, model = removing.task, removing.model
    n = removing.n if len(draws) == 1 else min(removing.n, RANDOM_PROMPTS)
    settings = [interventions for interventions, _ in draws]
    harmful, harmless = (side.draw(side.task.prompts("test"), "prompts", n) for side in (removing, inducing))
    to_harmful, to_harmless = (completions_each(model, p, settings, NEW_TOKENS, progress=False) for p in (harmful, harmless))
    refused = [[not verdict.success for verdict in task.judge(harmful, answers)] for answers in to_harmful]
    over_refused = [[v.success for v in inducing.task.judge(harmless, answers)] for answers in to_harmless]
    valid = [[v.intact for v in task.judge(harmless, answers)] for answers in to_harmless]
    assert task.skills is not None
    questions = [skills["questions"] for skills in task.skills(model, settings, n=n)]
    strengths = [strength for _, strength in draws if strength is not None]
    return {
        "condition": name,
        "harmful requests refused": _share(refused),
        "harmless requests refused": _share(over_refused),
        "harmless answered validly": _share(valid),
        "questions answered validly": questions[0] if len(draws) == 1 else mean_interval(q.value for q in questions),
        "strength": f"{np.median(strengths):.3g}" if strengths else "-",
    }


def _share(outcomes: list[list[bool]]) -> Estimate:
    return rate(outcomes[0]) if len(outcomes) == 1 else crossed_rate(outcomes)
