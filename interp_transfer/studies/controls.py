"""The vectors that a study compares: the native one, the moved one, and the controls that know nothing of the behaviour.

Every control has the moved vector's length, and its strength is found by the same search.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from interp_transfer.evaluation.kept import Kept
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


@dataclass(frozen=True)
class Fitter:
    """Fits mappers on the pairs of a run, or reads what a run that was stopped has fitted.

    Attributes:
        pairs: what they are fitted on.
        models: source and target.
        origin: a hash of what the pairs were collected from.
        kept: where mappers are kept.
        progress: show a bar when it takes longer than two seconds.
    """

    pairs: PairedActivations
    models: tuple[HookedModel, HookedModel]
    origin: str
    kept: Kept
    progress: bool = True

    def fit(self, kind: str, seed: int, settings: Mapping[str, Any] | None = None, shuffled: str = "") -> Mapper:
        """Fit a mapper; on pairs whose partners were exchanged across all texts ("all") or within each ("within")."""
        settings = settings or {}

        def fitted(state: Path | None) -> Mapper:
            pairs = self.pairs.shuffled(seed, within_text=shuffled == "within") if shuffled else self.pairs
            return fit(pairs, kind, models=self.models, seed=seed, checkpoint=state, progress=self.progress, **settings)

        return self.kept.mapper([self.origin, kind, seed, dict(settings), shuffled, version("interp-transfer")], fitted)

    def fit_seeds(self, how: RunOptions, shuffled: str = "") -> list[Mapper]:
        """Fit the run's mapper with each seed, which draws its initial weights and the texts that it is fitted on."""
        return [self.fit(how.mapper, seed, how.settings, shuffled) for seed in how.mapper_seeds]


def moved_and_controls(
    fitter: Fitter, task: Task, mappers: list[Mapper], vector: SteeringVector, how: RunOptions
) -> dict[str, list[SteeringVector]]:
    """Move the vector through each mapper, and make the controls.

    Returns:
        "moved": one for each seed of the mapper. "random": isotropic directions. "random_in_span": directions in the span of
        the leading components of the moved evidence. "wrong_contrast": the difference of two halves of the contrast's positive
        side, moved by the mapper. "shuffled" and "shuffled_within_text": the vector moved by mappers that were fitted on pairs
        whose partners were exchanged across all texts or within each (not for pairs in a store), by another exchange for each
        seed. "untrained": moved by mappers that were not trained.
    """

    def move(mapper: Mapper, one: SteeringVector) -> SteeringVector:
        return mapper.transfer(one, how.mode, how.norm)

    def at_length(one: SteeringVector) -> SteeringVector:
        return one.normalized(moved[0].norm) if one.norm > 0 else one

    def through(mappers: Iterable[Mapper]) -> list[SteeringVector]:
        return [at_length(move(mapper, vector)) for mapper in mappers]

    moved = [move(mapper, vector) for mapper in mappers]
    model, contrast = fitter.models[0], task.contrast("train")
    wrong = [
        extract(model, same_side(contrast, k), vector.site, task.read, method=how.method, progress=fitter.progress)
        for k in how.mapper_seeds
    ]
    within = [] if isinstance(fitter.pairs, StoredPairs) else fitter.fit_seeds(how, "within")
    return {
        "moved": moved,
        "random": random_vectors(moved[0], how.directions, how.seed),
        "random_in_span": span_vectors(moved[0], how.span_directions, how.seed),
        "wrong_contrast": [at_length(move(mappers[0], one)) for one in wrong],
        "shuffled": through(fitter.fit_seeds(how, "all")),
        **({"shuffled_within_text": through(within)} if within else {}),
        "untrained": through(fitter.fit("untrained", k) for k in how.mapper_seeds),
    }


def at_strength_one(vectors: Vectors) -> tuple[dict[str, list[SteeringVector]], dict[str, list[float]]]:
    """The vectors whose figures at strength 1 are reported, and that strength for each of their draws."""
    chosen = {name: list(vectors[name]) for name in ("native", "moved", "random", "shuffled")}
    return chosen, {name: [1.0] * len(draws) for name, draws in chosen.items()}
