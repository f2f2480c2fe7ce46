"""Where and how hard to steer: every site, rule of positions and strength that is asked for, on validation prompts.

Of each setting three things are told: success, intact, and the clean KL that it costs. Two rules pick one of them. The paper's
takes the last strongly steerable layer before the drop (its section 3). The Pareto rule looks at what is left of the model as
well: among settings from which no other is better in both intact answers and cost, the gentlest that is nearly as good as any.

All settings of a site share batches (``interventions.merging``), and prompts that they leave alone up to the last token are read
once. With ``early=True``, a setting that is probably worse than another is not tried on all prompts.
"""

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm.auto import tqdm
from typeguard import TypeCheckError, check_type

from interp_transfer.activations.capture import SECONDS_BEFORE_PROGRESS
from interp_transfer.activations.positions import Positions, Substring, describe
from interp_transfer.evaluation.compare import write_json
from interp_transfer.evaluation.evaluator import Evaluator, evaluator
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import expand_sites, layer_of
from interp_transfer.names import find
from interp_transfer.search.strengths import STRENGTHS, check_grid
from interp_transfer.stats import Estimate, rate
from interp_transfer.vectors.extract import extract_each
from interp_transfer.vectors.vector import SteeringVector

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

T = TypeVar("T")

FORMAT = "interp_transfer.sweep/1"
FILE = "sweep.json"
SITES = "blocks.*.hook_resid_pre"
POSITIONS: tuple[Positions, ...] = ("last", "generated", "response", "all")
FIRST = 0.25
"""Share of the prompts after which early decisions are taken."""

AT_ONCE = 8
"""Settings whose clean KL is measured together while early decisions are taken."""

NEARLY = 0.02
"""How much of the highest intact rate the Pareto rule gives up for a gentler setting."""

STRONG = 0.9
"""Share of the best site's success from which on the paper's rule calls a site strongly steerable."""

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
class Tried:
    """One setting, and what it did.

    Attributes:
        site: where.
        positions: which tokens, in words.
        strength: of the vector.
        norm: length of what is added, in units of the activation.
        success: share of prompts on which it did what it is for.
        intact: share of prompts on which it did so and the answer is valid.
        clean_kl: nats per token; None where it was given up before that was measured.
        whole: whether all prompts were tried; rates of others are of those that were.
    """

    site: str
    positions: str
    strength: float
    norm: float
    success: Estimate
    intact: Estimate
    clean_kl: float | None
    whole: bool = True

    def __str__(self) -> str:
        cost = "" if self.clean_kl is None else f", clean KL {self.clean_kl:.4f}"
        where = f"{self.site}, positions {self.positions}, strength {self.strength:g}"
        return f"{where}: intact {self.intact:.2f}, success {self.success:.2f}{cost}"


