"""The page of the edition "real": what was registered beside what came out; what was not run is listed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from interp_transfer.escape import markdown
from interp_transfer.paper.assets import Measured, links, write_assets
from interp_transfer.paper.cells import Cell, Job, jobs_of, read_cell
from interp_transfer.paper.experiment import REAL, Experiment
from interp_transfer.paper.kinds import kind
from interp_transfer.paper.markdown import anchor, prose, tables
from interp_transfer.paper.registered import MOST_HOURS, plan
from interp_transfer.paper.rows import RowsByCase, Verdict
from interp_transfer.paper.runner import measure_missing
from interp_transfer.reporting.render import write_page

ANSWERS = {"yes": "reached", "in part": "reached in part", "no": "not reached", "cannot tell": "cannot tell"}
NOT_RUN = "not run"
FOLDER = "real"
"""Folder of figures and CSVs, beside the page."""


@dataclass(frozen=True)
class RealResults:
    """Experiments of the edition "real" with their cells.

    Attributes:
        experiments: in the order of the page.
        cells: what was measured, by experiment and case.
        failures: why cases failed, by experiment and case.
        quick: whether only the quick cases were run.
        page: the file of the page.
    """

    experiments: Sequence[Experiment]
    cells: Mapping[tuple[str, str], Cell]
    failures: Mapping[tuple[str, str], str]
    quick: bool
    page: Path

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """By experiment, whether what was registered came out."""
        return {one.name: self.verdict(one) for one in self.experiments}

    def rows(self, one: Experiment) -> RowsByCase:
        """The rows of each case that was run."""
        return {case.name: self.cells[one.name, case.name].rows for case in one.cases if (one.name, case.name) in self.cells}

    def verdict(self, one: Experiment) -> Verdict:
        """Whether what was registered came out."""
        rows = self.rows(one)
        if not rows:
            return Verdict(NOT_RUN, "No case was run.")
        found = kind(one.kind).verdict(rows)
        missing = len(one.cases) - len(rows)
        if missing and not self.quick:
            return Verdict(found.agrees, f"{found.sentence} {missing} of {len(one.cases)} cases were not run.", found.details)
        return found


def reproduce_real(
    experiments: Sequence[Experiment],
    out: Path,
    *,
    data: Path | None,
    page: Path | None = None,
    quick: bool = False,
    n: int | None = None,
    seed: int = 0,
    processes: int | None = None,
    measure: bool = True,
    progress: bool = True,
) -> RealResults:
    """Measure what is missing of some experiments, and write the page.

    Args:
        experiments: which; see ``experiment.choose``.
        out: folder of the cells; a run that was killed resumes from it.
        data: folder of the data sets, each in a folder of its own name.
        page: file to write; REAL.md in the folder unless given.
        quick: only a case of each, on few prompts, to see that it runs.
        n: prompts of every figure, in place of each experiment's own.
        seed: seed of all random draws.
        processes: how many run at once; one unless given, as the models take the memory.
        measure: False writes the page from the cells that there are.
        progress: show a bar.

    Raises:
        ValueError: for anything unknown and for damaged cells, before any work. A case whose data are missing is a failure.
    """
    jobs = jobs_of(experiments, REAL, quick=quick, n=n, seed=seed, data=data)
    failures = measure_missing(jobs, out, processes=processes or 1, progress=progress) if measure else {}
    cells = {job.name: cell for job in jobs if (cell := read_cell(job, out)) is not None}
    result = RealResults(experiments, cells, failures, quick, page if page is not None else out / "REAL.md")
    measured = [Measured(one, rows, result.verdict(one)) for one in experiments if (rows := result.rows(one))]
    write_assets(result.page, measured, FOLDER)
    write_page(_page(result, jobs), result.page)
    return result


def _page(result: RealResults, jobs: Sequence[Job]) -> str:
    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    template.filters |= {"escaped": markdown, "prose": prose, "anchor": anchor}
    planned = plan(result.experiments, quick=result.quick)
    cells = list(result.cells.values())
    return template.get_template("real.md.j2").render(
        command=f"interp-transfer reproduce --edition real{' --quick' if result.quick else ''} --data DIR",
        quick=result.quick,
        measured=len(cells),
        cases=len(planned),
        hours=sum(one["minutes"] for one in planned) / 60,
        most=MOST_HOURS,
        spent=sum(cell.seconds for cell in cells) / 3600,
        versions=", ".join(f"{name} {number}" for name, number in cells[0].versions.items()) if cells else "",
        seed=jobs[0].seed if jobs else 0,
        sections=[_section(result, one) for one in result.experiments],
    )


def _section(result: RealResults, one: Experiment) -> dict[str, Any]:
    """What the template says of an experiment."""
    verdict, rows_by_case, not_run, later, rows = result.verdict(one), result.rows(one), [], [], []
    for case in one.cases:
        cell = result.cells.get((one.name, case.name))
        if cell is None:
            reason = case.reasons.get(REAL) or result.failures.get((one.name, case.name)) or "not run yet"
            not_run.append(f"{case.name}: {reason} (planned: {case.minutes:g} minutes)")
            continue
        if cell.registration != one.registration:
            later.append(case.name)
        rows += [(row, {"case": "" if i else case.name}, {}) for i, row in enumerate(cell.rows)]
    answer = ANSWERS.get(verdict.agrees, verdict.agrees)
    about = {"title": one.title, "name": one.name, "columns": one.columns, "note": one.note, **one.registered}
    about |= {"answer": answer, "sentence": verdict.sentence, "details": verdict.details, "registration": one.registration}
    about |= {"tables": tables(rows), "not_run": not_run, "later": later, "run": len(one.cases) - len(not_run)}
    return about | links(one, rows_by_case, FOLDER)
