"""Conditions side by side, on the same held-out prompts.

Three figures for each condition: success (the intervention did what it is for), intact (it did so and the answer is a valid
one), and clean KL (what it costs on prompts that need no intervention). Beside the conditions of the user stand, always,
the unsteered model, random vectors of the same norm, and the site's mean activation in place of its activation.
"""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from interp_transfer.activations.positions import describe
from interp_transfer.evaluation.evaluator import Condition, add_readings, evaluator
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.transforms import Add
from interp_transfer.io import hashed, write_json
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

SCHEMA = 2


@dataclass(frozen=True, repr=False)
class Result:
    """Conditions side by side.

    Attributes:
        task: name of the task.
        target: name, fingerprint and site of the model that was steered.
        conditions: by name, in the order in which they are shown.
        prompts: what the model was asked, the same for all.
        seed: of the prompts that were drawn and of the random vectors.
        details: whatever else belongs into result.json: the source, the vector, the mapper, sweeps.
    """

    task: str
    target: dict[str, Any]
    conditions: dict[str, Condition]
    prompts: tuple[str, ...]
    seed: int
    details: dict[str, Any] = field(default_factory=dict)

    def to_frame(self) -> "pd.DataFrame":
        """A row for each condition: strength, success and intact with their intervals, clean KL, n."""
        import pandas as pd

        rows = [
            {
                "condition": name,
                "strength": c.strength,
                "success": c.success.value,
                "success_low": c.success.low,
                "success_high": c.success.high,
                "intact": c.intact.value,
                "intact_low": c.intact.low,
                "intact_high": c.intact.high,
                "clean_kl": c.cost.value,
                "clean_kl_low": c.cost.low,
                "clean_kl_high": c.cost.high,
                "n": c.success.n,
            }
            for name, c in self.conditions.items()
        ]
        return pd.DataFrame(rows).set_index("condition")

    def plot(self) -> "Figure":
        """Success and intact of each condition with their intervals."""
        from interp_transfer.plots.conditions import condition_bars

        return condition_bars(self.to_frame(), title=f"{self.task} on {self.target['name']}")

    def to_dict(self) -> dict[str, Any]:
        """What ``result.json`` holds."""
        packages = ("interp-transfer", "torch", "transformers", "transformer-lens")
        plain = {
            "schema": SCHEMA,
            "task": self.task,
            "seed": self.seed,
            "versions": {name: version(name) for name in packages},
            "target": self.target,
            **self.details,
            "conditions": {name: condition.to_dict() for name, condition in self.conditions.items()},
        }
        return {**plain, "digests": digests(plain)}

    def save(self, folder: str | Path, tokens: Sequence[Mapping[str, Any]] = ()) -> Path:
        """Write ``result.json`` and ``completions.json`` into a folder, made if it is missing.

        Args:
            folder: where to.
            tokens: of the first prompts, with marks on the steered ones, for the report.
        """
        where = Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        said = {
            "prompts": list(self.prompts),
            "tokens": list(tokens),
            "conditions": {
                name: [
                    {"completion": text, "success": v.success, "intact": v.intact, "reason": v.reason}
                    | ({"differ": True} if i in c.differ else {})
                    for i, (text, v) in enumerate(zip(c.completions, c.verdicts, strict=True))
                ]
                for name, c in self.conditions.items()
            },
        }
        write_json(where / "completions.json", said)
        write_json(where / "result.json", self.to_dict())
        return where

    def __repr__(self) -> str:
        lines = [
            f"  {name:20s} strength {c.strength:<5.3g} success {c.success:.2f}  intact {c.intact:.2f}  "
            f"clean KL {c.clean_kl:.3f}"
            for name, c in self.conditions.items()
        ]
        return f"Result({self.task} on {self.target['name']})\n" + "\n".join(lines)

    def _repr_html_(self) -> str:
        frame = self.to_frame().round(3)
        title = html.escape(f"{self.task} on {self.target['name']}, seed {self.seed}")
        return f"<p><b>{title}</b></p>{frame.to_html(escape=True)}"


def compare(
    target: HookedModel,
    task: Task,
    interventions: Mapping[str, Intervention | Sequence[Intervention]],
    *,
    n: int = 200,
    reference: str | None = None,
    split: str = "test",
    seed: int = 0,
    progress: bool = True,
) -> Result:
    """Judge interventions on the same held-out prompts, beside the baselines.

    ``unsteered``, ``random`` and ``mean_ablated`` are added by themselves: random vectors of the reference's norm at its
    site and positions (five draws pooled, the interval clustered by prompt), and the site's mean over the model's own
    activations on the task's texts, at the same positions.

    Args:
        target: the model that is steered.
        task: prompts, clean prompts and judge.
        interventions: by name; a value may be several that are applied together.
        n: how many prompts; the same for all conditions, drawn by the seed.
        reference: the condition whose norm, site and positions the baselines take; the last that adds a vector, if not
            given.
        split: of the task's prompts.
        seed: draws prompts and random vectors.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: for fewer prompts than n, an unknown reference, no interventions.
    """
    named = {name: _several(given) for name, given in interventions.items()}
    if not named:
        raise ValueError("no interventions to compare: give at least one, {'native': add(vector, 1.0)}")
    taken = {"unsteered", "random", "mean_ablated"} & set(named)
    if taken:
        raise ValueError(f"{sorted(taken)} are added by themselves: choose other names")
    like = _reference(named, reference)
    test = evaluator(target, task, split, n=n, seed=seed, clean_prompts=n)
    conditions = {"unsteered": test.unsteered(progress)}
    for name, given in named.items():
        conditions[name] = test.judge([given], _strength(given), progress=progress)
    conditions["random"] = test.random(like, seed, _strength((like,)), progress)
    conditions["mean_ablated"] = test.mean_ablated(like, progress)
    conditions = {name: add_readings(task, test.prompts, judged) for name, judged in conditions.items()}
    return Result(task.name, about(target, like), conditions, test.prompts, seed)


def about(model: HookedModel, like: Intervention) -> dict[str, Any]:
    """What result.json says of the model that was steered."""
    here = identity(model)
    site = like.site if isinstance(like.site, str) else " ".join(like.site)
    return {"name": here.name, "fingerprint": here.fingerprint, "site": site, "positions": describe(like.positions)}


def digests(plain: Mapping[str, Any]) -> dict[str, str]:
    """A short hash of each field as JSON holds it, by which a reader sees that a file was changed afterwards."""
    return {name: hashed(json.loads(json.dumps(value))) for name, value in plain.items() if name != "digests"}


def _several(given: Intervention | Sequence[Intervention]) -> tuple[Intervention, ...]:
    return (given,) if isinstance(given, Intervention) else tuple(given)


def _reference(named: Mapping[str, tuple[Intervention, ...]], reference: str | None) -> Intervention:
    if reference is not None and reference not in named:
        raise ValueError(f"reference={reference!r} is no condition: there are {', '.join(named)}")
    candidates = named[reference] if reference is not None else [i for given in named.values() for i in given]
    adding = [i for i in candidates if isinstance(i.transform, Add) and isinstance(i.site, str) and _plain(i.transform)]
    if not adding:
        raise ValueError("the random baseline needs a condition that adds a vector at one site: name it as reference=")
    return adding[-1]


def _plain(transform: Add) -> bool:
    return transform.direction.ndim == 1 and not isinstance(transform.strength, Tensor)


def _strength(given: tuple[Intervention, ...]) -> float:
    adding = [i.transform for i in given if isinstance(i.transform, Add) and _plain(i.transform)]
    return float(adding[0].strength) if len(adding) == 1 else 0.0  # type: ignore[arg-type]
