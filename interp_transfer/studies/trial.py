"""A trial of vectors in one target: strengths are chosen on validation prompts, conditions are compared on test prompts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tqdm.auto import tqdm

from interp_transfer.evaluation.evaluator import (
    CLEAN_PROMPTS,
    Condition,
    Evaluator,
    add_readings,
    evaluator,
    mean_ablation,
    random_like,
)
from interp_transfer.evaluation.metrics import loss_recovered
from interp_transfer.evaluation.side_effects import SideEffects, side_effects
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.follow import follow
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.move import MODES
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.search.strengths import Make, StrengthSearch, search_strength
from interp_transfer.studies.options import RunOptions
from interp_transfer.vectors.vector import SteeringVector

VALIDATION_PROMPTS = 100
"""Largest number of validation prompts."""
VARIANTS = ("autoencoder", "affine")
"""Mappers that are compared with the chosen one."""
VARIANT_PROMPTS = 50
"""Number of validation prompts that the strengths of the variants are chosen on, because there are many variants."""

Vectors = Mapping[str, SteeringVector]
"""The vectors "native", "moved" and "shuffled"."""
Strengths = Mapping[str, float]
"""A strength for each vector and for "random"."""


@dataclass(frozen=True)
class Trial:
    """Judges vectors in one target.

    Attributes:
        target: the model that is steered.
        task: prompts, positions and judge.
        options: numbers of prompts, strengths, budget and seed.
        progress: show bars for what takes longer than two seconds.
    """

    target: HookedModel
    task: Task
    options: RunOptions
    progress: bool = True

    @property
    def budget(self) -> float:
        """Clean KL that a strength may cost, in nats per token."""
        return self.task.budget if self.options.budget is None else self.options.budget

    @cached_property
    def validation(self) -> Evaluator:
        """The prompts on which strengths are chosen."""
        n = min(VALIDATION_PROMPTS, len(self.task.prompts("validation")))
        return evaluator(self.target, self.task, "validation", n=n, seed=self.options.seed)

    @cached_property
    def test(self) -> Evaluator:
        """The held-out prompts on which conditions are compared."""
        n, seed = self.options.n, self.options.seed
        return evaluator(self.target, self.task, "test", n=n, seed=seed, clean_prompts=n)

    def search(self, vectors: Vectors) -> dict[str, StrengthSearch]:
        """The fair strength of each vector, and of random ones of the moved vector's length, on validation prompts."""
        steered = {name: self._search(self.validation, vector, self.progress) for name, vector in vectors.items()}
        moved, seed = vectors["moved"], self.options.seed
        random = self._search(self.validation, lambda x: random_like(self._steer(moved, x), seed, draws=2), self.progress)
        return steered | {"random": random}

    def judge(self, vectors: Vectors, strengths: Strengths) -> dict[str, Condition]:
        """Each vector at its strength on test prompts, and random ones of the moved vector's length."""
        chosen = [strengths[name] for name in vectors]
        draws = [[(self._steer(vector, x),)] for vector, x in zip(vectors.values(), chosen, strict=True)]
        judged = dict(zip(vectors, self.test.judge_each(draws, chosen, progress=self.progress), strict=True))
        like = self._steer(vectors["moved"], strengths["random"])
        return judged | {"random": self.test.random(like, self.options.seed, strengths["random"], self.progress)}

    def compare(self, vectors: Vectors, strengths: Strengths) -> dict[str, Condition]:
        """Every condition on test prompts: the vectors at their strengths, and the baselines."""
        judged = self.judge(vectors, strengths)
        conditions = {
            "unsteered": self.test.unsteered(self.progress),
            **{name: judged[name] for name in ("native", "moved", "random", "shuffled")},
            "mean_ablated": self.test.mean_ablated(self._steer(vectors["moved"], 1.0), self.progress),
        }
        if self.task.answers is not None:
            conditions["forced_first_token"] = self.test.forced_first_token()
        return {name: add_readings(self.task, self.test.prompts, condition) for name, condition in conditions.items()}

    def side_effects(self, vectors: Vectors, strengths: Strengths) -> dict[str, SideEffects]:
        """What the native, the moved and one random vector cost elsewhere."""
        steered = {name: (self._steer(vectors[name], strengths[name]),) for name in ("native", "moved")}
        random = random_like(self._steer(vectors["moved"], strengths["random"]), self.options.seed, draws=1)
        n = max(CLEAN_PROMPTS, self.options.n)
        conditions = {"unsteered": (), **steered, "random": tuple(random)}
        return side_effects(self.target, self.task, conditions, n=n, seed=self.options.seed, progress=self.progress)

    def loss_recovered(self, source: HookedModel, mapper: Mapper) -> dict[str, Any]:
        """What the mapper's activations recover of the loss that mean ablation costs, on clean prompts."""
        mapped = follow(source, mapper.source.site, mapper.target.site, mapper)
        ablated = mean_ablation(self.target, self.task, mapped)
        clean = self.test.clean_kl
        return {"recovered": loss_recovered(self.target, clean.prompts, clean.answers, mapped, ablated).to_dict()}

    def variants(
        self,
        pairs: PairedActivations,
        mapper: Mapper,
        vector: SteeringVector,
        native: SteeringVector,
        fitting: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        """The vector moved by the other modes and mappers, each at its fair strength on test prompts."""
        how = self.options
        mappers = {kind: mapper if kind == how.mapper else fit(pairs, kind, **fitting) for kind in VARIANTS}
        mappers[how.mapper] = mapper
        few = replace(self.validation, prompts=self.validation.prompts[:VARIANT_PROMPTS])
        todo = [(kind, mode) for kind in mappers for mode in MODES if (kind, mode) != (how.mapper, how.mode)]
        rows = []
        for kind, mode in tqdm(todo, desc="variants", leave=False, disable=not self.progress):
            moved = mappers[kind].transfer(vector, mode, how.norm)
            strength = self._search(few, moved, progress=False).strength
            judged = self.test.judge([(self._steer(moved, strength),)], strength, progress=False)
            facts = {"fvu": mappers[kind].card.fvu, "norm": moved.norm, "cosine_to_native": moved.cosine(native)}
            rows.append({"mapper": kind, "mode": mode, **facts, **judged.to_dict()})
        return rows

    def _steer(self, vector: SteeringVector, strength: float) -> Intervention:
        return add(vector, strength, self.task.positions)

    def _search(self, validation: Evaluator, steer: SteeringVector | Make, progress: bool) -> StrengthSearch:
        return search_strength(validation, steer, budget=self.budget, strengths=self.options.strengths, progress=progress)