@dataclass(frozen=True, repr=False)
class Sweep:
    """What every setting did.

    Attributes:
        task: its name.
        model: whose vectors, and who was steered.
        tried: the settings, by site, positions and strength.
        budget: clean KL that a recommended setting may cost, nats per token.
        details: n, split, seed, and what was asked for.
    """

    task: str
    model: ModelIdentity
    tried: tuple[Tried, ...]
    budget: float
    details: Mapping[str, Any]

    def to_frame(self) -> "pd.DataFrame":
        """A row for each setting."""
        return _frame(self.tried)

    def front(self) -> list[Tried]:
        """Settings from which no other is better in both intact answers and clean KL, from gentle to costly."""
        return _front(self.tried)

    def recommended(self, rule: str = "pareto") -> Tried | None:
        """The setting that a rule picks, ``RULES`` in words; None where no setting achieves anything within the budget.

        Raises:
            ValueError: for an unknown rule, or the paper's where settings were given up early.
        """
        find(rule, RULES, "rule")
        if rule == "paper" and not all(t.whole for t in self.tried):
            raise ValueError("the paper's rule looks at all settings, and some were given up early: sweep with early=False")
        return self._gentlest() if rule == "pareto" else self._last_strong()

    def recommendation(self, rule: str = "pareto") -> str:
        """The same as one sentence."""
        chosen = self.recommended(rule)
        if chosen is None:
            within = f" within {self.budget:g} nats per token" if rule == "pareto" else ""
            costly = [t.clean_kl for t in self.tried if t.success.value > 0 and t.clean_kl is not None]
            more = f"; the cheapest that has costs {min(costly):.3g}: raise the budget, or" if costly and within else ":"
            return f"None of {len(self.tried)} settings has any success on {self.task}{within}{more} try others."
        cost = "" if chosen.clean_kl is None else f", at {chosen.clean_kl:.4f} nats per token on clean prompts"
        return (
            f"Add the vector at {chosen.site}, positions {chosen.positions}, strength {chosen.strength:g}: "
            f"success {chosen.success:.2f}, intact {chosen.intact:.2f}{cost}."
        )

    def best_at_sites(self, budget: float = math.inf) -> dict[str, Tried]:
        """Of each site the setting with most intact answers; then most success, then the smaller strength.

        Settings that were tried on all prompts come first, and of these the ones within a clean-KL budget; if none is, the
        cheapest.
        """
        return {site: _best(group, budget) for site, group in _groups(self.tried, lambda t: t.site).items()}

    def plot(self) -> "Figure":
        """Site by positions, each cell at its best strength; with buttons for success and clean KL."""
        from interp_transfer.plots.sweep import sweep_map

        cells = [_best(group, self.budget) for group in _groups(self.tried, lambda t: (t.site, t.positions)).values()]
        return sweep_map(_frame(cells), self.budget, title=f"{self.task} on {self.model.name}")

    def plot_cost(self) -> "Figure":
        """Intact answers over what they cost, with the front of the best."""
        from interp_transfer.plots.sweep import cost_curve

        front = [(t.clean_kl, t.intact.value) for t in self.front() if t.clean_kl is not None]
        return cost_curve(self.to_frame(), front, self.budget, title=f"{self.task} on {self.model.name}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "format": FORMAT,
            "task": self.task,
            "model": asdict(self.model),
            "budget": self.budget,
            "details": dict(self.details),
            "tried": [asdict(t) for t in self.tried],
        }

    def save(self, folder: str | Path) -> Path:
        """Write ``sweep.json`` into a folder, made if it is missing."""
        where = Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        write_json(where / FILE, self.to_dict())
        return where / FILE

    @classmethod
    def load(cls, folder: str | Path) -> "Sweep":
        """Read what ``save`` wrote.

        Raises:
            ValueError: for a missing, damaged or foreign file, named.
        """
        path = Path(folder) / FILE
        try:
            data = check_type(json.loads(path.read_text()), dict[str, Any])
            if data.get("format") != FORMAT:
                raise ValueError(f"format {data.get('format')!r}")
            tried = check_type(data["tried"], list[dict[str, Any]])
            rows = [Tried(**{**t, **{what: Estimate(**t[what]) for what in ("success", "intact")}}) for t in tried]
            return cls(data["task"], ModelIdentity(**data["model"]), tuple(rows), float(data["budget"]), data["details"])
        except FileNotFoundError as error:
            raise ValueError(f"there is no sweep in {str(folder)!r}") from error
        except (ValueError, KeyError, TypeError, TypeCheckError) as error:
            raise ValueError(f"{str(path)!r} is damaged or no sweep of this package: {error}") from error

    def __repr__(self) -> str:
        whole = sum(t.whole for t in self.tried)
        given_up = "" if whole == len(self.tried) else f", {len(self.tried) - whole} given up early"
        return f"Sweep({self.task} on {self.model.name}, {len(self.tried)} settings{given_up})\n  {self.recommendation()}"

    def _repr_html_(self) -> str:
        import html

        return f"<p>{html.escape(self.recommendation())}</p>{self.to_frame().round(3).to_html(escape=True, max_rows=40)}"

    def _gentlest(self) -> Tried | None:
        within = [t for t in self.tried if t.clean_kl is not None and t.clean_kl <= self.budget and t.success.value > 0]
        front = _front(within)
        if not front:
            return None
        enough = front[-1].intact.value - NEARLY - 1e-9
        return next(t for t in front if t.intact.value >= enough)

    def _last_strong(self) -> Tried | None:
        whole = [t for t in self.tried if t.whole]
        best: dict[str, Tried] = {}
        for t in sorted(whole, key=lambda t: (t.success.value, -abs(t.strength))):
            best[t.site] = t
        highest = max((t.success.value for t in best.values()), default=0.0)
        strong = [t for t in best.values() if highest and t.success.value >= STRONG * highest]
        return max(strong, key=lambda t: -1 if (layer := layer_of(t.site)) is None else layer, default=None)


def _front(tried: Sequence[Tried]) -> list[Tried]:
    known = [(t.clean_kl, -t.intact.value, k) for k, t in enumerate(tried) if t.whole and t.clean_kl is not None]
    best, found = -1.0, []
    for _, worse, k in sorted(known):
        if -worse > best:
            best = -worse
            found.append(tried[k])
    return found


def _best(tried: Sequence[Tried], budget: float) -> Tried:
    """See ``Sweep.best_at_sites``."""

    def order(t: Tried) -> tuple[bool, bool, float, float, float]:
        cost = 0.0 if t.clean_kl is None else t.clean_kl
        worth = (t.intact.value, t.success.value, -abs(t.strength)) if cost <= budget else (-cost, 0.0, 0.0)
        return t.whole, cost <= budget, *worth

    return max(tried, key=order)


