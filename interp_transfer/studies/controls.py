"""The vectors that a study compares: the native one, the moved one, and the controls that know nothing of the behaviour.

Every control has the moved vector's length, and its strength is found by the same search.
"""

from collections.abc import Mapping
from typing import Any

from interp_transfer.evaluation.task import Task
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.mapping.stored import StoredPairs
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.studies.options import RunOptions
from interp_transfer.vectors.controls import random_vectors, same_side, span_vectors
from interp_transfer.vectors.extract import extract
from interp_transfer.vectors.vector import SteeringVector

Vectors = Mapping[str, list[SteeringVector]]
"""By condition, its draws: random directions, or one vector for each seed of a mapper."""


Models = tuple[HookedModel, HookedModel]
"""Source and target."""


def fit_seeds(pairs: PairedActivations, how: RunOptions, models: Models, progress: bool) -> list[Mapper]:
    """Fit the mapper with each seed, which draws its initial weights and the texts that it is fitted on."""
    return [fit(pairs, how.mapper, models=models, seed=seed, progress=progress, **how.settings) for seed in how.mapper_seeds]


def moved_and_controls(
    models: Models,
    task: Task,
    pairs: PairedActivations,
    mappers: list[Mapper],
    vector: SteeringVector,
    how: RunOptions,
    progress: bool = True,
) -> dict[str, list[SteeringVector]]:
    """Move the vector through each mapper, and make the controls.

    Returns:
        "moved": one for each seed of the mapper. "random": isotropic directions. "random_in_span": directions in the span of
        the leading components of the moved evidence. "wrong_contrast": the difference of two halves of the contrast's positive
        side, moved by the mapper. "shuffled" and "shuffled_within_text": the vector moved by mappers that were fitted on pairs
        whose partners were exchanged across all texts or within each (not for pairs in a store), by another exchange for each
        seed. "untrained": moved by mappers that were not trained.
    """
    fitting: dict[str, Any] = {"models": models, "progress": progress}

    def move(mapper: Mapper, one: SteeringVector) -> SteeringVector:
        return mapper.transfer(one, how.mode, how.norm)

    def at_length(one: SteeringVector) -> SteeringVector:
        return one.normalized(moved[0].norm) if one.norm > 0 else one

    def through_shuffled(within_text: bool) -> list[SteeringVector]:
        shuffled = (pairs.shuffled(k, within_text=within_text) for k in how.mapper_seeds)  # one at a time: each is a copy
        fitted = [
            fit(each, how.mapper, seed=k, **fitting, **how.settings) for k, each in zip(how.mapper_seeds, shuffled, strict=True)
        ]
        return [at_length(move(mapper, vector)) for mapper in fitted]

    moved = [move(mapper, vector) for mapper in mappers]
    contrast = task.contrast("train")
    untrained = [fit(pairs, "untrained", seed=k, **fitting) for k in how.mapper_seeds]
    wrong = [extract(models[0], same_side(contrast, k), vector.site, progress=progress) for k in how.mapper_seeds]
    return {
        "moved": moved,
        "random": random_vectors(moved[0], how.directions, how.seed),
        "random_in_span": span_vectors(moved[0], -(-how.directions // 2), how.seed),
        "wrong_contrast": [at_length(move(mappers[0], one)) for one in wrong],
        "shuffled": through_shuffled(within_text=False),
        **({} if isinstance(pairs, StoredPairs) else {"shuffled_within_text": through_shuffled(within_text=True)}),
        "untrained": [at_length(move(mapper, vector)) for mapper in untrained],
    }


def at_strength_one(vectors: Vectors) -> tuple[dict[str, list[SteeringVector]], dict[str, list[float]]]:
    """The vectors whose figures at strength 1 are reported, and that strength for each of their draws."""
    chosen = {name: list(vectors[name]) for name in ("native", "moved", "random", "shuffled")}
    return chosen, {name: [1.0] * len(draws) for name, draws in chosen.items()}
