"""Site pairs that a vector probably moves well between, chosen without a sweep over all of them.

To know which layer of the source to take a vector from and which layer of the target to move it to, one would have to try all
pairs: fit a map, move the vector, steer at every strength. Predictors score each pair without generating anything:

- ``depth``: how alike the relative depths of the two layers are (Bello et al. 2025). Free, a baseline.
- ``map``: variance that the closed-form map between the two explains, 1 - FVU.
- ``cka``: linear CKA between the differences of the contrast at both layers (Gao 2026; raw activations say less).
- ``probe``: held-out AUROC of a probe at the source's layer times that at the target's.
- ``attribution``: the moved vector times the gradient of the right answer's first token, see `first_order`: the first-order
  effect of steering with it (attribution patching, Nanda 2023).

`find_sites` tries the few best-scored pairs only.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.evaluation.evaluator import evaluator
from interp_transfer.evaluation.similarity import cka
from interp_transfer.evaluation.task import Task
from interp_transfer.features.probes import probe_sites
from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.fit import fit
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.sites import expand_sites, layer_of
from interp_transfer.names import find
from interp_transfer.prompts.contrast import sides
from interp_transfer.search.first_order import first_order
from interp_transfer.search.strengths import StrengthSearch, search_strengths
from interp_transfer.vectors.extract import extract_each
from interp_transfer.vectors.vector import SteeringVector

PREDICTORS = ("depth", "map", "cka", "probe", "attribution")

Pair = tuple[str, str]
"""A site of the source and a site of the target."""


@dataclass(frozen=True)
class Predictions:
    """The scores of site pairs.

    Attributes:
        vectors: the moved vector of each pair.
        scores: by predictor, the score of each pair; larger is better.
        seconds: CPU time of each predictor.
    """

    vectors: Mapping[Pair, SteeringVector]
    scores: Mapping[str, Mapping[Pair, float]]
    seconds: Mapping[str, float]

    def ranked(self, predictor: str = "attribution") -> list[Pair]:
        """Return the pairs, the best score first."""
        scores = find(predictor, self.scores, "predictor")
        return sorted(self.vectors, key=lambda pair: -scores[pair])


@dataclass(frozen=True)
class SiteChoice:
    """The best pair of sites among those that were tried.

    Attributes:
        source_site: where the vector comes from.
        target_site: where it is added.
        vector: the moved vector.
        search: outcomes over strengths on validation prompts.
        tried: by pair, the outcome at the chosen strength.
        predictions: the scores of all pairs.
    """

    source_site: str
    target_site: str
    vector: SteeringVector
    search: StrengthSearch
    tried: Mapping[Pair, StrengthSearch]
    predictions: Predictions


def find_sites(
    source: HookedModel,
    target: HookedModel,
    task: Task,
    *,
    by: str = "attribution",
    few: int = 4,
    source_sites: str | Sequence[str] | None = None,
    target_sites: str | Sequence[str] | None = None,
    kind: str = "affine",
    n: int = 60,
    seed: int = 0,
    progress: bool = True,
) -> SiteChoice:
    """Try the site pairs that a predictor scores best, each up to the clean-KL budget, and choose one.

    Args:
        source: the model that the vector comes from.
        target: the model that is steered.
        task: contrast, texts, prompts and judge.
        by: the predictor, one of ``PREDICTORS``.
        few: number of pairs to try.
        source_sites: candidates; the inputs of all blocks but the first unless given.
        target_sites: the same for the target.
        kind: of the mapper between each pair.
        n: number of validation prompts.
        seed: of everything that is random.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: for an unknown predictor, unknown sites, fewer than two pairs, or fewer than n prompts.
    """
    if few < 1:
        raise ValueError(f"few={few}: try at least one pair of sites")
    options = {"source_sites": source_sites, "target_sites": target_sites, "kind": kind, "n": n, "seed": seed}
    predictions = predict(source, target, task, by=(by,), progress=progress, **options)  # type: ignore[arg-type]
    validation = evaluator(target, task, "validation", n=n, seed=seed)
    pairs = predictions.ranked(by)[:few]
    vectors = {str(k): predictions.vectors[pair] for k, pair in enumerate(pairs)}
    tried = dict(zip(pairs, search_strengths(validation, vectors, progress=progress).values(), strict=True))
    best = max(tried, key=lambda pair: (tried[pair].chosen.intact.value, tried[pair].chosen.success.value))
    return SiteChoice(*best, predictions.vectors[best], tried[best], tried, predictions)


def predict(
    source: HookedModel,
    target: HookedModel,
    task: Task,
    *,
    by: Sequence[str] = PREDICTORS,
    source_sites: str | Sequence[str] | None = None,
    target_sites: str | Sequence[str] | None = None,
    kind: str = "affine",
    n: int = 60,
    seed: int = 0,
    progress: bool = True,
) -> Predictions:
    """Score every pair of sites by some predictors; arguments as for `find_sites`.

    Raises:
        ValueError: for an unknown predictor, unknown sites, or fewer than two pairs.
    """
    for name in by:
        find(name, dict.fromkeys(PREDICTORS), "predictor")
    here, there = (
        expand_sites(model, "blocks.*.hook_resid_pre")[1:] if sites is None else expand_sites(model, sites)
        for model, sites in ((source, source_sites), (target, target_sites))
    )
    both = [(s, t) for s in here for t in there]
    if len(both) < 2:
        raise ValueError(f"{len(both)} pair of sites leaves nothing to choose from: give more sites")
    vectors = extract_each(source, task.contrast("train"), here, task.read, seed=seed)
    pairs = collect(source, target, task.texts("train"), [s for s, _ in both], [t for _, t in both], progress=progress)
    start = time.process_time()
    mappers = {pair: fit(pairs, kind, sites=pair, seed=seed, progress=False) for pair in both}
    moved = {pair: mapper.transfer(vectors[pair[0]]) for pair, mapper in mappers.items()}
    mapping_seconds = time.process_time() - start
    score = {
        "depth": lambda: {(s, t): -abs(_depth(source, s) - _depth(target, t)) for s, t in both},
        "map": lambda: {pair: 1 - mapper.card.fvu for pair, mapper in mappers.items()},
        "cka": lambda: _cka_of_differences(source, target, task, both),
        "probe": lambda: _probe_aurocs(source, target, task, here, there),
        "attribution": lambda: _attribution(target, task, moved, n, seed),
    }
    scores, seconds = {}, {}
    for name in by:
        start = time.process_time()
        scores[name] = score[name]()
        seconds[name] = time.process_time() - start + (mapping_seconds if name in ("map", "attribution") else 0.0)
    return Predictions(moved, scores, seconds)


def _depth(model: HookedModel, site: str) -> float:
    layer = layer_of(site)
    return (0 if layer is None else layer) / int(model.cfg.n_layers)


def _cka_of_differences(source: HookedModel, target: HookedModel, task: Task, both: Sequence[Pair]) -> dict[Pair, float]:
    """CKA of the contrast's differences, one row for each pair of prompts, at the last token."""
    positive, negative = sides(task.contrast("train"))
    rows: list[dict[str, Tensor]] = []
    for k, model in enumerate((source, target)):
        names = list(dict.fromkeys(pair[k] for pair in both))
        plus, minus = (capture(model, texts, names, "last", progress=False) for texts in (positive, negative))
        rows.append({site: plus[site].float() - minus[site].float() for site in names})
    return {(s, t): cka(rows[0][s], rows[1][t]) for s, t in both}


def _probe_aurocs(
    source: HookedModel, target: HookedModel, task: Task, here: Sequence[str], there: Sequence[str]
) -> dict[Pair, float]:
    """The product of the held-out AUROCs of both sites' probes."""
    auroc = []
    for model, sites in ((source, here), (target, there)):
        frame = probe_sites(model, task.contrast("train"), task.contrast("validation"), list(sites))
        auroc.append(dict(zip(frame["site"], frame["auroc"], strict=True)))
    return {(s, t): float(auroc[0][s] * auroc[1][t]) for s in here for t in there}


def _attribution(target: HookedModel, task: Task, moved: Mapping[Pair, SteeringVector], n: int, seed: int) -> dict[Pair, float]:
    """Each moved vector times the gradient of the metric in a vector added at its site."""
    gradient = first_order(target, task, list(dict.fromkeys(t for _, t in moved)), n, seed)
    return {pair: float(vector.direction.float() @ gradient[pair[1]]) for pair, vector in moved.items()}