def _groups(tried: Sequence[T], key: Callable[[T], Hashable]) -> dict[Any, list[T]]:
    """By what they have in common, in order."""
    groups: dict[Any, list[T]] = {}
    for t in tried:
        groups.setdefault(key(t), []).append(t)
    return groups


def _frame(tried: Sequence[Tried]) -> "pd.DataFrame":
    import pandas as pd

    rows = []
    for t in tried:
        row: dict[str, Any] = {name: getattr(t, name) for name in ("site", "positions", "strength", "norm")}
        for what in ("success", "intact"):
            share = getattr(t, what)
            row |= {what: share.value, f"{what}_low": share.low, f"{what}_high": share.high}
        rows.append({**row, "clean_kl": math.nan if t.clean_kl is None else t.clean_kl, "n": t.intact.n, "whole": t.whole})
    return pd.DataFrame(rows)


Key = tuple[str, str, float]
"""Site, positions in words, strength: which setting it is."""


@dataclass(frozen=True)
class _Setting:
    """What is tried, before it is."""

    site: str
    positions: Positions
    strength: float

    @property
    def key(self) -> Key:
        return self.site, describe(self.positions), self.strength


@dataclass(frozen=True)
class _Trial:
    """The evaluator of settings, and the vectors that are added."""

    test: Evaluator
    vectors: Mapping[str, SteeringVector]

    def outcomes(self, settings: Sequence[_Setting], prompts: slice) -> list[list[tuple[bool, bool]]]:
        """(success, intact) of some of the prompts under each setting."""
        part = replace(self.test, prompts=self.test.prompts[prompts])
        said = part.completions([(self._steer(s),) for s in settings], progress=False)
        return [[(v.success, v.intact) for v in part.task.judge(part.prompts, texts)] for texts in said]

    def costs(self, settings: Sequence[_Setting]) -> list[float]:
        """Clean KL of each setting."""
        return [float(kl.mean()) for kl in self.test.clean_kl(self.test.model, [(self._steer(s),) for s in settings])]

    def tried(self, s: _Setting, outcomes: Sequence[tuple[bool, bool]], clean_kl: float | None) -> Tried:
        """What was found of a setting."""
        success, intact = (rate([o[k] for o in outcomes]) for k in (0, 1))
        norm = abs(s.strength) * self.vectors[s.site].norm
        return Tried(*s.key, norm, success, intact, clean_kl, len(outcomes) == len(self.test.prompts))

    def _steer(self, s: _Setting) -> Intervention:
        return add(self.vectors[s.site], s.strength, s.positions)


