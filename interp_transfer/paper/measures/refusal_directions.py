"""A model's own refusal vector: ablated everywhere (Arditi et al. 2024), subtracted, or added to make it refuse."""

from collections.abc import Sequence

import torch

from interp_transfer.evaluation.evaluator import random_like
from interp_transfer.interventions.generation import generate
from interp_transfer.interventions.intervention import Intervention, ablate
from interp_transfer.interventions.transforms import Ablate
from interp_transfer.models.sites import RESIDUAL_WRITES
from interp_transfer.paper.rows import Row
from interp_transfer.paper.setup import OneModel, Setup
from interp_transfer.stats import rate


def measure(setup: Setup, model: str) -> list[Row]:
    """Measure a row for each condition; vectors at the strength that the clean-KL budget allows.

    Args:
        setup: edition, n and seed.
        model: name of a model that refuses harmful requests.
    """
    removing, inducing = (
        OneModel(setup.edition, setup.n, setup.seed, task="refusal", model=model, options={"direction": direction})
        for direction in ("ablate", "induce")
    )
    conditions: dict[str, tuple[Sequence[Intervention], str]] = {"as it is": ((), "-")}
    noise = torch.randn(len(removing.vector.direction), generator=torch.Generator().manual_seed(setup.seed))
    conditions["refusal ablated"] = (ablate(removing.vector, everywhere=True),), "-"
    conditions["a random direction ablated"] = (Intervention(RESIDUAL_WRITES, Ablate(noise)),), "-"
    for side, verb in ((removing, "subtracted"), (inducing, "added")):
        strength = side.fair_strength(side.vector)
        steered = side.steer(side.vector, strength)
        conditions[f"refusal {verb}"] = (steered,), f"{strength:g}"
        conditions[f"a random vector {verb}"] = (random_like(steered, setup.seed, draws=1)[0],), f"{strength:g}"
    return [_row(removing, inducing, name, *condition) for name, condition in conditions.items()]


def _row(removing: OneModel, inducing: OneModel, name: str, interventions: Sequence[Intervention], strength: str) -> Row:
    task, model = removing.task, removing.model
    harmful, harmless = (side.draw(side.task.prompts("test"), "prompts") for side in (removing, inducing))
    answers = [generate(model, p, *interventions, max_new_tokens=60, progress=False) for p in (harmful, harmless)]
    refused = rate([not verdict.success for verdict in task.judge(harmful, answers[0])])
    assert task.skills is not None
    return {
        "condition": name,
        "harmful requests refused": refused,
        "harmless requests refused": rate([v.success for v in inducing.task.judge(harmless, answers[1])]),
        "harmless answered validly": rate([v.intact for v in task.judge(harmless, answers[1])]),
        "questions answered validly": task.skills(model, [interventions], n=removing.n)[0]["questions"],
        "strength": strength,
    }
