"""Where and how hard to steer: every site, rule of positions and strength that is asked for, on validation prompts.

Of each setting three things are told: success, intact, and the clean KL that it costs. Two rules pick one of them. The paper's
takes the last strongly steerable layer before the drop (its section 3). The Pareto rule looks at what is left of the model as
well: among settings from which no other is better in both intact answers and cost, the gentlest that is nearly as good as any.

All settings of a site share batches (``interventions.many``), and prompts that they leave alone up to the last token are read
once. With ``early=True``, a setting that is already worse than another could still become is not tried any further.
"""

import hashlib
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from tqdm.auto import tqdm
from typeguard import TypeCheckError, check_type

from interp_transfer.activations.capture import SECONDS_BEFORE_PROGRESS
from interp_transfer.activations.positions import Positions, Substring, check_positions, describe
from interp_transfer.data.names import find
from interp_transfer.data.tasks import Task
from interp_transfer.evaluation.compare import write_json
from interp_transfer.evaluation.exam import Exam, exam
from interp_transfer.evaluation.metrics import Rate, rate
from interp_transfer.interventions.apply import Intervention, add
from interp_transfer.interventions.vector import SteeringVector
from interp_transfer.models.load import ModelIdentity, identity
from interp_transfer.models.sites import HookedModel, expand_sites, layer_of
from interp_transfer.steering.extract import extract_each
from interp_transfer.steering.search import BUDGET, STRENGTHS

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

FORMAT = "interp_transfer.sweep/1"
FILE = "sweep.json"
SITES = "blocks.*.hook_resid_pre"
POSITIONS: tuple[Positions, ...] = ("last", "generated", "response", "all")
FIRST = 0.25
"""Share of the prompts after which early decisions are taken."""

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
    success: Rate
    intact: Rate
    clean_kl: float | None
    whole: bool = True

    def __str__(self) -> str:
        cost = "" if self.clean_kl is None else f", clean KL {self.clean_kl:.4f}"
        where = f"{self.site}, positions {self.positions}, strength {self.strength:g}"
        return f"{where}: intact {self.intact}, success {self.success}{cost}"


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
        import pandas as pd

        rows = []
        for t in self.tried:
            row: dict[str, Any] = {name: getattr(t, name) for name in ("site", "positions", "strength", "norm")}
            for what in ("success", "intact"):
                share = getattr(t, what)
                row |= {what: share.rate, f"{what}_low": share.low, f"{what}_high": share.high}
            rows.append({**row, "clean_kl": math.nan if t.clean_kl is None else t.clean_kl, "n": t.intact.n, "whole": t.whole})
        return pd.DataFrame(rows)

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
            tries = f"{len(self.tried)} settings"
            return f"None of {tries} has any success on {self.task} within {self.budget:g} nats per token: try others."
        cost = "" if chosen.clean_kl is None else f", at {chosen.clean_kl:.4f} nats per token on clean prompts"
        return (
            f"Add the vector at {chosen.site}, positions {chosen.positions}, strength {chosen.strength:g}: "
            f"success {chosen.success}, intact {chosen.intact}{cost}."
        )

    def best_at_sites(self, budget: float = math.inf) -> dict[str, Tried]:
        """Of each site the setting with most intact answers; then most success, then the smaller strength.

        Settings that were tried on all prompts come first, and of these the ones within a clean-KL budget.
        """

        def order(t: Tried) -> tuple[bool, bool, float, float, float]:
            within = budget == math.inf or (t.clean_kl is not None and t.clean_kl <= budget)
            return t.whole, within, t.intact.rate, t.success.rate, -abs(t.strength)

        found: dict[str, Tried] = {}
        for t in sorted(self.tried, key=order):
            found[t.site] = t
        return {site: found[site] for site in dict.fromkeys(t.site for t in self.tried)}

    def plot(self) -> "Figure":
        """Site by positions, each cell at its best strength; with buttons for success and clean KL."""
        from interp_transfer.plots.sweep import sweep_map

        return sweep_map(self.to_frame(), self.budget, title=f"{self.task} on {self.model.name}")

    def plot_cost(self) -> "Figure":
        """Intact answers over what they cost, with the front of the best."""
        from interp_transfer.plots.sweep import cost_curve

        front = [(t.clean_kl, t.intact.rate) for t in self.front() if t.clean_kl is not None]
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
            rows = [Tried(**{**t, **{what: Rate(**t[what]) for what in ("success", "intact")}}) for t in tried]
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
        within = [t for t in self.tried if t.clean_kl is not None and t.clean_kl <= self.budget and t.success.rate > 0]
        front = _front(within)
        if not front:
            return None
        enough = front[-1].intact.rate - NEARLY - 1e-9
        return next(t for t in front if t.intact.rate >= enough)

    def _last_strong(self) -> Tried | None:
        whole = [t for t in self.tried if t.whole]
        best: dict[str, Tried] = {}
        for t in sorted(whole, key=lambda t: (t.success.rate, -abs(t.strength))):
            best[t.site] = t
        highest = max((t.success.rate for t in best.values()), default=0.0)
        strong = [t for t in best.values() if highest and t.success.rate >= STRONG * highest]
        return max(strong, key=lambda t: -1 if (layer := layer_of(t.site)) is None else layer, default=None)


