"""Which experiments there are: a TOML file for each table, figure or claim of the paper.

A file names what the paper claims and where, the kind of measurement, and its cases. A case says what it stands for, what the
paper reported of that, and its settings in either edition: "organisms" (micro-models and the micro-world, what is run here) and
"paper" (the same experiment with the paper's models and data by their hub names). Where an edition cannot be run, the reason
stands in place of the settings.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from typeguard import TypeCheckError, check_type

from interp_transfer.names import find

FOLDER = Path(__file__).with_name("experiments")
EDITIONS = ("organisms", "paper")


class CaseToml(TypedDict):
    """A case as its file holds it."""

    name: str
    stands_for: str
    reported: str
    organisms: NotRequired[dict[str, Any]]
    paper: NotRequired[dict[str, Any]]
    not_organisms: NotRequired[str]
    not_paper: NotRequired[str]
    quick: NotRequired[bool]
    minutes: NotRequired[float]


class ExperimentToml(TypedDict):
    """An experiment's file."""

    order: int
    title: str
    where: str
    claim: str
    kind: str
    n: int
    columns: NotRequired[str]
    differs: NotRequired[str]
    case: list[CaseToml]


@dataclass(frozen=True)
class Case:
    """One cell, row or curve of an experiment.

    Attributes:
        name: what is measured.
        stands_for: what it stands for in the paper.
        reported: the paper's figures for that, as text; "not reported" where there are none.
        settings: of the measurement, by edition.
        reasons: by edition, why it is not run.
        quick: whether a quick reproduction runs it.
        minutes: what it may take on one core, organism edition; those that take longest are begun first.
    """

    name: str
    stands_for: str
    reported: str
    settings: Mapping[str, Mapping[str, Any]]
    reasons: Mapping[str, str]
    quick: bool
    minutes: float


@dataclass(frozen=True)
class Experiment:
    """A table, figure or claim of the paper.

    Attributes:
        name: of its file.
        order: where it stands on the page.
        title: in words.
        where: in the paper.
        claim: what the paper says.
        kind: of measurement.
        n: prompts of every figure.
        columns: what the columns hold, in words.
        differs: how the organism edition differs from the paper's experiment.
        cases: what is measured.
    """

    name: str
    order: int
    title: str
    where: str
    claim: str
    kind: str
    n: int
    columns: str
    differs: str
    cases: tuple[Case, ...]


@cache
def experiments() -> Mapping[str, Experiment]:
    """All experiments by name, in the order of the page."""
    found = [read(path) for path in sorted(FOLDER.glob("*.toml"))]
    return {one.name: one for one in sorted(found, key=lambda one: (one.order, one.name))}


def chosen(names: Sequence[str]) -> list[Experiment]:
    """The experiments of these names; all of them for none.

    Raises:
        ValueError: for an unknown one, naming the closest.
    """
    known = experiments()
    return [find(name, known, "experiment") for name in names] if names else list(known.values())


def read(path: Path) -> Experiment:
    """An experiment from its file.

    Raises:
        ValueError: naming file and field, for a damaged file, unknown or missing fields, or a case without settings and reason.
    """
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
        check_type(plain, ExperimentToml)
    except (tomllib.TOMLDecodeError, TypeCheckError) as error:
        raise ValueError(f"{path}: {error}") from None
    cases = tuple(_case(path, case) for case in plain["case"])
    if len({case.name for case in cases}) < len(cases):
        raise ValueError(f"{path}: two cases have one name: name each once")
    needed = {name: plain[name] for name in ("order", "title", "where", "claim", "kind", "n")}
    words = {name: plain.get(name, "") for name in ("columns", "differs")}
    return Experiment(name=path.stem, **needed, **words, cases=cases)


def _case(path: Path, plain: Mapping[str, Any]) -> Case:
    settings = {edition: plain[edition] for edition in EDITIONS if edition in plain}
    reasons = {edition: plain[f"not_{edition}"] for edition in EDITIONS if f"not_{edition}" in plain}
    for edition in EDITIONS:
        if (edition in settings) == (edition in reasons):
            raise ValueError(
                f"{path}: case {plain['name']!r} needs either settings ({edition}) or a reason (not_{edition}), and not both"
            )
    words = {name: plain[name] for name in ("name", "stands_for", "reported")}
    quick, minutes = plain.get("quick", False), float(plain.get("minutes", 1))
    return Case(**words, settings=settings, reasons=reasons, quick=quick, minutes=minutes)
