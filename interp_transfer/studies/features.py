"""Features of a source SAE moved to a target: the effect of each in both models, with controls.

The whole source SAE is moved (``transfer.saes``), so that feature 12 of the moved SAE is feature 12 of the source. Candidates
are ranked by how much they differ between the two sides of the task's contrast. On validation prompts each candidate steers
the source, and the moved one the target. The best is judged on test prompts in both models, with these controls: the unsteered
model, random directions at the same cost, mean ablation, the same feature moved by a mapper that was fitted on shuffled
pairs, the most similar feature of the target's own SAE, and a native steering vector. As in the paper, the feature is also set
instead of added, without what the SAE misses, and compared with the reconstruction alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions, describe
from interp_transfer.evaluation.evaluator import Condition, Evaluator, evaluator, strongest
from interp_transfer.evaluation.kept import Kept
from interp_transfer.evaluation.sae_quality import fit_of
from interp_transfer.evaluation.task import Task
from interp_transfer.features.contrast import FeatureContrast, feature_contrast, feature_intervention
from interp_transfer.features.sae import Sae, load_sae
from interp_transfer.features.train import SMALL_MODEL, train_sae
from interp_transfer.features.use import reconstructed
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.io import atomic_folder, write_json
from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.fit import check_kind, fit
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.plugins import known_model
from interp_transfer.search.feature_ranking import causal_rank, rank_features
from interp_transfer.search.strengths import Steer, judge_random, judge_searched
from interp_transfer.stats import rate
from interp_transfer.studies.features_page import write_features_page
from interp_transfer.studies.features_result import Direction, Flips, MovedFeatures
from interp_transfer.studies.folders import fresh_folder, kept_beside
from interp_transfer.studies.inputs import check_before_loading, choose_sites, find_task, open_model
from interp_transfer.studies.options import DEFAULTS, TaskOptions
from interp_transfer.studies.plan import announce, plan_features
from interp_transfer.transfer.saes import match_features, move_sae
from interp_transfer.vectors.extract import extract

if TYPE_CHECKING:
    import pandas as pd

N, N_VALIDATION = 200, 50
"""Numbers of test and of validation prompts."""
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0)
"""Scales of the paper's protocol, at which a feature is set in a reconstruction."""
CANDIDATES = 20
SHUFFLED_SEEDS = 3
"""Number of SAEs that are moved by mappers fitted on shuffled pairs; matches are of the first."""
LISTED = 500
"""Largest number of features on the page."""
ROWS = 2048
"""Number of rows at which a map that is not affine is approximated by its derivative."""
TEXTS = 300
"""Number of the target's validation texts on which SAEs are compared."""


