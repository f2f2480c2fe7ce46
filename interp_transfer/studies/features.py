"""Features of a source SAE moved to a target model: what each does there, beside what it does at home and beside controls.

The whole source SAE is moved (``mapping.moved_sae``), so that feature 12 of the moved SAE is feature 12 of the source.
Candidates are ranked by how much they differ between the two sides of the task's contrast; then each steers the source, and
the moved one the target, on validation prompts; the best is judged on test prompts, in both models, beside the unsteered model,
random directions of the same length, mean ablation, the same feature moved by a mapper that was fitted on shuffled pairs, the
target's own feature that it resembles most, and a native steering vector. As in the paper, the feature is also set in place of
steered with, with what the SAE misses left out, beside the reconstruction alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions, describe
from interp_transfer.evaluation.evaluator import Condition, Evaluator, evaluator
from interp_transfer.evaluation.sae_quality import fit_of
from interp_transfer.evaluation.task import Task
from interp_transfer.features.contrast import FeatureContrast, feature_contrast, feature_intervention
from interp_transfer.features.sae import Sae
from interp_transfer.features.use import reconstructed
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.fit import check_kind, fit
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.search.feature_ranking import causal_rank, rank_features
from interp_transfer.stats import Estimate, rate, share_to_dict
from interp_transfer.transfer.saes import match_features, move_sae
from interp_transfer.vectors.extract import extract
from interp_transfer.vectors.vector import SteeringVector

if TYPE_CHECKING:
    import pandas as pd

SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0)
CANDIDATES = 20
ROWS = 2048
"""At which a map that is not affine is taken by its derivative."""
TEXTS = 300
"""Of the target's validation texts, on which SAEs are fitted together."""


@dataclass(frozen=True)
class Flips:
    """How often setting a feature brings the wanted behaviour about, where rows are replaced by their reconstruction.

    Attributes:
        reconstruction: share of prompts with the wanted behaviour under reconstruction alone.
        feature: with the feature set as well.
        corrected: with the feature set, of those prompts on which the reconstruction alone does not bring it about (the paper's
            corrected figure); None if there are none.
    """

    reconstruction: Estimate
    feature: Estimate
    corrected: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {name: None if share is None else share_to_dict(share) for name, share in vars(self).items()}