def _front(tried: Sequence[Tried]) -> list[Tried]:
    known = [(t.clean_kl, -t.intact.rate, k) for k, t in enumerate(tried) if t.whole and t.clean_kl is not None]
    best, found = -1.0, []
    for _, worse, k in sorted(known):
        if -worse > best:
            best = -worse
            found.append(tried[k])
    return found


@dataclass(frozen=True)
class _Setting:
    """What is tried, before it is."""

    vector: SteeringVector
    positions: Positions
    strength: float

    @property
    def intervention(self) -> Intervention:
        return add(self.vector, self.strength, self.positions)

    @property
    def key(self) -> tuple[str, str, float]:
        return self.vector.site, describe(self.positions), self.strength

    def tried(self, outcomes: Sequence[tuple[bool, bool]], clean_kl: float | None, whole: bool) -> Tried:
        success, intact = (rate([o[k] for o in outcomes]) for k in (0, 1))
        norm = abs(self.strength) * self.vector.norm
        return Tried(*self.key, norm, success, intact, clean_kl, whole)


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
    settings = _settings(model, task, sites, POSITIONS if positions is None else positions, strengths, vectors)
    allowed = float(getattr(task, "budget", BUDGET) if budget is None else budget)
    asked = {"split": split, "n": n, "seed": seed, "early": early, "settings": [list(s.key) for s in settings]}
    asked |= {"vectors": "the task's contrast" if vectors is None else {s.vector.site: _digest(s.vector) for s in settings}}
    if folder is not None and any(callable(s.positions) and not isinstance(s.positions, Substring) for s in settings):
        raise ValueError("positions that are a function cannot be told from others in a folder: sweep them without folder=")
    kept = _Kept(Sweep(task.name, identity(model), (), allowed, asked), None if folder is None else Path(folder))
    if len(kept.found) == len(settings):
        return kept.sweep(settings)
    start = time.monotonic()
    test = exam(model, task, split, n=n, seed=seed)
    each = (time.monotonic() - start) / max(1, len(test.ruler.prompts))
    with tqdm(total=len(settings), desc="settings", delay=SECONDS_BEFORE_PROGRESS, disable=not progress, leave=False) as bar:
        seconds = each * n * (len(settings) - len(kept.found))
        if progress and seconds > 20:
            bar.write(f"{len(settings)} settings x {n} prompts: about {_minutes(seconds)} at most", file=sys.stderr)
        for done in _early(test, settings, allowed, kept) if early else _exhaustive(test, settings, kept):
            bar.update(done)
    return kept.sweep(settings)


def _exhaustive(test: Exam, settings: Sequence[_Setting], kept: "_Kept") -> Iterator[int]:
    """Site by site."""
    for group in _by_site([s for s in settings if s.key not in kept.found]):
        given = [(s.intervention,) for s in group]
        outcomes = _judged(test, given)
        costs = test.ruler.kl(test.model, given)
        kept.add([s.tried(o, kl, True) for s, o, kl in zip(group, outcomes, costs, strict=True)])
        yield len(group)


