"""The result of a sweep, and the rules that recommend one of its settings.

Two rules pick a setting. The paper's takes the last strongly steerable layer before the drop (its section 3). The Pareto rule
also counts what is left of the model: among settings from which no other is better in both intact answers and clean KL, it
takes the cheapest that is nearly as good as the best.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from interp_transfer.escape import data_frame, html_table, visible
from interp_transfer.io import check_digest, checked, named_errors, parse_json, typed, with_digest, write_json
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.models.sites import layer_of
from interp_transfer.names import find
from interp_transfer.stats import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

T = TypeVar("T")

FORMAT = "interp_transfer.sweep/2"
FILE = "sweep.json"

NEARLY = 0.02
"""How far below the highest intact rate the Pareto rule may go for a cheaper setting."""

STRONG = 0.9
"""The paper's rule calls a site strongly steerable from this share of the best site's success."""

RULES = {
    "pareto": (
        "of the settings within the clean-KL budget from which no other is better in both intact answers and clean KL, the one "
        f"of least clean KL whose intact rate is at most {NEARLY} below the highest"
    ),
    "paper": (
        f"the last site, in order of depth, whose best success is at least {STRONG} of the best site's, at its most successful "
        "setting, the weakest of equals"
    ),
}


@dataclass(frozen=True)
class SweepPoint:
    """A setting and its outcome.

    Attributes:
        site: hook-point name.
        positions: the rule of positions, as text.
        strength: of the vector.
        norm: norm of the added vector, in units of the activation.
        success: share of prompts on which the intervention had its effect.
        intact: share of prompts on which it had its effect and the answer is valid.
        clean_kl: nats per token; None if the setting was stopped early, before this was measured.
        complete: whether all prompts were judged. The shares of other settings are over fewer prompts.
    """

    site: str
    positions: str
    strength: float
    norm: float
    success: Estimate
    intact: Estimate
    clean_kl: float | None
    complete: bool = True

    def __str__(self) -> str:
        cost = "" if self.clean_kl is None else f", clean KL {self.clean_kl:.4f}"
        where = f"{self.site}, positions {self.positions}, strength {self.strength:g}"
        return f"{where}: intact {self.intact:.2f}, success {self.success:.2f}{cost}"


@dataclass(frozen=True, repr=False)
class Sweep:
    """The outcome of every setting of a sweep.

    Attributes:
        task: name of the task.
        model: the model that was steered.
        points: the settings with their outcomes, by site, positions and strength.
        budget: clean KL that a recommended setting may cost, in nats per token.
        details: n, split, seed and the other arguments of the sweep.
    """

    task: str
    model: ModelIdentity
    points: tuple[SweepPoint, ...]
    budget: float
    details: Mapping[str, Any]

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each setting."""
        return _frame(self.points)

    def front(self) -> list[SweepPoint]:
        """Return the settings from which no other is better in both intact answers and clean KL, the cheapest first."""
        return _front(self.points)

    def recommended(self, rule: str = "pareto") -> SweepPoint | None:
        """Return the setting that a rule of ``RULES`` picks; None if no setting has any success within the budget.

        Raises:
            ValueError: for an unknown rule, or the paper's when settings were stopped early.
        """
        find(rule, RULES, "rule")
        if rule == "paper" and not all(t.complete for t in self.points):
            raise ValueError("the paper's rule looks at all settings, and some were stopped early: sweep with early=False")
        return self._gentlest() if rule == "pareto" else self._last_strong()

    def recommendation(self, rule: str = "pareto") -> str:
        """Return the recommended setting as a sentence."""
        chosen = self.recommended(rule)
        if chosen is None:
            within = f" within {self.budget:g} nats per token" if rule == "pareto" else ""
            costly = [t.clean_kl for t in self.points if t.success.value > 0 and t.clean_kl is not None]
            more = f"; the cheapest that has costs {min(costly):.3g}: raise the budget, or" if costly and within else ":"
            return f"None of {len(self.points)} settings has any success on {self.task}{within}{more} try others."
        cost = "" if chosen.clean_kl is None else f", at {chosen.clean_kl:.4f} nats per token on clean prompts"
        return (
            f"Add the vector at {chosen.site}, positions {chosen.positions}, strength {chosen.strength:g}: "
            f"success {chosen.success:.2f}, intact {chosen.intact:.2f}{cost}."
        )

    def best_at_sites(self, budget: float = math.inf) -> dict[str, SweepPoint]:
        """Return for each site the setting with most intact answers; then most success, then the smaller strength.

        Complete settings come first, and among them those within the budget; if none is within it, the cheapest.
        """
        return {site: _best(group, budget) for site, group in grouped(self.points, lambda t: t.site).items()}

    def plot(self) -> "Figure":
        """Draw sites by positions, each cell at its best strength, with buttons for success and clean KL."""
        from interp_transfer.plots.sweep import sweep_map

        cells = [_best(group, self.budget) for group in grouped(self.points, lambda t: (t.site, t.positions)).values()]
        return sweep_map(_frame(cells), self.budget, title=f"{self.task} on {self.model.name}")

    def plot_cost(self) -> "Figure":
        """Draw intact answers over clean KL, with the Pareto front."""
        from interp_transfer.plots.sweep import cost_curve

        front = [(t.clean_kl, t.intact.value) for t in self.front() if t.clean_kl is not None]
        return cost_curve(self.to_frame(), front, self.budget, title=f"{self.task} on {self.model.name}")

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON stores it."""
        return {
            "format": FORMAT,
            "task": self.task,
            "model": asdict(self.model),
            "budget": self.budget,
            "details": dict(self.details),
            "points": [asdict(t) for t in self.points],
        }

    def save(self, folder: str | Path) -> Path:
        """Write ``sweep.json`` into a folder, which is created if it is missing."""
        where = Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        write_json(where / FILE, with_digest(self.to_dict()))
        return where / FILE

    @classmethod
    def load(cls, folder: str | Path) -> "Sweep":
        """Read a sweep that ``save`` wrote.

        Raises:
            ValueError: for a missing, damaged or foreign file, named.
        """
        path = Path(folder) / FILE
        if not path.exists():
            raise ValueError(f"there is no sweep in {str(folder)!r}")
        with named_errors(f"{str(path)!r} is damaged or no sweep of this package"):
            data = check_digest(typed(parse_json(path.read_text(encoding="utf-8")), dict[str, Any]))
            if data.pop("format", None) != FORMAT:
                raise ValueError("its format is another")
            points = [
                checked(SweepPoint, {**point, **{name: checked(Estimate, point[name]) for name in ("success", "intact")}})
                for point in typed(data["points"], list[dict[str, Any]])
            ]
            return checked(cls, {**data, "model": checked(ModelIdentity, data["model"]), "points": tuple(points)})

    def __repr__(self) -> str:
        incomplete = sum(not t.complete for t in self.points)
        stopped = f", {incomplete} stopped early" if incomplete else ""
        title = f"{self.task} on {self.model.name}, {len(self.points)} settings{stopped}"
        return visible(f"Sweep({title})\n  {self.recommendation()}")

    def _repr_html_(self) -> str:
        return html_table(self.recommendation(), self.to_frame(), max_rows=40)

    def _gentlest(self) -> SweepPoint | None:
        within = [t for t in self.points if t.clean_kl is not None and t.clean_kl <= self.budget and t.success.value > 0]
        front = _front(within)
        if not front:
            return None
        enough = front[-1].intact.value - NEARLY - 1e-9
        return next(t for t in front if t.intact.value >= enough)

    def _last_strong(self) -> SweepPoint | None:
        best: dict[str, SweepPoint] = {}
        for t in sorted(self.points, key=lambda t: (t.success.value, -abs(t.strength))):
            if t.complete:
                best[t.site] = t
        highest = max((t.success.value for t in best.values()), default=0.0)
        strong = [t for t in best.values() if highest and t.success.value >= STRONG * highest]
        return max(strong, key=lambda t: -1 if (layer := layer_of(t.site)) is None else layer, default=None)


def grouped(items: Sequence[T], key: Callable[[T], Hashable]) -> dict[Any, list[T]]:
    """Return the items in lists by their key, in order of first occurrence."""
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _front(points: Sequence[SweepPoint]) -> list[SweepPoint]:
    """The Pareto front: sorted by cost, every point with more intact answers than all cheaper ones."""
    known = [(t.clean_kl, -t.intact.value, k) for k, t in enumerate(points) if t.complete and t.clean_kl is not None]
    best, front = -1.0, []
    for _, negative_intact, k in sorted(known):
        if -negative_intact > best:
            best = -negative_intact
            front.append(points[k])
    return front


def _best(points: Sequence[SweepPoint], budget: float) -> SweepPoint:
    """See ``Sweep.best_at_sites``."""

    def order(t: SweepPoint) -> tuple[bool, bool, float, float, float]:
        cost = 0.0 if t.clean_kl is None else t.clean_kl
        worth = (t.intact.value, t.success.value, -abs(t.strength)) if cost <= budget else (-cost, 0.0, 0.0)
        return t.complete, cost <= budget, *worth

    return max(points, key=order)


def _frame(points: Sequence[SweepPoint]) -> "pd.DataFrame":
    rows = []
    for t in points:
        row: dict[str, Any] = {name: getattr(t, name) for name in ("site", "positions", "strength", "norm")}
        row |= t.success.columns("success") | t.intact.columns("intact")
        row["clean_kl"] = math.nan if t.clean_kl is None else t.clean_kl
        rows.append({**row, "n": t.intact.n, "complete": t.complete})
    return data_frame(rows)