@dataclass(frozen=True, repr=False)
class Direction:
    """What was found for one direction of a task, such as removing a backdoor.

    Attributes:
        name: "remove", "induce", ...; the task's name for one without directions.
        ranking: features that differ, the largest difference first, with their means on both sides; candidates are the first.
        home: what each candidate does in the source, at each scale (``search.feature_ranking.causal_rank``), on validation prompts.
        there: what each does in the target, moved.
        feature: the best in the source.
        rank: which place the best has among the candidates, from 1.
        source: conditions on test prompts of the source, by name.
        target: likewise of the target.
        flips: by rule of positions (the task's, and "last", the paper's) and scale, on the source's test prompts.
    """

    name: str
    ranking: "pd.DataFrame"
    home: "pd.DataFrame"
    there: "pd.DataFrame"
    feature: int
    rank: int
    source: Mapping[str, Condition]
    target: Mapping[str, Condition]
    flips: Mapping[str, Mapping[float, Flips]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        tables = {name: getattr(self, name).to_dict("records") for name in ("ranking", "home", "there")}
        sides = {side: {name: c.to_dict() for name, c in getattr(self, side).items()} for side in ("source", "target")}
        flips = {where: {f"{x:g}": f.to_dict() for x, f in found.items()} for where, found in self.flips.items()}
        return {"name": self.name, "feature": self.feature, "rank": self.rank, **sides, "flips": flips, **tables}


@dataclass(frozen=True, repr=False)
class MovedFeatures:
    """Features of one model, at home and moved to another.

    Attributes:
        task: its name.
        source: identity of the model whose features they are.
        target: identity of the model that they are moved to.
        sae: the source's.
        moved: the same in the target's space, feature by feature.
        own: the target's own.
        fits: explained variance, mean number of active features and share of dead ones on the target's validation texts: of the
            target's own SAE, of the moved one, and of the one that was moved by mappers fitted on shuffled pairs.
        matches: what each moved feature resembles in the target's own SAE (``mapping.moved_sae.match_features``).
        shuffled_matches: the same of the shuffled control.
        directions: by name.
        details: n, seed, mapper.
    """

    task: str
    source: ModelIdentity
    target: ModelIdentity
    sae: Sae
    moved: Sae
    own: Sae
    fits: Mapping[str, tuple[float, float, float]]
    matches: "pd.DataFrame"
    shuffled_matches: "pd.DataFrame"
    directions: Mapping[str, Direction]
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_frame(self) -> "pd.DataFrame":
        """A row for each direction, model and condition, on test prompts: scale, success, intact, clean KL, n."""
        import pandas as pd

        rows = []
        for name, found in self.directions.items():
            for side, model in (("source", self.source), ("target", self.target)):
                for what, c in getattr(found, side).items():
                    shares = {"success": c.success.value, "success_low": c.success.low, "success_high": c.success.high}
                    shares |= {"intact": c.intact.value, "intact_low": c.intact.low, "intact_high": c.intact.high}
                    row = {"direction": name, "model": model.name, "condition": what, "scale": c.strength}
                    rows.append({**row, **shares, "clean_kl": c.clean_kl, "n": c.success.n})
        return pd.DataFrame(rows)

    def sentences(self) -> list[str]:
        """What was found, in words."""
        said = []
        for name, found in self.directions.items():
            home, there = found.source["feature"], found.target["moved feature"]
            said.append(
                f"{name}: feature {found.feature}, number {found.rank} of the candidates by difference, succeeds on "
                f"{home.success:.2f} of the source's prompts (intact {home.intact:.2f}), moved on {there.success:.2f} of "
                f"the target's (intact {there.intact:.2f})"
            )
        fits = [f"{found[0] + 0.0:.3f} {name}" for name, found in self.fits.items()]
        return [*said, f"explained variance in the target: {'; '.join(fits)}".replace("-0.000", "0.000")]

    def to_dict(self) -> dict[str, Any]:
        """What ``features.json`` holds."""
        names = ("explained_variance", "l0", "dead")
        return {
            "format": "interp_transfer.features/1",
            "task": self.task,
            "source": {**vars(self.source), "site": self.sae.site, "sae": self.sae.details},
            "target": {**vars(self.target), "site": self.own.site, "sae": self.own.details},
            "moved": self.moved.details,
            "fits": {name: dict(zip(names, found, strict=True)) for name, found in self.fits.items()},
            "matches": _summary(self.matches),
            "shuffled_matches": _summary(self.shuffled_matches),
            "directions": {name: found.to_dict() for name, found in self.directions.items()},
            **self.details,
        }

    def __repr__(self) -> str:
        lines = "\n".join(f"  {sentence}" for sentence in self.sentences())
        return f"MovedFeatures({self.task}, {self.source.name} -> {self.target.name})\n{lines}"


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
    texts: Sequence[str] | None = None,
    n: int = 200,
    n_validation: int = 50,
    seed: int = 0,
    progress: bool = True,
) -> MovedFeatures:
    """Move a source SAE to a target, and see what its features do in both.

    Args:
        source: the model whose SAE it is.
        target: the model that features are moved to.
        tasks: by name of the direction: the same task, to remove a behaviour and to bring it about, say.
        sae: the source's.
        own: the target's, to compare with; its site is where features are moved to.
        mapper: kind of the maps there and back.
        candidates: features that are tried, those of the largest difference.
        scales: multiples of the contrast's difference in a feature.
        texts: that the maps are fitted on; the first task's training texts unless given.
        n: test prompts.
        n_validation: prompts on which a feature and its scale are chosen.
        seed: of everything that is drawn.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: before any long work, for SAEs of other models, an unknown mapper, or no tasks.
    """
    check_kind(mapper)
    sae.check_model(source)
    own.check_model(target)
    if not tasks or candidates < 1 or not scales:
        raise ValueError(f"{len(tasks)} tasks, candidates={candidates}, scales={list(scales)}: give at least one of each")
    first = next(iter(tasks.values()))
    for task in tasks.values():  # to fail before any work
        _check_prompts(task, n, n_validation)
    texts = first.texts("train") if texts is None else list(texts)
    pairs = collect(source, target, texts, sae.site, own.site, progress=progress)
    back = _back(pairs, source, target, texts, progress)
    moved = _moved(sae, pairs, back, mapper, seed, progress)
    control = _moved(sae, pairs.shuffled(seed), back.shuffled(seed), mapper, seed, progress)
    rows = capture(target, first.texts("validation")[:TEXTS], own.site, progress=progress)[own.site].float()
    fits = {"own": fit_of(own, rows), "moved": fit_of(moved, rows), "moved by shuffled pairs": fit_of(control, rows)}
    matches = match_features(moved, own, rows)
    directions = {}
    for name, task in tasks.items():
        trial = _Trial(source, target, task, sae, moved, control, own, (n, n_validation), tuple(scales), seed, progress)
        directions[name] = trial.run(name, candidates, matches)
    details = {"n": n, "n_validation": n_validation, "seed": seed, "mapper": mapper, "scales": list(scales)}
    found = (matches, match_features(control, own, rows), directions)
    return MovedFeatures(first.name, sae.model, own.model, sae, moved, own, fits, *found, details)


