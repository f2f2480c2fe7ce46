"""Cells: the stored rows of one case, with everything that they depend on.

A cell is a JSON file. It is read again only for the same method, kind, edition, n, seed and settings; otherwise the case is
measured. Until then a page shows the cell of an earlier method, marked as such.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from interp_transfer.evaluation.kept import Kept
from interp_transfer.io import write_json
from interp_transfer.paper.experiment import EDITIONS, REAL, Case, Experiment
from interp_transfer.paper.kinds import kind
from interp_transfer.paper.rows import Row, from_json, to_json

FORMAT = "interp_transfer.cell/1"
METHOD = 2
"""Version of the method, raised when figures change for the same settings. 1: strengths were chosen from a grid, random was
five directions, and mappers saw most entities that prompts are about. 2: every vector's strength is searched up to the clean-KL
budget, random is 20 directions, and mappers and vectors see half of the entities.
"""
UNCHANGED = ("finetunes",)
"""Kinds without vectors and mappers: their figures are the same by both methods."""
QUICK_N = 24
"""Prompts of every figure of a quick reproduction: enough to see that it runs, too few to trust the figures."""
PACKAGES = ("interp-transfer", "torch", "transformers", "transformer-lens", "sae-lens", "scikit-learn")


@dataclass(frozen=True)
class Job:
    """A case to measure, with everything that its figures depend on.

    Attributes:
        experiment: that the case belongs to.
        case: what is measured.
        edition: "organisms" or "paper".
        n: number of prompts of every figure.
        seed: seed of all random draws.
        data: folder of data that is given by path; where it lies changes no figure.
    """

    experiment: Experiment
    case: Case
    edition: str
    n: int
    seed: int
    data: Path | None = None

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the case in this edition."""
        return self.case.settings[self.edition]

    @property
    def name(self) -> tuple[str, str]:
        """The names of experiment and case."""
        return self.experiment.name, self.case.name

    def key(self) -> dict[str, Any]:
        """What a stored cell has to agree with, as JSON holds it."""
        settings = json.loads(json.dumps(self.settings))
        key = {"kind": self.experiment.kind, "edition": self.edition, "n": self.n, "seed": self.seed, "settings": settings}
        return key if self.experiment.kind in UNCHANGED else {"method": METHOD, **key}

    def path(self, out: Path) -> Path:
        """The file of its cell."""
        slug = "".join(c if c.isalnum() or c == "-" else "-" for c in self.case.name.lower())
        while "--" in slug:
            slug = slug.replace("--", "-")
        folder = out / self.experiment.folder / self.edition / f"n{self.n}-seed{self.seed}" / self.experiment.name
        return folder / f"{slug.strip('-')}.json"


@dataclass(frozen=True)
class Cell:
    """What was measured of a case.

    Attributes:
        rows: the figures.
        seconds: processor time of the measurement; in cells that were stored before this was so, wall-clock time.
        versions: of the packages it was measured with.
        method: version of the method, see ``METHOD``.
        registration: hash of what was registered when it was measured, see ``Experiment.registration``. It is not part of the
            key: a text that was changed afterwards does not hide the cell, and shows.
    """

    rows: tuple[Row, ...]
    seconds: float
    versions: Mapping[str, str]
    method: int = METHOD
    registration: str = ""


def jobs_of(
    experiments: Sequence[Experiment],
    edition: str = "organisms",
    *,
    quick: bool = False,
    n: int | None = None,
    seed: int = 0,
    data: Path | None = None,
) -> list[Job]:
    """The cases that can be run in an edition.

    Raises:
        ValueError: for an unknown edition or kind, n below 1, or settings that the kind does not know.
    """
    if edition not in (*EDITIONS, REAL):
        raise ValueError(f"edition={edition!r}: choose one of {', '.join((*EDITIONS, REAL))}")
    if n is not None and n < 1:
        raise ValueError(f"n={n}: give at least one prompt")
    jobs = []
    for experiment in experiments:
        for case in experiment.cases:
            if edition not in case.settings or (quick and not case.quick):
                continue
            try:
                kind(experiment.kind).check(case.settings[edition])
            except ValueError as error:
                raise ValueError(f"experiment {experiment.name!r}, case {case.name!r}: {error}") from None
            jobs.append(Job(experiment, case, edition, n or (QUICK_N if quick else experiment.n), seed, data))
    return jobs


def read_cell(job: Job, out: Path, *, earlier: bool = False) -> Cell | None:
    """The stored cell of a job; None if there is none, or one of other settings.

    Args:
        job: the case.
        out: folder of the cells.
        earlier: also take a cell of an earlier method, whose settings may differ.

    Raises:
        ValueError: for a damaged file, naming it.
    """
    path = job.path(out)
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        method = METHOD if plain["key"] == job.key() else int(plain["key"].get("method", 1))
        if plain["format"] != FORMAT or (plain["key"] != job.key() and not (earlier and method < METHOD)):
            return None
        return Cell(
            tuple(map(from_json, plain["rows"])),
            float(plain["seconds"]),
            dict(plain["versions"]),
            method,
            str(plain.get("registered", "")),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove it, and what it held is measured again") from None


def kept_in(out: Path) -> Kept:
    """Where outcomes are kept until all cases are measured."""
    return Kept(out / "unfinished")


def measure_cell(job: Job, out: Path) -> float:
    """Measure a job and store its cell; return the seconds that it took."""
    start = time.process_time()
    rows = kind(job.experiment.kind).measure(job.edition, job.n, job.seed, job.settings, job.data, kept_in(out))
    if not rows:
        raise ValueError(f"{', '.join(job.name)}: nothing was measured")
    seconds = time.process_time() - start
    path = job.path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {"format": FORMAT, "key": job.key(), "seconds": round(seconds, 1), "rows": [to_json(row) for row in rows]}
    if job.experiment.registered:
        plain["registered"] = job.experiment.registration
    write_json(path, {**plain, "versions": {name: version(name) for name in PACKAGES}})
    return seconds