def sweep(
    model: HookedModel,
    task: Task,
    *,
    sites: str | Sequence[str] | None = None,
    positions: Sequence[Positions] | None = None,
    strengths: Sequence[float] = STRENGTHS,
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
        model: who is steered.
        task: contrast, prompts, clean prompts and judge.
        sites: hook-point names, ``*`` stands for every block; the input of every block unless given.
        positions: rules; the last token, generated ones, both, and all, unless given.
        strengths: of the vector; 1.0 is the contrast's own difference.
        vectors: what is added at each site, by site, such as moved vectors; the task's own contrast is used otherwise.
        n: prompts.
        split: of the task's prompts.
        seed: draws prompts.
        budget: clean KL that the recommended setting may cost, nats per token; the task's, or else 0.01.
        early: give up settings that are probably worse, after a quarter of the prompts, than another (the upper end of their
            interval is below the lower end of the best that is within the budget), and those beyond the budget.
        folder: keeps what is done, so that a killed sweep goes on where it was.
        progress: show a bar when it takes longer than two seconds, and say how long a longer sweep will take.

    Raises:
        ValueError: before any long work, for unknown sites or positions, strengths that are no numbers, a vector of another
            model, fewer prompts than n, or a folder that holds another sweep.
    """
    names = _sites(model, sites, vectors)
    settings = _settings(names, POSITIONS if positions is None else positions, strengths)
    allowed = float(task.budget if budget is None else budget)
    asked = {"split": split, "n": n, "seed": seed, "early": early, "settings": [list(s.key) for s in settings]}
    asked["vectors"] = "the task's contrast" if vectors is None else {name: _digest(vectors[name]) for name in names}
    if folder is not None and any(callable(s.positions) and not isinstance(s.positions, Substring) for s in settings):
        raise ValueError("positions that are a function cannot be told from others in a folder: sweep them without folder=")
    kept = _Kept(Sweep(task.name, identity(model), (), allowed, asked), None if folder is None else Path(folder))
    todo = [s for s in settings if s.key not in kept.found]
    if not todo:
        return kept.sweep(settings)
    start = time.monotonic()
    test = evaluator(model, task, split, n=n, seed=seed)
    seconds = (time.monotonic() - start) / max(1, len(test.clean_kl.prompts)) * n * len(todo)
    found = extract_each(model, task.contrast("train"), names) if vectors is None else vectors
    with tqdm(total=len(settings), desc="settings", delay=SECONDS_BEFORE_PROGRESS, disable=not progress, leave=False) as bar:
        if progress and seconds > 20:
            bar.write(f"{len(todo)} settings x {n} prompts: about {_minutes(seconds)} at most", file=sys.stderr)
        bar.update(len(settings) - len(todo))
        run = _early if early else _exhaustive
        for done in run(_Trial(test, found), todo, allowed, kept):
            bar.update(done)
    return kept.sweep(settings)


def _exhaustive(trial: _Trial, todo: Sequence[_Setting], budget: float, kept: "_Kept") -> Iterator[int]:  # noqa: ARG001
    """Site by site."""
    for group in _groups(todo, lambda s: s.site).values():
        tried = zip(group, trial.outcomes(group, slice(None)), trial.costs(group), strict=True)
        kept.add([trial.tried(*each) for each in tried])
        yield len(group)


def _early(trial: _Trial, todo: Sequence[_Setting], budget: float, kept: "_Kept") -> Iterator[int]:
    """All settings on the first prompts; then those that may still turn out best on the rest."""
    first = math.ceil(FIRST * len(trial.test.prompts))
    seen: dict[Key, list[tuple[bool, bool]]] = {}
    for group in _groups(todo, lambda s: s.site).values():
        seen |= zip([s.key for s in group], trial.outcomes(group, slice(first)), strict=True)
    rates = {key: rate([intact for _, intact in outcomes]) for key, outcomes in seen.items()}
    costs: dict[Key, float] = {}
    whole = [t for t in kept.found.values() if t.whole and t.clean_kl is not None and t.clean_kl <= budget]
    bar = max((t.intact.low for t in whole), default=0.0)
    ranked = sorted(todo, key=lambda s: -rates[s.key].value)  # the best that the budget allows is soon found
    for start in range(0, len(ranked), AT_ONCE):
        group = [s for s in ranked[start : start + AT_ONCE] if rates[s.key].high >= bar]
        if not group:
            break
        costs |= zip([s.key for s in group], trial.costs(group), strict=True)
        bar = max([bar, *(rates[s.key].low for s in group if costs[s.key] <= budget)])
    going = [s for s in todo if costs.get(s.key, math.inf) <= budget and rates[s.key].high >= bar]
    given_up = [s for s in todo if s not in going]
    kept.add([trial.tried(s, seen[s.key], costs.get(s.key)) for s in given_up])
    yield len(given_up)
    for group in _groups(going, lambda s: s.site).values():
        rest = zip(group, trial.outcomes(group, slice(first, None)), strict=True)
        kept.add([trial.tried(s, seen[s.key] + more, costs[s.key]) for s, more in rest])
        yield len(group)


def _sites(model: HookedModel, sites: str | Sequence[str] | None, vectors: Mapping[str, SteeringVector] | None) -> list[str]:
    """Where it is tried, checked."""
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


def _settings(sites: Sequence[str], positions: Sequence[Positions], strengths: Sequence[float]) -> list[_Setting]:
    """All that is to be tried, checked."""
    _, numbers = check_grid(positions, strengths)
    return [_Setting(site, rule, x) for site in sites for rule in positions for x in numbers]


class _Kept:
    """What was found so far, in a folder if there is one."""

    def __init__(self, empty: Sweep, folder: Path | None) -> None:
        self._empty, self._folder = empty, folder
        self.found: dict[Key, Tried] = {}
        if folder is None or not (folder / FILE).is_file():
            return
        before = Sweep.load(folder)
        mine, theirs = ({**s.to_dict(), "tried": None} for s in (empty, before))
        if mine != theirs:
            where = next(key for key in mine if mine[key] != theirs.get(key))
            raise ValueError(
                f"{str(folder / FILE)!r} holds another sweep ({where} differs): give another folder, or delete that file"
            )
        self.found = {(t.site, t.positions, t.strength): t for t in before.tried}

    def add(self, tried: Sequence[Tried]) -> None:
        """Note what was found."""
        self.found |= {(t.site, t.positions, t.strength): t for t in tried}
        if self._folder is not None:
            replace(self._empty, tried=tuple(self.found.values())).save(self._folder)

    def sweep(self, settings: Sequence[_Setting]) -> Sweep:
        """All of it, in the order in which it was asked for."""
        return replace(self._empty, tried=tuple(self.found[s.key] for s in settings))


def _digest(vector: SteeringVector) -> str:
    return hashlib.sha256(vector.direction.float().contiguous().numpy().tobytes()).hexdigest()[:16]


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
