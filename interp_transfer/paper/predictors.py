"""How well the predictors of site pairs rank what a sweep over all pairs measures (``search.predictors``).

`compare_predictors` sweeps every pair and scores it by every predictor. `PredictorStudy.table` reports for each predictor the
rank correlation with the sweep, what its first choice loses, what is lost after its best few were tried, and its cost.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from interp_transfer.evaluation.task import Task
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import layer_of
from interp_transfer.search.predictors import PREDICTORS, predict
from interp_transfer.search.sweep import sweep
from interp_transfer.search.sweep_result import SweepPoint

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

RESAMPLES = 1000
TENTH = 0.1
"""Share of the sweep's cost that predicting and confirming may cost together."""


@dataclass(frozen=True, repr=False)
class PredictorStudy:
    """The scores of each pair of sites, and the outcome of the full sweep.

    Attributes:
        task: name of the task.
        source: the model that vectors come from.
        target: the model that is steered.
        pairs: for each pair of sites, the outcome of the sweep and the score of each predictor; larger is better.
        seconds: CPU time of each predictor and of the full sweep, "sweep".
    """

    task: str
    source: ModelIdentity
    target: ModelIdentity
    pairs: tuple[Mapping[str, Any], ...]
    seconds: Mapping[str, float]

    def table(self, measure: str = "success") -> "pd.DataFrame":
        """Return how well each predictor ranks the pairs.

        Args:
            measure: "success" or "intact".

        Returns:
            For each predictor: Spearman's correlation with the sweep and its 95% interval (bootstrap over pairs of sites);
            ``regret``, the best of all pairs minus that of the predictor's first choice (the mean over ties);
            ``regret_confirmed``, minus the best of its first ``tried`` choices; ``cost``, its CPU time over the sweep's; and
            ``cost_confirmed``, which includes trying these choices.
        """
        import pandas as pd

        frame, rows = pd.DataFrame(self.pairs), []
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
        """Draw a heat map over the layers of both models: of "success", "intact" or a predictor (scaled to 0 to 1)."""
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


def compare_predictors(
    source: HookedModel,
    target: HookedModel,
    task: Task,
    *,
    source_sites: str | Sequence[str] | None = None,
    target_sites: str | Sequence[str] | None = None,
    kind: str = "affine",
    n: int = 60,
    seed: int = 0,
    budget: float | None = None,
    progress: bool = True,
) -> PredictorStudy:
    """Score every pair of sites by every predictor, and sweep all pairs.

    Args:
        source: the model that vectors come from.
        target: the model that is steered.
        task: contrast, texts, prompts, answers and judge.
        source_sites: the inputs of all blocks but the first unless given.
        target_sites: the same for the target.
        kind: of the mapper between each pair.
        n: number of validation prompts.
        seed: of everything that is random.
        budget: clean KL that a setting may cost; the task's unless given.
        progress: show bars.

    Raises:
        ValueError: for what ``predict`` and ``sweep`` refuse.
    """
    allowed = float(task.budget if budget is None else budget)
    where: dict[str, Any] = {"source_sites": source_sites, "target_sites": target_sites}
    predictions = predict(source, target, task, kind=kind, n=n, seed=seed, progress=progress, **where)
    start = time.process_time()
    options: dict[str, Any] = {"positions": [task.positions], "n": n, "seed": seed, "budget": allowed}
    best: dict[tuple[str, str], SweepPoint] = {}
    by_source: dict[str, dict[str, Any]] = {}
    for (s, t), vector in predictions.vectors.items():
        by_source.setdefault(s, {})[t] = vector
    for s, vectors in tqdm(by_source.items(), desc="source sites", disable=not progress, leave=False):
        swept = sweep(target, task, vectors=vectors, progress=False, **options)
        best |= {(s, t): point for t, point in swept.best_at_sites(allowed).items()}
    seconds = {**predictions.seconds, "sweep": time.process_time() - start + predictions.seconds["map"]}
    rows = [_row(p, best[p], allowed) | {k: scores[p] for k, scores in predictions.scores.items()} for p in predictions.vectors]
    return PredictorStudy(task.name, identity(source), identity(target), tuple(rows), seconds)


def _row(pair: tuple[str, str], point: SweepPoint, budget: float) -> dict[str, Any]:
    """Return the outcome of the sweep; a pair whose every setting is beyond the budget has success 0."""
    within = point.clean_kl is not None and point.clean_kl <= budget
    shares = {name: getattr(point, name).value if within else 0.0 for name in ("success", "intact")}
    return {"source_site": pair[0], "target_site": pair[1], "strength": point.strength, **shares, "clean_kl": point.clean_kl}


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
