"""Compare interventions with each other and with baselines on the same held-out prompts.

Each condition gets three figures: success (the intervention had its effect), intact (it had its effect and the answer is
valid), and clean KL (its cost on prompts that need no intervention). The baselines are the unsteered model, random vectors of
the same norm, and the site's mean activation in place of its activation.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from interp_transfer.activations.positions import describe
from interp_transfer.escape import data_frame, html_table, visible
from interp_transfer.evaluation.evaluator import Condition, add_readings, evaluator
from interp_transfer.evaluation.task import Task, check_task
from interp_transfer.interventions.intervention import Intervention, check_intervention
from interp_transfer.interventions.transforms import Add
from interp_transfer.io import hashed, write_json
from interp_transfer.models.hooked_model import HookedModel, check_model
from interp_transfer.models.identity import identity
from interp_transfer.names import misplaced
from interp_transfer.prompts.chats import Prompt

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

SCHEMA = 2


@dataclass(frozen=True, repr=False)
class Result:
    """The conditions of a comparison.

    Attributes:
        task: name of the task.
        target: name, fingerprint and site of the model that was steered.
        conditions: by name, in the order in which they are shown.
        prompts: the prompts, the same for all conditions.
        seed: of the drawn prompts and of the random vectors.
        details: further fields of result.json, such as the source, the vector, the mapper, the sweeps.
    """

    task: str
    target: dict[str, Any]
    conditions: dict[str, Condition]
    prompts: tuple[Prompt, ...]
    seed: int
    details: dict[str, Any] = field(default_factory=dict)

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each condition: strength, success, intact and clean KL with their intervals, n."""
        rows = [{"condition": name, "strength": c.strength, **c.columns()} for name, c in self.conditions.items()]
        return data_frame(rows).set_index("condition")

    def plot(self) -> "Figure":
        """Draw success and intact of each condition with their intervals."""
        from interp_transfer.plots.conditions import condition_points

        conditions = {name: condition.to_dict() for name, condition in self.conditions.items()}
        return condition_points(conditions, title=f"{self.task} on {self.target['name']}")

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``result.json``."""
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
        """Write ``result.json`` and ``completions.json`` into a folder, which is created if it is missing.

        Args:
            folder: the folder.
            tokens: of the first prompts, with marks on the steered ones, for the report.
        """
        where = Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        completions = {
            name: [
                {"completion": text, "success": v.success, "intact": v.intact, "reason": v.reason}
                | ({"differ": True} if i in c.differ else {})
                for i, (text, v) in enumerate(zip(c.completions, c.verdicts, strict=True))
            ]
            for name, c in self.conditions.items()
        }
        prompts = [str(prompt) for prompt in self.prompts]
        write_json(where / "completions.json", {"prompts": prompts, "tokens": list(tokens), "conditions": completions})
        write_json(where / "result.json", self.to_dict())
        return where

    def __repr__(self) -> str:
        lines = [f"  {name:20s} strength {c.strength:<5.3g} {c}" for name, c in self.conditions.items()]
        return visible(f"Result({self.task} on {self.target['name']})\n" + "\n".join(lines))

    def _repr_html_(self) -> str:
        return html_table(f"{self.task} on {self.target['name']}, seed {self.seed}", self.to_frame())


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
    """Judge interventions and the baselines on the same held-out prompts.

    The conditions ``unsteered``, ``random`` and ``mean_ablated`` are added: random vectors of the reference's norm at its site
    and positions (20 directions, with intervals over directions and prompts), and the site's mean over the model's own
    activations on the task's texts, at the same positions. Strengths are taken as they are: to compare at equal cost, choose
    each with `search.strengths.search_strength`.

    Args:
        target: the model that is steered.
        task: prompts, clean prompts and judge.
        interventions: by name; a value may be several interventions that are applied together.
        n: number of prompts, the same for all conditions.
        reference: the condition whose norm, site and positions the baselines take; the last one that adds a vector unless
            given.
        split: of the task's prompts.
        seed: draws prompts and random vectors.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: for fewer prompts than n, an unknown reference, no interventions.
    """
    check_model(target)
    check_task(task)
    if not isinstance(interventions, Mapping):
        raise misplaced(interventions, "interventions by name", "give a dictionary, {'moved': moved.add(1.0)}")
    named = {name: tuple(one) if isinstance(one, Sequence) else (one,) for name, one in interventions.items()}
    for intervention in chain.from_iterable(named.values()):
        check_intervention(target, intervention)
    if not named:
        raise ValueError("no interventions to compare: give at least one, {'native': add(vector, 1.0)}")
    if taken := {"unsteered", "random", "mean_ablated"} & set(named):
        raise ValueError(f"{sorted(taken)} are added by themselves: choose other names")
    like = _reference(named, reference)
    test = evaluator(target, task, split, n=n, seed=seed)
    conditions = {"unsteered": test.unsteered(progress)}
    for name, setting in named.items():
        conditions[name] = test.judge(setting, _strength(setting), progress=progress)
    conditions["random"] = test.random(like, seed, _strength((like,)), progress)
    conditions["mean_ablated"] = test.mean_ablated(like, progress)
    conditions = {name: add_readings(task, test.prompts, judged) for name, judged in conditions.items()}
    return Result(task.name, about(target, like), conditions, test.prompts, seed)


def about(model: HookedModel, like: Intervention) -> dict[str, Any]:
    """Return the description of the steered model in result.json."""
    here = identity(model)
    site = like.site if isinstance(like.site, str) else " ".join(like.site)
    return {"name": here.name, "fingerprint": here.fingerprint, "site": site, "positions": describe(like.positions)}


def digests(plain: Mapping[str, Any]) -> dict[str, str]:
    """Return a short hash of each field as JSON stores it, which shows later changes to the file."""
    return {name: hashed(json.loads(json.dumps(value))) for name, value in plain.items() if name != "digests"}


def _reference(named: Mapping[str, tuple[Intervention, ...]], reference: str | None) -> Intervention:
    if reference is not None and reference not in named:
        raise ValueError(f"reference={reference!r} is no condition: there are {', '.join(named)}")
    candidates = named[reference] if reference is not None else [i for setting in named.values() for i in setting]
    adding = [i for i in candidates if isinstance(i.site, str) and _adds_one_vector(i)]
    if not adding:
        raise ValueError("the random baseline needs a condition that adds a vector at one site: name it as reference=")
    return adding[-1]


def _adds_one_vector(intervention: Intervention) -> bool:
    transform = intervention.transform
    return isinstance(transform, Add) and transform.direction.ndim == 1 and not isinstance(transform.strength, Tensor)


def _strength(setting: tuple[Intervention, ...]) -> float:
    adding = [i for i in setting if _adds_one_vector(i)]
    return float(adding[0].transform.strength) if len(adding) == 1 else 0.0  # type: ignore[attr-defined]
