"""The result of moving SAE features: what each feature does in the source, and moved to the target."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from interp_transfer.evaluation.evaluator import Condition
from interp_transfer.features.sae import Sae
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.reporting.formats import with_interval
from interp_transfer.stats import Estimate, share_to_dict

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Flips:
    """How often setting a feature causes the wanted behaviour, where rows are replaced by their reconstruction.

    Attributes:
        reconstruction: share of prompts with the wanted behaviour under reconstruction alone.
        feature: share with the feature set as well.
        corrected: share with the feature set, among prompts on which the reconstruction alone does not cause it (the paper's
            corrected figure); None if there are no such prompts.
    """

    reconstruction: Estimate
    feature: Estimate
    corrected: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {name: None if share is None else share_to_dict(share) for name, share in vars(self).items()}


@dataclass(frozen=True, repr=False)
class Direction:
    """Features for one direction of a task, such as removing a backdoor.

    Attributes:
        name: "remove", "induce", ...; the task's name for one without directions.
        ranking: features that differ, the largest difference first, with their means on both sides; the first are candidates.
        home: effect of each candidate in the source, at each scale (``features.rank.causal_rank``), on validation prompts.
        there: effect of each moved candidate in the target.
        feature: the best candidate in the source.
        rank: its place in the ranking, from 1.
        source: conditions on test prompts in the source, by name.
        target: conditions on test prompts in the target, by name.
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
        flips = {where: {f"{x:g}": f.to_dict() for x, f in by_scale.items()} for where, by_scale in self.flips.items()}
        return {"name": self.name, "feature": self.feature, "rank": self.rank, **sides, "flips": flips, **tables}


@dataclass(frozen=True, repr=False)
class MovedFeatures:
    """Features of one model, moved to another.

    Attributes:
        task: its name.
        source: identity of the model whose features they are.
        target: identity of the model that they are moved to.
        sae: the source's SAE.
        moved: the same SAE in the target's space, feature by feature.
        own: the target's own SAE.
        fits: explained variance, mean number of active features and share of dead ones on the target's validation texts: of the
            target's own SAE, of the moved one, and of the one that was moved by mappers fitted on shuffled pairs.
        matches: most similar feature in the target's own SAE, for each moved feature (``transfer.saes.match_features``).
        shuffled_matches: the same for the shuffled control.
        directions: directions of the task, by name.
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
        for name, direction in self.directions.items():
            for conditions, model in ((direction.source, self.source), (direction.target, self.target)):
                for what, c in conditions.items():
                    shares = c.success.columns("success") | c.intact.columns("intact")
                    row = {"direction": name, "model": model.name, "condition": what, "scale": c.strength}
                    rows.append({**row, **shares, "clean_kl": c.clean_kl, "n": c.success.n})
        return pd.DataFrame(rows)

    def sentences(self) -> list[str]:
        """The best feature of each direction, and the fits, in words."""
        sentences = []
        for name, best in self.directions.items():
            home, there = best.source["feature"], best.target["moved feature"]
            sentences.append(
                f"{name}: feature {best.feature}, number {best.rank} of the candidates by difference, succeeds on "
                f"{_share(home)}; moved to the target, on {_share(there)}"
            )
        fits = [f"{explained + 0.0:.3f} {name}" for name, (explained, _, _) in self.fits.items()]
        return [*sentences, f"explained variance in the target: {'; '.join(fits)}".replace("-0.000", "0.000")]

    def to_dict(self) -> dict[str, Any]:
        """What ``features.json`` holds."""
        names = ("explained_variance", "l0", "dead")
        return {
            "format": "interp_transfer.features/1",
            "task": self.task,
            "source": {**vars(self.source), "site": self.sae.site, "sae": self.sae.details},
            "target": {**vars(self.target), "site": self.own.site, "sae": self.own.details},
            "moved": self.moved.details,
            "fits": {name: dict(zip(names, fit, strict=True)) for name, fit in self.fits.items()},
            "matches": _summary(self.matches),
            "shuffled_matches": _summary(self.shuffled_matches),
            "directions": {name: direction.to_dict() for name, direction in self.directions.items()},
            **self.details,
        }

    def __repr__(self) -> str:
        lines = "\n".join(f"  {sentence}" for sentence in self.sentences())
        return f"MovedFeatures({self.task}, {self.source.name} -> {self.target.name})\n{lines}"


def _share(judged: Condition) -> str:
    """Success with its interval and n, and the intact answers."""
    success, intact = (with_interval(share_to_dict(share)) for share in (judged.success, judged.intact))
    return f"{success} of {judged.success.n} prompts, {intact} of the answers intact"


def _summary(matches: "pd.DataFrame") -> dict[str, float]:
    """Medians over all features (0 for NaN), and the share whose match is mutual."""
    medians = {f"median {name}": float(matches[name].median()) for name in ("cosine", "correlation", "overlap")}
    return {name: 0.0 if x != x else x for name, x in medians.items()} | {"mutual": float(matches["mutual"].mean())}
