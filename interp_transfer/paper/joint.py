"""Several vectors at once, each at its own site: what one does not reach alone.

A behaviour may be carried by several layers together, and then one vector has to be so strong that it costs more than the
budget before it has done its work. Greedy forward selection looks for a set that shares the work: the best setting alone, then
the one that adds most to it, and so on, every set within one clean-KL budget. It does not try all sets, so there may be better
ones; and it is chosen on the evaluator's prompts, so judge it on others.

The paper steers at one layer. For its corrupted capabilities, where that reaches little (11% native, 8% moved), its authors
answer their reviewers that steering, not moving, is the bottleneck, and suggest several layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from interp_transfer.activations.capture import SECONDS_BEFORE_PROGRESS
from interp_transfer.activations.positions import Positions
from interp_transfer.evaluation.evaluator import Condition, Evaluator, condition, cost
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.models.identity import identity
from interp_transfer.models.sites import check_site
from interp_transfer.search.strengths import STRENGTHS as ALL_STRENGTHS
from interp_transfer.search.strengths import check_grid
from interp_transfer.stats import Estimate
from interp_transfer.vectors.vector import SteeringVector, check_same

if TYPE_CHECKING:
    import pandas as pd

STRENGTHS = tuple(x for x in ALL_STRENGTHS if x <= 2)
"""Several vectors share the work, so none of them has to be strong."""

POSITIONS: tuple[Positions, ...] = ("last", "all")


@dataclass(frozen=True)
class Step:
    """A vector that was added to those before it, and what all of them do together.

    Attributes:
        vector: its name among those that were given.
        site: where it is added.
        positions: at which tokens, in words.
        strength: of the vector.
        norm: length of what is added, in units of the activation.
        success: share of prompts on which all up to this one did what they are for.
        intact: share of prompts on which they did so and the answer is valid.
        clean_kl: what all up to this one cost together, nats per token.
    """

    vector: str
    site: str
    positions: str
    strength: float
    norm: float
    success: Estimate
    intact: Estimate
    clean_kl: float

    def __str__(self) -> str:
        name = "" if self.vector == self.site else f"{self.vector} at "
        where = f"{name}{self.site}, positions {self.positions}, strength {self.strength:g}"
        return f"{where}: intact {self.intact:.2f}, success {self.success:.2f}, clean KL {self.clean_kl:.4f}"


@dataclass(frozen=True, repr=False, eq=False)
class Joint:
    """What was chosen, step by step.

    Attributes:
        task: its name.
        model: the name of the model that is steered.
        steps: each with what all up to it do together; none where no setting is within the budget.
        interventions: one for each step, to be applied together.
        budget: clean KL that all of them together may cost, nats per token.
        tried: how many sets were measured.
    """

    task: str
    model: str
    steps: tuple[Step, ...]
    interventions: tuple[Intervention, ...]
    budget: float
    tried: int

    def to_frame(self) -> "pd.DataFrame":
        """A row for each step: what was added, and what all up to it do."""
        import pandas as pd

        rows = []
        for number, step in enumerate(self.steps, start=1):
            row: dict[str, Any] = {"step": number, **asdict(step)}
            for what in ("success", "intact"):
                share = getattr(step, what)
                row |= {what: share.value, f"{what}_low": share.low, f"{what}_high": share.high}
            rows.append({**row, "n": step.intact.n})
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        lines = [f"  {'+ ' if number else ''}{step}" for number, step in enumerate(self.steps)]
        said = lines or [f"  none of {self.tried} settings is within {self.budget:g} nats per token"]
        return "\n".join([f"Joint({self.task} on {self.model}, {len(self.steps)} of {self.tried} sets tried)", *said])


@dataclass(frozen=True)
class _Setting:
    """What may be added."""

    vector: str
    positions: str
    strength: float
    intervention: Intervention


def best_joint(
    test: Evaluator,
    vectors: Mapping[str, SteeringVector],
    *,
    budget: float | int,
    strengths: Sequence[float | int] = STRENGTHS,
    positions: Sequence[Positions] = POSITIONS,
    most: int = 3,
    progress: bool = True,
) -> Joint:
    """Choose vectors, positions and strengths that work together, one after the other.

    The first is the setting within the budget with most intact answers; then most success, then least clean KL. Each further
    one is the setting of a vector that is not yet in the set with which the set has most intact answers, within the budget
    still. It ends with ``most`` vectors, or when no setting adds at least one prompt.

    Args:
        test: prompts, judge and measure of clean KL; of validation prompts, because it is chosen by what they show.
        vectors: by any names, such as their sites; several may be of one site. Moved vectors do, too.
        budget: clean KL that all of them together may cost, nats per token.
        strengths: of each vector; 1.0 is the contrast's own difference.
        positions: rules that are tried for each.
        most: how many vectors at most.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: before any work, for no vectors, one of another model, an unknown site or rule of positions, a budget or
            ``most`` that is not above zero, strengths that are no numbers.
    """
    settings = _settings(test, vectors, budget, strengths, positions, most)
    steps: list[Step] = []
    chosen: list[Intervention] = []
    todo, tried = settings, 0
    with tqdm(total=most, desc="vectors", delay=SECONDS_BEFORE_PROGRESS, disable=not progress, leave=False) as bar:
        while todo and len(steps) < most:
            judged = _judged(test, [(*chosen, s.intervention) for s in todo], budget, progress)
            tried += len(todo)
            within = [(s, c) for s, c in zip(todo, judged, strict=True) if c is not None]
            if not within:
                break
            setting, best = max(within, key=lambda found: _merit(found[1]))
            if steps and round((best.intact.value - steps[-1].intact.value) * len(test.prompts)) < 1:
                break
            steps.append(_step(setting, vectors[setting.vector], best))
            chosen.append(setting.intervention)
            todo = [s for s in todo if s.vector != setting.vector]
            bar.update()
    return Joint(test.task.name, identity(test.model).name, tuple(steps), tuple(chosen), float(budget), tried)


def _judged(test: Evaluator, sets: Sequence[tuple[Intervention, ...]], budget: float, progress: bool) -> list[Condition | None]:
    """What each set does; None for one beyond the budget, which is not generated with."""
    costs = test.clean_kl(test.model, sets, progress)
    within = [k for k, kl in enumerate(costs) if float(kl.mean()) <= budget]
    judged: list[Condition | None] = [None] * len(sets)
    for k, said in zip(within, test.completions([sets[k] for k in within], progress), strict=True):
        judged[k] = condition(test.task, test.prompts, [said], cost(costs[k]), 0.0, "")
    return judged


def _merit(found: Condition) -> tuple[float, float, float]:
    return found.intact.value, found.success.value, -found.clean_kl


def _step(s: _Setting, vector: SteeringVector, found: Condition) -> Step:
    norm = abs(s.strength) * vector.norm
    return Step(s.vector, vector.site, s.positions, s.strength, norm, found.success, found.intact, found.clean_kl)


def _settings(
    test: Evaluator,
    vectors: Mapping[str, SteeringVector],
    budget: float | int,
    strengths: Sequence[float | int],
    positions: Sequence[Positions],
    most: int,
) -> list[_Setting]:
    """All that may be added, checked; settings that can share batches stand together."""
    if not vectors:
        raise ValueError("there are no vectors to choose from: give at least one, {site: vector}")
    if not budget > 0 or most < 1:
        raise ValueError(f"budget={budget}, most={most}: give numbers above zero")
    words, numbers = check_grid(positions, strengths)
    for name, vector in vectors.items():
        check_same(vector.model, identity(test.model), f"the vector {name!r} and the evaluator are")
        check_site(test.model, vector.site)
    return [
        _Setting(name, word, x, add(vector, x, rule))
        for name, vector in vectors.items()
        for word, rule in zip(words, positions, strict=True)
        for x in numbers
    ]