@dataclass(frozen=True)
class _Trial:
    """One direction of a task."""

    source: HookedModel
    target: HookedModel
    task: Task
    sae: Sae
    moved: Sae
    control: Sae
    own: Sae
    sizes: tuple[int, int]
    scales: tuple[float, ...]
    seed: int
    progress: bool

    def run(self, name: str, candidates: int, matches: "pd.DataFrame") -> Direction:
        seen = feature_contrast(self.sae, self.source, self.task.contrast("train"))
        ranking = rank_features(self.sae, self.source, self.task, found=seen)
        features = ranking["feature"].head(candidates).tolist()
        first = [self._exam(model, "validation", self.sizes[1]) for model in (self.source, self.target)]
        options: dict[str, Any] = {"scales": self.scales, "positions": self.task.positions, "progress": self.progress}
        home = causal_rank(first[0], self.sae, seen, features, **options)
        there = causal_rank(first[1], self.moved, seen, features, **options)
        feature = int(home["feature"][0])
        match = int(matches["match"][feature])
        at = float(home["scale"][0])
        last = [self._exam(model, "test", self.sizes[0]) for model in (self.source, self.target)]
        pushed = feature_intervention(self.sae, feature, seen, at, positions=self.task.positions)
        source = {"unsteered": last[0].unsteered(self.progress), "feature": self._judge(last[0], pushed, at)}
        source["random direction"] = last[0].random(pushed, self.seed, at, self.progress)
        source["mean ablated"] = last[0].mean_ablated(pushed, self.progress)
        source |= self._set(last[0], feature, seen, at)
        source["native vector"] = self._native(first[0], last[0], self.source, self.sae.site)
        target = {"unsteered": last[1].unsteered(self.progress)}
        of_moved = there[there["feature"] == feature]
        scale = float(of_moved["scale"].iloc[0])
        pushed = feature_intervention(self.moved, feature, seen, scale, positions=self.task.positions)
        target["moved feature"] = self._judge(last[1], pushed, scale)
        target["random direction"] = last[1].random(pushed, self.seed, scale, self.progress)
        target["mean ablated"] = last[1].mean_ablated(pushed, self.progress)
        for what, sae, index, means in (
            ("moved feature, shuffled pairs", self.control, feature, seen),
            ("own match", self.own, match, feature_contrast(self.own, self.target, self.task.contrast("train"))),
        ):
            if float(means.difference[index]) == 0:
                continue
            tried = causal_rank(first[1], sae, means, [index], **options)
            best = float(tried["scale"][0])
            pushed = feature_intervention(sae, index, means, best, positions=self.task.positions)
            target[what] = self._judge(last[1], pushed, best)
        target["native vector"] = self._native(first[1], last[1], self.target, self.own.site)
        flips = {
            describe(where): {x: self._flips(last[0], feature, seen, x, where) for x in self.scales}
            for where in dict.fromkeys((self.task.positions, "last"))
        }
        return Direction(name, ranking, home, there, feature, features.index(feature) + 1, source, target, flips)

    def _exam(self, model: HookedModel, split: str, n: int) -> Evaluator:
        return evaluator(model, self.task, split, n=n, seed=self.seed, clean_prompts=n)

    def _judge(self, test: Evaluator, given: Intervention, scale: float) -> Condition:
        return test.judge([(given,)], scale, progress=self.progress)

    def _set(self, test: Evaluator, feature: int, seen: FeatureContrast, scale: float) -> dict[str, Condition]:
        """The feature set in place of steered with, what the SAE misses kept or not; and the reconstruction alone."""
        options: dict[str, Any] = {"way": "set", "positions": self.task.positions}
        kept, dropped = (feature_intervention(self.sae, feature, seen, scale, keep_error=k, **options) for k in (True, False))
        return {
            "feature set": self._judge(test, kept, scale),
            "feature set, error dropped": self._judge(test, dropped, scale),
            "reconstruction alone": self._judge(test, reconstructed(self.sae, self.task.positions), 0.0),
        }

    def _flips(self, test: Evaluator, feature: int, seen: FeatureContrast, scale: float, where: Positions) -> Flips:
        put = feature_intervention(self.sae, feature, seen, scale, "set", where, keep_error=False)
        said = test.completions([(reconstructed(self.sae, where),), (put,)], progress=False)
        alone, both = ([v.success for v in self.task.judge(test.prompts, texts)] for texts in said)
        rest = [b for a, b in zip(alone, both, strict=True) if not a]
        return Flips(rate(alone), rate(both), rate(rest) if rest else None)

    def _native(self, first: Evaluator, last: Evaluator, model: HookedModel, site: str) -> Condition:
        """A difference-in-means vector, its strength chosen likewise."""
        vector: SteeringVector = extract(model, self.task.contrast("train"), site, seed=self.seed)
        draws = [[(add(vector, x, self.task.positions),)] for x in self.scales]
        judged = first.judge_each(draws, self.scales, progress=self.progress)
        best = max(judged, key=lambda c: (c.intact.value + c.success.value, -c.clean_kl)).strength
        return self._judge(last, add(vector, best, self.task.positions), best)


