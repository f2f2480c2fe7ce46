"""Experiments: a TOML file for each table, figure or claim of the paper, and for each table of the documentation.

A file of `experiments` names what the paper claims and where, the kind of measurement, and its cases. A case says what it
stands for, what the paper reported of that (in the field `point` also the one number that the figure of all claims shows), and
its settings in either edition: "organisms" (micro-models and the micro-world, which is run here) and "paper" (the same
experiment with the paper's models and data by their hub names). Where an edition cannot be run, the reason takes the place of
the settings. A file of `tables` has the kind of measurement and its cases alone.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from interp_transfer.io import named_errors, typed
from interp_transfer.names import find, quoted

EXPERIMENTS, TABLES = (Path(__file__).with_name(name) for name in ("experiments", "tables"))
EDITIONS = ("organisms", "paper")
REAL = "real"
"""The edition of pretrained models, whose experiments are other ones, see ``registered``."""


class TableCaseToml(TypedDict):
    """A case of a table as its file holds it."""

    name: str
    organisms: dict[str, Any]
    quick: NotRequired[bool]
    minutes: NotRequired[float]


class TableToml(TypedDict):
    """The file of a table of the documentation."""

    kind: str
    n: int
    note: NotRequired[str]
    case: list[TableCaseToml]


class CaseToml(TypedDict):
    """A case of an experiment as its file holds it."""

    name: str
    stands_for: str
    reported: str
    point: NotRequired[float]
    organisms: NotRequired[dict[str, Any]]
    paper: NotRequired[dict[str, Any]]
    not_organisms: NotRequired[str]
    not_paper: NotRequired[str]
    quick: NotRequired[bool]
    minutes: NotRequired[float]


class ExperimentToml(TypedDict):
    """The file of an experiment of the paper."""

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
    """One row, curve or block of a table: what is measured at once and stored in one cell.

    Attributes:
        name: what is measured.
        settings: of the measurement, by edition.
        stands_for: what it stands for in the paper.
        reported: the paper's figures for that, as text; "not reported" where there are none.
        reasons: by edition, why it is not run.
        quick: whether a quick reproduction runs it.
        minutes: expected time on one core in the edition "organisms"; the longest cases are started first.
        point: the paper's figure for what `headline` of the kind measures; None where the paper has none.
        quick_minutes: expected time in a quick reproduction; ``minutes`` if None.
    """

    name: str
    settings: Mapping[str, Mapping[str, Any]]
    stands_for: str = ""
    reported: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict, hash=False)
    quick: bool = False
    minutes: float = 1.0
    point: float | None = None
    quick_minutes: float | None = None


@dataclass(frozen=True)
class Experiment:
    """A table, figure or claim of the paper, or a table of the documentation.

    Attributes:
        name: of its file.
        folder: that its cells are stored in: "cells" for experiments of the paper, "tables" for the documentation.
        kind: of measurement.
        n: number of prompts of every figure.
        cases: what is measured.
        order: its place on the page.
        title: in words.
        where: in the paper.
        claim: what the paper says.
        columns: what the columns hold, in words.
        differs: how the edition "organisms" differs from the paper's experiment.
        note: what is printed below the table.
        registered: of the edition "real": what was written down before its cells were measured, see ``registered``.
    """

    name: str
    folder: str
    kind: str
    n: int
    cases: tuple[Case, ...]
    order: int = 0
    title: str = ""
    where: str = ""
    claim: str = ""
    columns: str = ""
    differs: str = ""
    note: str = ""
    registered: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def registration(self) -> str:
        """A hash of what was registered; empty if nothing was."""
        return hashlib.sha256(json.dumps(self.registered, sort_keys=True).encode()).hexdigest()[:16] if self.registered else ""


@cache
def experiments() -> Mapping[str, Experiment]:
    """All experiments of the paper by name, in the order of the page."""
    read = [read_experiment(path) for path in sorted(EXPERIMENTS.glob("*.toml"))]
    return {one.name: one for one in sorted(read, key=lambda one: (one.order, one.name))}


@cache
def tables() -> Mapping[str, Experiment]:
    """All tables of the documentation by name."""
    return {path.stem: read_table(path) for path in sorted(TABLES.glob("*.toml"))}


def choose(names: Sequence[str], known: Mapping[str, Experiment]) -> list[Experiment]:
    """The experiments of these names; all of them for none.

    Raises:
        ValueError: for an unknown one, naming the closest.
    """
    return [find(name, known, "experiment") for name in names] if names else list(known.values())


def read_experiment(path: Path) -> Experiment:
    """An experiment of the paper from its file.

    Raises:
        ValueError: naming file and field, for a damaged file, unknown or missing fields, or a case without settings and reason.
    """
    plain = checked_toml(path, ExperimentToml)
    for case in plain["case"]:
        for edition in EDITIONS:
            if (edition in case) == (f"not_{edition}" in case):
                either = f"settings ({edition}) or a reason (not_{edition})"
                raise ValueError(f"{path}: case {quoted(case['name'])} needs either {either}, and not both")
    return _experiment(path, plain, "cells")


def read_table(path: Path) -> Experiment:
    """A table of the documentation from its file.

    Raises:
        ValueError: naming file and field, for a damaged file, unknown or missing fields.
    """
    return _experiment(path, checked_toml(path, TableToml), "tables")


def checked_toml(path: Path, schema: type) -> dict[str, Any]:
    """The file of an experiment, whose fields are those of a schema.

    Raises:
        ValueError: naming file and field, for a damaged file, unknown or missing fields, or two cases of one name.
    """
    with named_errors(str(path)):
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
        typed(plain, schema)
    if len({case["name"] for case in plain["case"]}) < len(plain["case"]):
        raise ValueError(f"{path}: two cases have one name: name each once")
    return plain


def _experiment(path: Path, plain: dict[str, Any], folder: str) -> Experiment:
    fields = {name: value for name, value in plain.items() if name != "case"}
    with named_errors(str(path)):  # integers beyond any float
        return Experiment(name=path.stem, folder=folder, cases=tuple(map(_case, plain["case"])), **fields)


def _case(plain: Mapping[str, Any]) -> Case:
    settings = {edition: plain[edition] for edition in EDITIONS if edition in plain}
    reasons = {edition: plain[f"not_{edition}"] for edition in EDITIONS if f"not_{edition}" in plain}
    more = {name: plain[name] for name in ("stands_for", "reported", "point", "quick") if name in plain}
    return Case(plain["name"], settings, reasons=reasons, minutes=float(plain.get("minutes", 1)), **more)