def _early(test: Exam, settings: Sequence[_Setting], budget: float, kept: "_Kept") -> Iterator[int]:
    """All settings on the first prompts; then those that may still turn out best on the rest."""
    first = max(1, math.ceil(FIRST * len(test.prompts)))
    begin, rest = (replace(test, prompts=part) for part in (test.prompts[:first], test.prompts[first:]))
    todo = [s for s in settings if s.key not in kept.found]
    seen = [outcome for group in _by_site(todo) for outcome in _judged(begin, [(s.intervention,) for s in group])]
    todo = [s for group in _by_site(todo) for s in group]
    rates = [rate([intact for _, intact in outcome]) for outcome in seen]
    costs: dict[int, float] = {}
    ready = [t for t in kept.found.values() if t.whole and t.clean_kl is not None and t.clean_kl <= budget]
    bar = max((t.intact.low for t in ready), default=0.0)
    for k in sorted(range(len(todo)), key=lambda k: -rates[k].rate):  # the best that the budget allows is soon found
        if rates[k].high < bar:
            break
        costs[k] = test.ruler.kl(test.model, [(todo[k].intervention,)])[0]
        if costs[k] <= budget:
            bar = max(bar, rates[k].low)
    going = [k for k in range(len(todo)) if k in costs and costs[k] <= budget and rates[k].high >= bar and len(rest.prompts)]
    given_up = [k for k in range(len(todo)) if k not in going]
    kept.add([todo[k].tried(seen[k], costs.get(k), not len(rest.prompts)) for k in given_up])
    yield len(given_up)
    for group in _by_site([todo[k] for k in going]):
        numbers = [k for k in going if any(todo[k] is s for s in group)]
        outcomes = _judged(rest, [(todo[k].intervention,) for k in numbers])
        kept.add([todo[k].tried([*seen[k], *more], costs[k], True) for k, more in zip(numbers, outcomes, strict=True)])
        yield len(group)


def _judged(test: Exam, given: Sequence[Sequence[Intervention]]) -> list[list[tuple[bool, bool]]]:
    """(success, intact) of each prompt under each setting."""
    said = test.completions(given, progress=False)
    verdicts = [test.task.judge(test.prompts, texts) for texts in said]
    return [[(v.success, v.intact) for v in each] for each in verdicts]


def _by_site(settings: Sequence[_Setting]) -> list[list[_Setting]]:
    groups: dict[str, list[_Setting]] = {}
    for s in settings:
        groups.setdefault(s.vector.site, []).append(s)
    return list(groups.values())


def _settings(
    model: HookedModel,
    task: Task,
    sites: str | Sequence[str] | None,
    positions: Sequence[Positions],
    strengths: Sequence[float],
    vectors: Mapping[str, SteeringVector] | None,
) -> list[_Setting]:
    """All that is to be tried, checked."""
    if isinstance(positions, str) or not len(positions) or not len(strengths):
        raise ValueError("give at least one rule of positions and one strength, as lists: positions=['last'], strengths=[1.0]")
    if bad := [x for x in strengths if not math.isfinite(x)]:
        raise ValueError(f"strength {bad[0]} is no number that a vector can be multiplied by")
    for rule in positions:
        if isinstance(check_positions(rule), Tensor):
            raise ValueError("a mask names tokens of certain prompts, and a sweep draws its own: give a rule of positions")
    words, numbers = [describe(rule) for rule in positions], list(map(float, strengths))
    if len(set(words)) < len(words) or len(set(numbers)) < len(numbers):
        raise ValueError(f"positions {words}, strengths {numbers}: name each once")
    if vectors is not None:
        names = list(vectors) if sites is None else expand_sites(model, sites)
        if missing := [name for name in names if name not in vectors]:
            raise ValueError(f"no vector is given for {missing[0]!r}: there are {', '.join(vectors)}")
        if moved := [name for name in names if vectors[name].site != name]:
            raise ValueError(f"the vector for {moved[0]!r} is of {vectors[moved[0]].site!r}: give each under its own site")
        found = {name: vectors[name] for name in expand_sites(model, names)}
        for vector in found.values():
            if vector.model.fingerprint != identity(model).fingerprint:
                raise ValueError(f"{vector!r} is of another model than {identity(model)}: move it with mapper.transfer(vector)")
    else:
        found = extract_each(model, task.contrast("train"), expand_sites(model, SITES if sites is None else sites))
    return [_Setting(v, rule, x) for v in found.values() for rule in positions for x in numbers]


class _Kept:
    """What was found so far, in a folder if there is one."""

    def __init__(self, empty: Sweep, folder: Path | None) -> None:
        self._empty, self._folder = empty, folder
        self.found: dict[tuple[str, str, float], Tried] = {}
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
