"""Cheap guesses of which pair of layers a vector moves well between, and how good they are.

Which layer of the source to take a vector from, and which of the target to move it to, is found for sure by trying all pairs:
fit a map, move the vector, steer at every strength. That is what the paper calls its cost. Predictors look at each pair
without generating anything:

- ``depth``: how alike the relative depths of the two layers are (Bello et al. 2025 choose so). Free, a baseline.
- ``map``: variance that the closed-form map from the one to the other explains, 1 - FVU.
- ``cka``: linear CKA between the differences of the contrast at both layers (Gao 2026; raw activations say less).
- ``probe``: held-out AUROC of a probe at the source's layer times that at the target's.
- ``attribution``: the moved vector times the gradient of the right answer's first token against what the model says of itself:
  what steering with it would do, to first order (attribution patching, Nanda 2023).

``predict`` computes them beside the truth, and `Predictions.table` says how well each ranks what the full sweep found, what its
first choice loses, what is lost after its best few have been tried, and what it costs.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from interp_transfer.activations.capture import capture
from interp_transfer.evaluation.similarity import cka
from interp_transfer.evaluation.task import Task
from interp_transfer.features.probes import probe_sites
from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.fit import fit
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import expand_sites, layer_of
from interp_transfer.prompts.contrast import sides
from interp_transfer.search.first_order import first_order
from interp_transfer.search.sweep import sweep
from interp_transfer.vectors.extract import extract_each
from interp_transfer.vectors.vector import SteeringVector

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)
PREDICTORS = ("depth", "map", "cka", "probe", "attribution")
RESAMPLES = 1000
TENTH = 0.1
"""Of the sweep's cost: what predicting and confirming may cost together."""


@dataclass(frozen=True, repr=False)
class Predictions:
    """What was guessed of each pair of layers, and what the full sweep found.

    Attributes:
        task: its name.
        source: the model that vectors come from.
        target: the model that is steered.
        pairs: for each pair of sites, what was found and what each predictor says; larger is better.
        seconds: CPU time of each predictor and of the full sweep, "sweep".
        budget: clean KL that a setting may cost, nats per token.
        details: n, seed, strengths.
    """

    task: str
    source: ModelIdentity
    target: ModelIdentity
    pairs: tuple[Mapping[str, Any], ...]
    seconds: Mapping[str, float]
    budget: float
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_frame(self) -> "pd.DataFrame":
        """A row for each pair: sites, the best setting within the budget with its success, intact and clean KL, predictors."""
        import pandas as pd

        return pd.DataFrame(self.pairs)

    def table(self, measure: str = "success") -> "pd.DataFrame":
        """How well each predictor does.

        Args:
            measure: "success" or "intact".

        Returns:
            For each predictor: Spearman's correlation with what was found and its 95% interval (bootstrap over pairs of
            sites); ``regret``, the best of all pairs less that of the predictor's first choice (the mean over ties);
            ``regret_confirmed``, less the best of its first few after these have been tried, ``tried`` of them; ``cost``, its
            CPU time over the sweep's; and ``cost_confirmed``, with the trying.
        """
        import pandas as pd

        frame, rows = self.to_frame(), []
        truth, n = frame[measure].to_numpy(), len(frame)
        for name in self.predictors:
            guess = frame[name].to_numpy()
            low, high = _interval(guess, truth)
            own = self.seconds[name] / self.seconds["sweep"]
            tried = max(1, int((TENTH - own) * n))
            first = guess == guess.max()
            order = sorted(range(n), key=lambda k: (-guess[k], k))[:tried]
            rows.append(
                {
                    "predictor": name,
                    "spearman": _spearman(guess, truth),
                    "spearman_low": low,
                    "spearman_high": high,
                    "regret": float(truth.max() - truth[first].mean()),
                    "regret_confirmed": float(truth.max() - truth[order].max()),
                    "tried": tried,
                    "cost": own,
                    "cost_confirmed": own + tried / n,
                    "pairs": n,
                }
            )
        return pd.DataFrame(rows).set_index("predictor")

    @property
    def predictors(self) -> list[str]:
        """Names of the predictors that were computed."""
        return [name for name in PREDICTORS if name in self.pairs[0]]

    def plot(self, what: str = "success") -> "Figure":
        """A heat map over the layers of both models: of "success", "intact" or a predictor (0 its least, 1 its most)."""
        from interp_transfer.plots.heatmap import layer_heatmap

        rows, columns = (list(dict.fromkeys(pair[side] for pair in self.pairs)) for side in ("source_site", "target_site"))
        found = {(pair["source_site"], pair["target_site"]): float(pair[what]) for pair in self.pairs}
        low, high = min(found.values()), max(found.values())
        if what in PREDICTORS and high > low:
            found = {pair: (value - low) / (high - low) for pair, value in found.items()}
        title = f"{self.task}, {self.source.name} to {self.target.name}: {what}"
        values = [[found[row, column] for column in columns] for row in rows]
        names = {"row_names": [_block(s) for s in rows], "column_names": [_block(s) for s in columns]}
        return layer_heatmap(values, self.source.name, self.target.name, title, what, **names)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "task": self.task,
            "source": vars(self.source),
            "target": vars(self.target),
            "budget": self.budget,
            **self.details,
            "seconds": dict(self.seconds),
            "pairs": [dict(pair) for pair in self.pairs],
        }

    def __repr__(self) -> str:
        lines = [
            f"  {name:12s} Spearman {row['spearman']:.2f}, first choice loses {row['regret']:.2f}, cost {row['cost']:.3f}"
            for name, row in self.table().to_dict("index").items()
        ]
        best = max(self.pairs, key=lambda pair: (pair["success"], pair["intact"]))
        where = f"best success {best['success']:.2f} from {best['source_site']} to {best['target_site']}"
        return f"Predictions({self.task}, {self.source.name} -> {self.target.name}, {len(self.pairs)} pairs, {where})\n" + (
            "\n".join(lines)
        )


