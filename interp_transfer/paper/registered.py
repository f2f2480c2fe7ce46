"""Experiments of the edition "real": pretrained models that nobody here shaped, with data that is given by path.

A file of `pretrained` holds what is claimed, the threshold, the rule that decides, and what is chosen on validation prompts.
All this is written before a cell of the experiment is measured; a hash of it goes into each cell, so that a later change shows
on the page. A case that cannot be run yet has a reason in place of its settings. The minutes of a case are what it is planned
to take on two cores (`quick_minutes` in a quick run, on few prompts); there is a limit for a case and for the whole.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from interp_transfer.io import named_errors
from interp_transfer.names import quoted
from interp_transfer.paper.cells import QUICK_N
from interp_transfer.paper.experiment import REAL, Case, Experiment, checked_toml

PRETRAINED = Path(__file__).with_name("pretrained")
REGISTERED = ("claim", "threshold", "rule", "chosen")
"""Fields that are written before anything is measured."""
MOST_MINUTES = 45.0
"""Longest time that a case may be planned to take."""
MOST_HOURS = 12.0
"""Longest time that all cases may be planned to take."""


class RealCaseToml(TypedDict):
    """A case as its file holds it."""

    name: str
    minutes: float
    real: NotRequired[dict[str, Any]]
    not_real: NotRequired[str]
    quick: NotRequired[bool]
    quick_minutes: NotRequired[float]


class RealToml(TypedDict):
    """The file of an experiment."""

    order: int
    title: str
    claim: str
    threshold: str
    rule: str
    chosen: str
    kind: NotRequired[str]
    n: int
    columns: NotRequired[str]
    note: NotRequired[str]
    case: list[RealCaseToml]


@cache
def pretrained() -> Mapping[str, Experiment]:
    """All experiments of the edition by name, in the order of the page."""
    read = [read_real(path) for path in sorted(PRETRAINED.glob("*.toml"))]
    return {one.name: one for one in sorted(read, key=lambda one: (one.order, one.name))}


def read_real(path: Path) -> Experiment:
    """An experiment of the edition from its file.

    Raises:
        ValueError: naming file and field, for a damaged file, unknown or missing fields, a case without settings and reason,
            one that is planned to take too long, or one with settings in an experiment without a kind.
    """
    plain = checked_toml(path, RealToml)
    with named_errors(str(path)):
        cases = tuple(_case(case) for case in plain.pop("case"))
        registered = {name: plain[name] for name in REGISTERED}
        fields = {name: value for name, value in plain.items() if name not in ("threshold", "rule", "chosen")}
        one = Experiment(name=path.stem, folder="cells", cases=cases, registered=registered, **{"kind": "", **fields})
    if not one.kind and any(case.settings for case in cases):
        raise ValueError(f"{path}: a case has settings and the experiment no kind: name what measures it")
    return one


def _case(plain: Mapping[str, Any]) -> Case:
    if ("real" in plain) == ("not_real" in plain):
        raise ValueError(f"case {quoted(plain['name'])} needs either settings (real) or a reason (not_real), and not both")
    if not 0 < plain["minutes"] <= MOST_MINUTES:
        raise ValueError(f"case {quoted(plain['name'])} takes {plain['minutes']} minutes: split it, at most {MOST_MINUTES:g}")
    settings = {REAL: plain["real"]} if "real" in plain else {}
    reasons = {REAL: plain["not_real"]} if "not_real" in plain else {}
    few = float(plain["quick_minutes"]) if "quick_minutes" in plain else None
    more: dict[str, Any] = {"quick": plain.get("quick", False), "minutes": float(plain["minutes"]), "quick_minutes": few}
    return Case(plain["name"], settings, reasons=reasons, **more)


def plan(experiments: Sequence[Experiment], *, quick: bool = False, n: int | None = None) -> list[dict[str, Any]]:
    """What each case of some experiments is, and how long it is planned to take on two cores."""
    return [
        {
            "experiment": one.name,
            "case": case.name,
            "n": n or (QUICK_N if quick else one.n),
            "minutes": case.quick_minutes or case.minutes if quick else case.minutes,
            "runs": REAL in case.settings,
        }
        for one in experiments
        for case in one.cases
        if case.quick or not quick
    ]