def features_study(
    task: str | Task | Mapping[str, Any],
    source: Any,
    target: Any,
    *,
    how: TaskOptions = DEFAULTS,
    source_sae: str | None = None,
    target_sae: str | None = None,
    source_site: str | None = None,
    target_site: str | None = None,
    listed: int = LISTED,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> MovedFeatures:
    """Features of a source model's SAE, their meaning and effect, and those of the same features moved to a target.

    Args:
        task: a task, in the forms that `run` takes; both directions of a task that has an opposite are tried.
        source: the model whose features are moved, or its name, as in `run`.
        target: the model that they are moved to, or its name.
        how: how the task is taken and models are loaded.
        source_sae: folder of the source's SAE; default: the one that ships with a known model, or else one that is trained here
            and stored in ``out``.
        target_sae: folder of the target's SAE, with the same default.
        source_site: site at which an SAE is trained, if one is; default: the one on the model's card, or else a search.
        target_site: the same for the target.
        listed: number of features on the page; those that differ most between the two sides of the contrast come first.
        seed: seed of everything that is drawn.
        out: folder for ``features.json``, ``features.html`` and the moved SAE; missing or empty. A study that was stopped
            resumes with the same call, as `run` does.
        progress: show bars for what takes longer than two seconds.
        options: of `move_features`.

    Raises:
        ValueError: for anything unknown, before any work.
    """
    task = find_task(task, how, models=(source, target))
    if listed < 1:
        raise ValueError(f"listed={listed}: give at least one feature for the page")
    folder = fresh_folder(out)
    for model, site in ((source, source_site), (target, target_site)):
        check_before_loading(model, task, site)
    a, b = (open_model(model, task, how) for model in (source, target))
    models = {"source": a, "target": b}
    chosen = {"source": (source_sae, source_site), "target": (target_sae, target_site)}
    stored = {side: _stored_sae(models[side], *chosen[side]) for side in models}
    untrained = {side: model for side, model in models.items() if stored[side] is None}
    if progress:
        sizes = {"candidates": CANDIDATES, "n": N, "n_validation": N_VALIDATION}
        sizes |= {name: options[name] for name in sizes if name in options}
        planned = partial(plan_features, list(_directions(task).values()), (a, b), list(untrained.values()), **sizes, seed=seed)
        announce(planned, a, b)
    sites = choose_sites(untrained, task, {"source": source_site, "target": target_site}, seed=seed, progress=progress)
    with kept_beside(folder, progress) as kept:
        trained = {side: _train(models[side], task, site.name, seed, kept.folder, progress) for side, site in sites.items()}
        sae, own = (stored[side] or trained[side] for side in models)
        result = move_features(a, b, _directions(task), sae, own, seed=seed, kept=kept, progress=progress, **options)
        if folder is not None:
            with atomic_folder(folder) as half:
                result.moved.save(half / "moved_sae")
                for side, new in trained.items():
                    new.save(half / f"{side}_sae")
                write_features_page(result, a, b, task, listed, half, progress)
                write_json(half / "features.json", result.to_dict())
    return result


def _directions(task: Task) -> dict[str, Task]:
    """The task, and its opposite if it has one, by name of the direction."""
    both = [task, task.opposite()] if task.opposite is not None else [task]
    return {one.options.get("direction", one.name): one for one in both}


def _stored_sae(model: HookedModel, folder: str | None, site: str | None) -> Sae | None:
    """The SAE of a folder, or the one that ships with the model; None if one has to be trained."""
    name = identity(model).name
    known = known_model(name)
    if folder is None and (site is not None or known is None or known.sae is None):
        return None
    return load_sae(name if folder is None else folder, model=model, site=site)


def _train(model: HookedModel, task: Task, site: str, seed: int, folder: Path | None, progress: bool) -> Sae:
    """An SAE by the recipe for small models, on the task's training texts."""
    acts = capture(model, task.texts("train"), site, progress=progress)
    state = None if folder is None else folder / f"sae-{identity(model).fingerprint}-{site}"
    return train_sae(acts, site, SMALL_MODEL, checkpoint=state, seed=seed, progress=progress)


def move_features(
    source: HookedModel,
    target: HookedModel,
    tasks: Mapping[str, Task],
    sae: Sae,
    own: Sae,
    *,
    mapper: str = "affine",
    candidates: int = CANDIDATES,
    scales: Sequence[float] = SCALES,
    budget: float | None = None,
    texts: Sequence[str] | None = None,
    n: int = N,
    n_validation: int = N_VALIDATION,
    seed: int = 0,
    kept: Kept | None = None,
    progress: bool = True,
) -> MovedFeatures:
    """Move a source SAE to a target, and measure the effect of its features in both.

    Args:
        source: the model of the SAE.
        target: the model that features are moved to.
        tasks: directions of one task by name, such as removing a behaviour and inducing it.
        sae: the source's SAE.
        own: the target's own SAE, for comparison; features are moved to its site.
        mapper: kind of the maps there and back.
        candidates: number of features that are tried, those of the largest difference.
        scales: multiples of the contrast's difference in a feature, at which it is set in a reconstruction as in the paper.
            Whatever steers has its scale from the search of `search.strengths`.
        budget: clean KL that a scale may cost, in nats per token; the task's unless given.
        texts: texts that the maps are fitted on; default: the first task's training texts.
        n: number of test prompts.
        n_validation: number of prompts on which a feature and its scale are chosen.
        seed: seed of everything that is drawn.
        kept: where completions and costs are kept; nowhere unless given.
        progress: show bars for what takes longer than two seconds.

    Raises:
        ValueError: before any long work, for SAEs of other models, an unknown mapper, or no tasks.
    """
    check_kind(mapper)
    sae.check_model(source)
    own.check_model(target)
    if not tasks or candidates < 1 or not scales:
        raise ValueError(f"{len(tasks)} tasks, candidates={candidates}, scales={list(scales)}: give at least one of each")
    first = next(iter(tasks.values()))
    for task in tasks.values():
        _check_prompts(task, n, n_validation)
    texts = first.texts("train") if texts is None else list(texts)
    pairs = collect(source, target, texts, sae.site, own.site, progress=progress)
    back = _reversed(pairs, source, target, texts, progress)
    moved = _move(sae, pairs, back, mapper, seed, progress)
    controls = [
        _move(sae, pairs.shuffled(k), back.shuffled(k), mapper, k, progress) for k in range(seed, seed + SHUFFLED_SEEDS)
    ]
    control = controls[0]
    rows = capture(target, first.texts("validation")[:TEXTS], own.site, progress=progress)[own.site].float()
    fits = {"own": fit_of(own, rows), "moved": fit_of(moved, rows), "moved by shuffled pairs": fit_of(control, rows)}
    matches, shuffled_matches = match_features(moved, own, rows), match_features(control, own, rows)
    directions = {}
    for name, task in tasks.items():
        trials = []
        for model in (source, target):
            validation = evaluator(model, task, "validation", n=n_validation, seed=seed, clean_prompts=n_validation, kept=kept)
            test = evaluator(model, task, "test", n=n, seed=seed, kept=kept)
            trials.append(_Trial(validation, test, tuple(scales), budget, seed, progress))
        home, there = trials
        directions[name] = _direction(name, home, there, (sae, moved, own), controls, candidates, matches)
    details = {"n": n, "n_validation": n_validation, "seed": seed, "mapper": mapper, "scales": list(scales)}
    results = (fits, matches, shuffled_matches, directions, details)
    return MovedFeatures(first.name, sae.model, own.model, sae, moved, own, *results)


def _direction(
    name: str,
    home: "_Trial",
    there: "_Trial",
    saes: tuple[Sae, Sae, Sae],
    shuffled: Sequence[Sae],
    candidates: int,
    matches: "pd.DataFrame",
) -> Direction:
    """Choose the best feature in the source, and judge it in both models with all controls.

    ``saes`` are the source's, the moved one and the target's own; ``shuffled`` were moved by mappers of shuffled pairs.
    """
    sae, moved, own = saes
    seen = feature_contrast(sae, home.test.model, home.test.task.contrast("train"))
    ranking = rank_features(sae, home.test.model, home.test.task, seen=seen)
    features = ranking["feature"].head(candidates).tolist()
    in_source, in_target = home.rank(sae, seen, features), there.rank(moved, seen, features)
    feature = int(in_source["feature"][0])
    scale = float(in_source["scale"][0])
    source = home.with_baselines("feature", sae, feature, seen, scale)
    source |= home.set_conditions(sae, feature, seen, scale)
    source["native vector"] = home.native_vector(sae.site)
    moved_scale = float(in_target[in_target["feature"] == feature]["scale"].iloc[0])
    target = there.with_baselines("moved feature", moved, feature, seen, moved_scale)
    target["moved feature, shuffled pairs"] = there.strongest([(control, feature, seen) for control in shuffled])
    own_seen, match = feature_contrast(own, there.test.model, there.test.task.contrast("train")), int(matches["match"][feature])
    if float(own_seen.difference[match]) != 0:
        target["own match"] = there.strongest([(own, match, own_seen)])
    target["native vector"] = there.native_vector(own.site)
    flips = {
        describe(where): {x: home.flips(sae, feature, seen, x, where) for x in home.scales}
        for where in dict.fromkeys((home.test.task.positions, "last"))
    }
    return Direction(name, ranking, in_source, in_target, feature, features.index(feature) + 1, source, target, flips)


@dataclass(frozen=True)
class _Trial:
    """Judges features of SAEs in one model, in one direction of a task."""

    validation: Evaluator
    test: Evaluator
    scales: tuple[float, ...]
    budget: float | None
    seed: int
    progress: bool

    def rank(self, sae: Sae, seen: FeatureContrast, features: Sequence[int]) -> "pd.DataFrame":
        """The effect of features up to the clean-KL budget on validation prompts, the best first."""
        return causal_rank(
            self.validation, sae, seen, features, budget=self.budget, positions=self.test.task.positions, progress=self.progress
        )

    def push(self, sae: Sae, feature: int, seen: FeatureContrast, scale: float) -> Intervention:
        return feature_intervention(sae, feature, seen, scale, positions=self.test.task.positions)

    def judge(self, intervention: Intervention, scale: float) -> Condition:
        return self.test.judge((intervention,), scale, progress=self.progress)

    def with_baselines(self, name: str, sae: Sae, feature: int, seen: FeatureContrast, scale: float) -> dict[str, Condition]:
        """The unsteered model, a feature, random directions at the same cost, and mean ablation."""
        pushed, like = self.push(sae, feature, seen, scale), sae.feature(feature, size=float(seen.difference[feature]))
        options: dict[str, Any] = {"seed": self.seed, "budget": self.budget, "progress": self.progress}
        return {
            "unsteered": self.test.unsteered(self.progress),
            name: self.judge(pushed, scale),
            "random direction": judge_random(self.validation, self.test, like, **options),
            "mean ablated": self.test.mean_ablated(pushed, self.progress),
        }

    def strongest(self, features: Sequence[tuple[Sae, int, FeatureContrast]]) -> Condition:
        """The strongest of some features, each at the scale of the same search."""
        steers: dict[str, Steer] = {str(k): lambda scale, one=one: (self.push(*one, scale),) for k, one in enumerate(features)}
        judged = judge_searched(self.validation, self.test, steers, budget=self.budget, progress=self.progress)
        return strongest(list(judged.values()), f"the strongest of {len(judged)}")

    def set_conditions(self, sae: Sae, feature: int, seen: FeatureContrast, scale: float) -> dict[str, Condition]:
        """The feature set instead of added, with and without what the SAE misses; and the reconstruction alone."""
        options: dict[str, Any] = {"way": "set", "positions": self.test.task.positions}
        kept, dropped = (feature_intervention(sae, feature, seen, scale, keep_error=k, **options) for k in (True, False))
        return {
            "feature set": self.judge(kept, scale),
            "feature set, error dropped": self.judge(dropped, scale),
            "reconstruction alone": self.judge(reconstructed(sae, self.test.task.positions), 0.0),
        }

    def flips(self, sae: Sae, feature: int, seen: FeatureContrast, scale: float, where: Positions) -> Flips:
        """How often setting the feature causes the behaviour where the reconstruction alone does not."""
        put = feature_intervention(sae, feature, seen, scale, "set", where, keep_error=False)
        completions = self.test.completions([(reconstructed(sae, where),), (put,)], progress=False)
        alone, both = ([v.success for v in self.test.task.judge(self.test.prompts, texts)] for texts in completions)
        rest = [b for a, b in zip(alone, both, strict=True) if not a]
        return Flips(rate(alone), rate(both), rate(rest) if rest else None)

    def native_vector(self, site: str) -> Condition:
        """A difference-in-means vector at the strength of the same search."""
        vector = extract(self.test.model, self.test.task.contrast("train"), site, self.test.task.read, seed=self.seed)
        options: dict[str, Any] = {"budget": self.budget, "progress": self.progress}
        return judge_searched(self.validation, self.test, {"native": vector}, **options)["native"]


def _check_prompts(task: Task, n: int, n_validation: int) -> None:
    for split, wanted in (("test", n), ("validation", n_validation)):
        if not 0 < wanted <= len(task.prompts(split)):
            raise ValueError(f"{wanted} {split} prompts of {task.name}: choose from 1 to {len(task.prompts(split))}")


def _reversed(
    pairs: PairedActivations, source: HookedModel, target: HookedModel, texts: Sequence[str], progress: bool
) -> PairedActivations:
    """Pairs from the target to the source; collected again for different tokenizers."""
    if pairs.alignment.strategy == "same_tokens":
        return pairs.reversed()
    (there, here), *_ = pairs.site_pairs
    return collect(target, source, texts, here, there, progress=progress)


def _move(sae: Sae, pairs: PairedActivations, back: PairedActivations, kind: str, seed: int, progress: bool) -> Sae:
    there, home = (fit(p, kind, seed=seed, progress=progress) for p in (pairs, back))
    rows = [p.rows()[1][:ROWS].float() for p in (pairs, back)]
    return move_sae(sae, there, home, *rows)