def predict(
    source: HookedModel,
    target: HookedModel,
    task: Task,
    *,
    source_sites: str | Sequence[str] | None = None,
    target_sites: str | Sequence[str] | None = None,
    kind: str = "affine",
    strengths: Sequence[float] = STRENGTHS,
    n: int = 60,
    seed: int = 0,
    budget: float | None = None,
    progress: bool = True,
) -> Predictions:
    """Every predictor and the full sweep, for every pair of layers.

    Args:
        source: the model that vectors come from.
        target: the model that is steered.
        task: contrast, texts, prompts and judge; it must be one that a vector is added for.
        source_sites: block inputs unless given, the first block's left out.
        target_sites: likewise.
        kind: of mapper between each pair.
        strengths: that the sweep tries.
        n: validation prompts.
        seed: of everything that is drawn.
        budget: clean KL that a setting may cost; the task's own, or else 0.01.
        progress: show bars.

    Raises:
        ValueError: for unknown sites, fewer than two pairs, and what ``collect`` and ``sweep`` refuse.
    """
    names = [
        expand_sites(m, "blocks.*.hook_resid_pre")[1:] if given is None else expand_sites(m, given)
        for m, given in ((source, source_sites), (target, target_sites))
    ]
    both = [(s, t) for s in names[0] for t in names[1]]
    if len(both) < 2:
        raise ValueError(f"{len(both)} pair of sites leaves nothing to choose from: give more sites")
    allowed = float(task.budget if budget is None else budget)
    clock = _Clock()
    vectors = extract_each(source, task.contrast("train"), names[0], seed=seed)
    pairs = collect(source, target, task.texts("train"), *map(list, zip(*both, strict=True)), progress=progress)
    clock.lap()
    mappers = {pair: fit(pairs, kind, sites=pair, seed=seed, progress=False) for pair in both}
    moved = {pair: mapper.transfer(vectors[pair[0]]) for pair, mapper in mappers.items()}
    found: dict[str, dict[tuple[str, str], float]] = {"map": {pair: 1 - m.card.fvu for pair, m in mappers.items()}}
    del pairs
    seconds = {"depth": 0.0, "map": clock.lap()}
    found["depth"] = {(s, t): -abs(_depth(source, s) - _depth(target, t)) for s, t in both}
    found["cka"] = _alike(source, target, task, both)
    seconds["cka"] = clock.lap()
    found["probe"] = _told_apart(source, target, task, names)
    seconds["probe"] = clock.lap()
    found["attribution"] = _attributed(target, task, moved, n, seed)
    seconds["attribution"] = clock.lap() + seconds["map"]  # it looks at moved vectors
    options: dict[str, Any] = {"positions": [task.positions], "strengths": strengths, "n": n, "seed": seed, "budget": allowed}
    best: dict[tuple[str, str], Any] = {}
    for s in tqdm(names[0], desc="source sites", disable=not progress, leave=False):
        swept = sweep(target, task, vectors={t: moved[s, t] for t in names[1]}, progress=False, **options)
        best |= {(s, t): tried for t, tried in swept.best_at_sites(allowed).items()}
    seconds["sweep"] = clock.lap() + seconds["map"]
    rows = [_row(pair, best[pair], allowed) | {name: found[name][pair] for name in PREDICTORS} for pair in both]
    details = {"kind": kind, "n": n, "seed": seed, "strengths": list(strengths), "split": "validation"}
    return Predictions(task.name, identity(source), identity(target), tuple(rows), seconds, allowed, details)