def _check_prompts(task: Task, n: int, n_validation: int) -> None:
    for split, asked in (("test", n), ("validation", n_validation)):
        if not 0 < asked <= len(task.prompts(split)):
            raise ValueError(f"{asked} {split} prompts of {task.name}: choose from 1 to {len(task.prompts(split))}")


def _back(
    pairs: PairedActivations, source: HookedModel, target: HookedModel, texts: Sequence[str], progress: bool
) -> PairedActivations:
    """Pairs from the target to the source; of different tokenizers they are collected anew."""
    if pairs.alignment.strategy == "same_tokens":
        return pairs.reversed()
    (there, here), *_ = pairs.site_pairs
    return collect(target, source, texts, here, there, progress=progress)


def _moved(sae: Sae, pairs: PairedActivations, back: PairedActivations, kind: str, seed: int, progress: bool) -> Sae:
    there, home = (fit(p, kind, seed=seed, progress=progress) for p in (pairs, back))
    rows = [p.rows()[1][:ROWS].float() for p in (pairs, back)]
    return move_sae(sae, there, home, *rows)


def _summary(matches: "pd.DataFrame") -> dict[str, float]:
    """Of all features: medians, and the share whose match is mutual."""
    found = {f"median {name}": float(matches[name].median()) for name in ("cosine", "correlation", "overlap")}
    return {name: 0.0 if value != value else value for name, value in found.items()} | {
        "mutual": float(matches["mutual"].mean())
    }
