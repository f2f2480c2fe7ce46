"""A sweep over sites, rules of positions and strengths on validation prompts.

Strengths are found for each site and rule by the search of `strengths`, so that all are compared up to the same cost, unless
strengths are given. Each setting gets three figures: success, intact, and the clean KL that it costs; `sweep_result` picks one.
All settings of a site share batches (``interventions.merging``), and the part of a prompt that the settings leave unchanged is
read once. With ``early=True`` a setting that is probably worse than another is not judged on all prompts.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interp_transfer.activations.positions import Positions, Substring, describe
from interp_transfer.evaluation.evaluator import Evaluator, evaluator
from interp_transfer.evaluation.kept import Kept
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.interventions.predictions import Unsteered
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.sites import expand_sites
from interp_transfer.progress import progress_bar
from interp_transfer.search.strengths import FRACTIONS, Steer, check_grid, largest_within
from interp_transfer.search.sweep_result import FILE, Sweep, SweepPoint, grouped
from interp_transfer.stats import rate
from interp_transfer.vectors.extract import extract_each
from interp_transfer.vectors.vector import SteeringVector

SITES = "blocks.*.hook_resid_pre"
POSITIONS: tuple[Positions, ...] = ("last", "generated", "response", "all")
FIRST = 0.25
"""Share of the prompts after which settings are stopped early."""
AT_ONCE = 8
"""Number of settings whose clean KL is measured together before settings are stopped early."""
LARGEST = "largest_strengths"
"""The field of details that holds the largest strength of each site and rule of positions."""

Key = tuple[str, str, float]
"""Site, positions as text, strength: identifies a setting."""


def sweep(
    model: HookedModel,
    task: Task,
    *,
    sites: str | Sequence[str] | None = None,
    positions: Sequence[Positions] | None = None,
    strengths: Sequence[float] | None = None,
    vectors: Mapping[str, SteeringVector] | None = None,
    n: int = 100,
    split: str = "validation",
    seed: int = 0,
    budget: float | None = None,
    early: bool = False,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Sweep:
    """Try every site, rule of positions and strength.

    Args:
        model: the model that is steered.
        task: contrast, prompts, clean prompts and judge.
        sites: hook-point names, ``*`` stands for every block; the inputs of all blocks unless given.
        positions: rules; the last token, generated tokens, both, and all, unless given.
        strengths: of the vector; 1.0 is the contrast's own difference. Unless given, `strengths.FRACTIONS` of the largest one
            within the budget, for each site and rule of positions.
        vectors: the vector of each site, such as moved vectors; extracted from the task's contrast unless given.
        n: number of prompts.
        split: of the task's prompts.
        seed: draws the prompts.
        budget: clean KL that the recommended setting may cost, in nats per token; the task's unless given.
        early: stop settings after a quarter of the prompts if they are beyond the budget, or probably worse than another: the
            upper end of their interval is below the lower end of the best one within the budget.
        folder: for the sweep, and until it has ended for completions and costs, from which an interrupted one resumes.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: before any long work, for unknown sites or positions, strengths that are no numbers, a vector of another
            model, fewer prompts than n, or a folder that holds another sweep.
    """
    names = _sites(model, sites, vectors)
    rules = POSITIONS if positions is None else positions
    words, numbers = check_grid(rules, FRACTIONS if strengths is None else strengths)
    allowed = float(task.budget if budget is None else budget)
    details: dict[str, Any] = {
        "split": split,
        "n": n,
        "seed": seed,
        "early": early,
        "grid": {"sites": names, "positions": words, "strengths": None if strengths is None else numbers},
    }
    details["vectors"] = "the task's contrast" if vectors is None else {name: _digest(vectors[name]) for name in names}
    if folder is not None and any(callable(rule) and not isinstance(rule, Substring) for rule in rules):
        raise ValueError("positions that are a function cannot be told from others in a folder: sweep them without folder=")
    swept = Sweep(task.name, identity(model), (), allowed, details)
    pairs = [(site, rule) for site in names for rule in rules]
    kept = Kept(None if folder is None else (Path(folder) / FILE).with_suffix(".resume"))
    with kept.alone():
        stored = None if folder is None else _stored(swept, Path(folder))
        if stored is not None and len(stored.points) == len(pairs) * len(numbers):
            return stored
        # Without a folder there is nothing to write between the settings of a site, and all of them share batches.
        test = evaluator(model, task, split, n=n, seed=seed, kept=None if folder is None else kept)
        added = extract_each(model, task.contrast("train"), names, task.read) if vectors is None else vectors
        trials = _Trials(replace(test, passes=Unsteered()), added, progress)
        largest = trials.largest(pairs, allowed) if strengths is None else []
        units = largest or [1.0] * len(pairs)
        settings = [_Setting(*pair, x * unit) for pair, unit in zip(pairs, units, strict=True) for x in numbers]
        points: dict[Key, SweepPoint] = {}
        with progress_bar("settings", progress, total=len(settings)) as bar:
            run = _early if early else _exhaustive
            for finished in run(trials, settings, allowed):
                points |= {(p.site, p.positions, p.strength): p for p in finished}
                bar.update(len(finished))
        swept = replace(swept, points=tuple(points[s.key] for s in settings), details={**details, LARGEST: largest})
        if folder is not None:
            swept.save(folder)
        return swept


@dataclass(frozen=True)
class _Setting:
    """A setting before its trial."""

    site: str
    positions: Positions
    strength: float

    @property
    def key(self) -> Key:
        return self.site, describe(self.positions), self.strength


@dataclass(frozen=True)
class _Trials:
    """Judges settings with the vectors of their sites."""

    evaluator: Evaluator
    vectors: Mapping[str, SteeringVector]
    progress: bool

    def largest(self, pairs: Sequence[tuple[str, Positions]], budget: float) -> list[float]:
        """Return the largest strength within the budget for each site and rule of positions."""
        steers = {str(k): self._steer_at(*pair) for k, pair in enumerate(pairs)}
        limits = largest_within(self.evaluator, steers, budget=budget, progress=self.progress)
        return [limit.strength for limit in limits.values()]

    def outcomes(self, settings: Sequence[_Setting], prompts: slice) -> list[list[tuple[bool, bool]]]:
        """Return (success, intact) of some of the prompts under each setting."""
        part = replace(self.evaluator, prompts=self.evaluator.prompts[prompts])
        completions = part.completions([(self._steer(s),) for s in settings], progress=False)
        return [[(v.success, v.intact) for v in part.task.judge(part.prompts, texts)] for texts in completions]

    def costs(self, settings: Sequence[_Setting]) -> list[float]:
        """Return the clean KL of each setting."""
        each = self.evaluator.costs([(self._steer(s),) for s in settings], self.progress)
        return [float(kl.mean()) for kl in each]

    def point(self, s: _Setting, outcomes: Sequence[tuple[bool, bool]], clean_kl: float | None) -> SweepPoint:
        """Return a setting with its outcomes."""
        success, intact = (rate([outcome[k] for outcome in outcomes]) for k in (0, 1))
        norm = abs(s.strength) * self.vectors[s.site].norm
        return SweepPoint(*s.key, norm, success, intact, clean_kl, len(outcomes) == len(self.evaluator.prompts))

    def _steer(self, s: _Setting) -> Intervention:
        return add(self.vectors[s.site], s.strength, s.positions)

    def _steer_at(self, site: str, positions: Positions) -> Steer:
        return lambda strength: (add(self.vectors[site], strength, positions),)


def _exhaustive(trials: _Trials, settings: Sequence[_Setting], budget: float) -> Iterator[list[SweepPoint]]:  # noqa: ARG001
    """Judge all settings, site by site; what they cost is measured together, so that the unsteered model runs once."""
    costs = dict(zip([s.key for s in settings], trials.costs(settings), strict=True))
    for group in grouped(settings, lambda s: s.site).values():
        outcomes = trials.outcomes(group, slice(None))
        yield [trials.point(s, each, costs[s.key]) for s, each in zip(group, outcomes, strict=True)]


def _early(trials: _Trials, settings: Sequence[_Setting], budget: float) -> Iterator[list[SweepPoint]]:
    """Judge all settings on the first prompts, then those that may still be best on the rest."""
    first = math.ceil(FIRST * len(trials.evaluator.prompts))
    seen: dict[Key, list[tuple[bool, bool]]] = {}
    for group in grouped(settings, lambda s: s.site).values():
        seen |= zip([s.key for s in group], trials.outcomes(group, slice(first)), strict=True)
    rates = {key: rate([intact for _, intact in outcomes]) for key, outcomes in seen.items()}
    costs: dict[Key, float] = {}
    bar = 0.0
    ranked = sorted(
        settings, key=lambda s: -rates[s.key].value
    )  # the best one within the budget comes early, and raises the bar
    for start in range(0, len(ranked), AT_ONCE):
        group = [s for s in ranked[start : start + AT_ONCE] if rates[s.key].high >= bar]
        if not group:
            break
        costs |= zip([s.key for s in group], trials.costs(group), strict=True)
        bar = max([bar, *(rates[s.key].low for s in group if costs[s.key] <= budget)])
    continued = [s for s in settings if costs.get(s.key, math.inf) <= budget and rates[s.key].high >= bar]
    yield [trials.point(s, seen[s.key], costs.get(s.key)) for s in settings if s not in continued]
    for group in grouped(continued, lambda s: s.site).values():
        rest = zip(group, trials.outcomes(group, slice(first, None)), strict=True)
        yield [trials.point(s, seen[s.key] + more, costs[s.key]) for s, more in rest]


def _sites(model: HookedModel, sites: str | Sequence[str] | None, vectors: Mapping[str, SteeringVector] | None) -> list[str]:
    """Return the sites to try, each with a vector that fits."""
    if vectors is None:
        return expand_sites(model, SITES if sites is None else sites)
    names = expand_sites(model, list(vectors) if sites is None else sites)
    for name in names:
        if name not in vectors:
            raise ValueError(f"no vector is given for {name!r}: there are {', '.join(vectors)}")
        if vectors[name].site != name:
            raise ValueError(f"the vector for {name!r} is of {vectors[name].site!r}: give each under its own site")
        if vectors[name].model.fingerprint != identity(model).fingerprint:
            raise ValueError(
                f"{vectors[name]!r} is of another model than {identity(model)}: move it with mapper.transfer(vector)"
            )
    return names


def _stored(empty: Sweep, folder: Path) -> Sweep | None:
    """The sweep that a folder holds, which must be the one that was asked for."""
    if not (folder / FILE).is_file():
        return None
    stored = Sweep.load(folder)
    mine, theirs = ({**s.to_dict(), "points": None, "details": {**s.details, LARGEST: None}} for s in (empty, stored))
    if mine != theirs:
        where = next(key for key in mine if mine[key] != theirs.get(key))
        raise ValueError(
            f"{str(folder / FILE)!r} holds another sweep ({where} differs): give another folder, or delete that file"
        )
    return stored


def _digest(vector: SteeringVector) -> str:
    return hashlib.sha256(vector.direction.float().contiguous().numpy().tobytes()).hexdigest()[:16]