class _Clock:
    """CPU time between laps, in seconds."""

    def __init__(self) -> None:
        self._last = time.process_time()

    def lap(self) -> float:
        """Since the last lap."""
        before, self._last = self._last, time.process_time()
        return self._last - before


def _row(pair: tuple[str, str], tried: Any, budget: float) -> dict[str, Any]:
    """What the sweep found; a pair whose every setting is beyond the budget has success 0."""
    within = tried.clean_kl is not None and tried.clean_kl <= budget
    figures = {what: getattr(tried, what).value if within else 0.0 for what in ("success", "intact")}
    return {"source_site": pair[0], "target_site": pair[1], "strength": tried.strength, **figures, "clean_kl": tried.clean_kl}


def _depth(model: HookedModel, site: str) -> float:
    layer = layer_of(site)
    return (0 if layer is None else layer) / int(model.cfg.n_layers)


def _alike(
    source: HookedModel, target: HookedModel, task: Task, both: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], float]:
    """CKA of the contrast's differences, pair of texts by pair of texts, at the last token."""
    plus, minus = sides(task.contrast("train"))
    rows: list[dict[str, Tensor]] = []
    for k, model in enumerate((source, target)):
        wanted = list(dict.fromkeys(pair[k] for pair in both))
        acts = [capture(model, texts, wanted, "last", progress=False) for texts in (plus, minus)]
        rows.append({site: acts[0][site].float() - acts[1][site].float() for site in wanted})
    return {(s, t): cka(rows[0][s], rows[1][t]) for s, t in both}


def _told_apart(
    source: HookedModel, target: HookedModel, task: Task, names: Sequence[Sequence[str]]
) -> dict[tuple[str, str], float]:
    """AUROC of probes on held-out texts, multiplied."""
    scores = []
    for model, sites in zip((source, target), names, strict=True):
        frame = probe_sites(model, task.contrast("train"), task.contrast("validation"), list(sites))
        scores.append(dict(zip(frame["site"], frame["auroc"], strict=True)))
    return {(s, t): float(scores[0][s] * scores[1][t]) for s in names[0] for t in names[1]}


def _attributed(
    target: HookedModel, task: Task, moved: Mapping[tuple[str, str], SteeringVector], n: int, seed: int
) -> dict[tuple[str, str], float]:
    """Each vector times the gradient in what is added at its site, summed over the task's positions, mean over prompts."""
    slopes = first_order(target, task, list(dict.fromkeys(t for _, t in moved)), n, seed)
    return {pair: float(vector.direction.float() @ slopes[pair[1]]) for pair, vector in moved.items()}


def _spearman(guess: Any, truth: Any) -> float:
    from scipy.stats import spearmanr

    if len(set(guess)) < 2 or len(set(truth)) < 2:
        return math.nan
    found: Any = spearmanr(guess, truth)
    return float(found.statistic)


def _interval(guess: Any, truth: Any, seed: int = 0) -> tuple[float, float]:
    """95% interval of Spearman's correlation: percentiles over resampled pairs."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(guess), (RESAMPLES, len(guess)), generator=generator).numpy()
    values = torch.tensor([value for rows in drawn if not math.isnan(value := _spearman(guess[rows], truth[rows]))])
    if not len(values):
        return math.nan, math.nan
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975])).tolist()
    return low, high


def _block(site: str) -> str:
    layer = layer_of(site)
    return site if layer is None else str(layer)
