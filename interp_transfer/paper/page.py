"""The page of results: a figure of all claims, then a figure and a sentence for each experiment, its tables folded below."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from interp_transfer.escape import markdown
from interp_transfer.paper.assets import FOLDER, FOREST, Measured, alt, claims_of, counts, forest_alt, links, write_assets
from interp_transfer.paper.cells import METHOD, QUICK_N, Cell, Job, jobs_of, read_cell
from interp_transfer.paper.experiment import Case, Experiment
from interp_transfer.paper.experiment import experiments as known_experiments
from interp_transfer.paper.kinds import kind
from interp_transfer.paper.markdown import prose, tables
from interp_transfer.paper.rows import RowsByCase, Verdict
from interp_transfer.paper.runner import measure_missing
from interp_transfer.paper.svg import VERDICTS
from interp_transfer.reporting.render import write_page
from interp_transfer.stats import Estimate

SAME = "the same"
"""``stands_for`` of a case that stands for the same as the one before it."""
ENOUGH = 200
"""Prompts, texts or trials that a figure should rest on."""
ANSWERS = {word: words for word, (words, _) in VERDICTS.items()}
"""A verdict in words."""


@dataclass(frozen=True)
class Reproduction:
    """Experiments with their cells.

    Attributes:
        experiments: in the order of the page.
        jobs: the cases that can be run in this edition.
        cells: what was measured, by experiment and case.
        failures: why cases failed, by experiment and case.
        edition: "organisms" or "paper".
        quick: whether only the quick cases were run.
        page: the file of the page.
    """

    experiments: Sequence[Experiment]
    jobs: Sequence[Job]
    cells: Mapping[tuple[str, str], Cell]
    failures: Mapping[tuple[str, str], str]
    edition: str = "organisms"
    quick: bool = False
    page: Path = field(default=Path("RESULTS.md"))

    def rows(self, experiment: Experiment) -> RowsByCase:
        """The rows of each case that was measured."""
        names = [case.name for case in experiment.cases if (experiment.name, case.name) in self.cells]
        return {name: self.cells[experiment.name, name].rows for name in names}

    @property
    def measured(self) -> list[Measured]:
        """The experiments of which anything was measured, with rows and verdict."""
        return [Measured(one, rows, self.verdict(one)) for one in self.experiments if (rows := self.rows(one))]

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """By experiment, whether the organisms agree with the paper."""
        return {one.name: self.verdict(one) for one in self.experiments}

    def verdict(self, experiment: Experiment) -> Verdict:
        """Whether the organisms agree with what the paper says."""
        rows = self.rows(experiment)
        return kind(experiment.kind).verdict(rows) if rows else Verdict("not measured", "No case was measured.")


def reproduce(
    experiments: Sequence[Experiment],
    out: str | Path,
    *,
    page: str | Path | None = None,
    edition: str = "organisms",
    quick: bool = False,
    n: int | None = None,
    seed: int = 0,
    processes: int | None = None,
    measure: bool = True,
    progress: bool = True,
) -> Reproduction:
    """Measure what is missing of some experiments, and write the page.

    Args:
        experiments: which; see ``experiment.choose``.
        out: folder of the cells; a run that was killed resumes from it.
        page: file to write, with figures and CSVs in `results` beside it; RESULTS.md in the folder unless given.
        edition: "organisms" or "paper".
        quick: only a case or two of each, on few prompts, to see that it runs.
        n: prompts of every figure, in place of each experiment's own.
        seed: seed of all random draws.
        processes: how many run at once; the number of cores unless given.
        measure: False writes the page from the cells that there are.
        progress: show a bar.

    Raises:
        ValueError: for anything unknown and for damaged cells, before any work.
    """
    folder = Path(out)
    jobs = jobs_of(experiments, edition, quick=quick, n=n, seed=seed)
    failures = measure_missing(jobs, folder, processes=processes, progress=progress) if measure else {}
    cells = {job.name: cell for job in jobs if (cell := read_cell(job, folder, earlier=not quick)) is not None}
    file = folder / "RESULTS.md" if page is None else Path(page)
    result = Reproduction(experiments, jobs, cells, failures, edition, quick, file)
    write_assets(file, result.measured)
    write_page(_page(result), file)
    return result


def _page(result: Reproduction) -> str:
    cells, verdicts = list(result.cells.values()), result.verdicts
    figures = [(column, v) for cell in cells for row in cell.rows for column, v in row.items()]
    estimates = [v for _, v in figures if isinstance(v, Estimate)]
    everything = len(result.experiments) == len(known_experiments())
    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    template.filters |= {"escaped": markdown, "prose": prose}
    claims = claims_of(result.measured)
    return template.get_template("results.md.j2").render(
        command=_command(result, [] if everything else [one.name for one in result.experiments]),
        edition=result.edition,
        quick=result.quick,
        counts=counts(claims) if claims else "",
        forest=f"{FOLDER}/figures/{FOREST}" if claims else "",
        forest_alt=alt(forest_alt(claims)) if claims else "",
        measured=f"{len(cells)} of {len(result.jobs)} cases{_measured(result) if cells else ''}",
        estimates=len(estimates),
        misses=round(0.05 * len(estimates)),
        few=_few(estimates, result.quick),
        bare=list(dict.fromkeys(column for column, v in figures if isinstance(v, float))),
        earlier=sum(cell.method < METHOD for cell in cells),
        sections=[_section(result, one, verdicts[one.name]) for one in result.experiments],
    )


def _command(result: Reproduction, names: Sequence[str]) -> str:
    edition = [f"--edition {result.edition}"] if result.edition != "organisms" else []
    return " ".join(["interp-transfer reproduce", *names, *_options(result), *edition])


def _options(result: Reproduction) -> list[str]:
    """The options of the command besides names and edition."""
    options = ["--quick"] if result.quick else []
    counts = {job.n for job in result.jobs}
    if counts and counts != {QUICK_N if result.quick else job.experiment.n for job in result.jobs}:
        options.append(f"--n {counts.pop()}")
    return options + ([f"--seed {result.jobs[0].seed}"] if result.jobs and result.jobs[0].seed else [])


def _few(estimates: Sequence[Estimate], quick: bool) -> str:
    """How many figures rest on few prompts, and on how few."""
    few = [v.n for v in estimates if v.n < ENOUGH]
    if quick or not few:
        return ""
    return f" {len(few)} of them are of fewer than {ENOUGH} prompts, texts or trials (the fewest: {min(few)})."


def _measured(result: Reproduction) -> str:
    cells = list(result.cells.values())
    versions = {name: dict.fromkeys(cell.versions.get(name, "?") for cell in cells) for name in cells[0].versions}
    packages = ", ".join(f"{name} {' or '.join(numbers)}" for name, numbers in versions.items())
    return f", seed {result.jobs[0].seed}, with {packages}"


def _section(result: Reproduction, one: Experiment, verdict: Verdict) -> dict[str, Any]:
    """What the template says of an experiment."""
    reasons = []
    for case in one.cases:
        reason = case.reasons.get(result.edition) or result.failures.get((one.name, case.name))
        if reason is None and (one.name, case.name) not in result.cells:
            reason = "left out of a quick reproduction" if result.quick else "not measured yet"
        if reason is not None:
            reasons.append(f"{_label(case, result.edition)} ({_reported(case)}): {reason}")
    about = {name: getattr(one, name) for name in ("title", "where", "claim", "columns")}
    first, *rest = re.split(r"(?<=\.) (?=[A-Z])", verdict.sentence)
    about |= {"answer": ANSWERS[verdict.agrees], "sentence": first, "more": " ".join(rest), "details": verdict.details}
    about |= links(one, result.rows(one))
    about["earlier"] = [
        _label(case, result.edition)
        for case in one.cases
        if (cell := result.cells.get((one.name, case.name))) is not None and cell.method < METHOD
    ]
    about |= {"differs": one.differs if result.edition == "organisms" else "", "tables": _tables(result, one)}
    return about | {"reasons": reasons, "command": _command(result, [one.name])}


def _tables(result: Reproduction, one: Experiment) -> list[str]:
    """The tables of an experiment; the paper's figures are in the last column of a case's first row."""
    rows = []
    by_name = {case.name: case for case in one.cases}
    for name, of_case in result.rows(one).items():
        label, reported = _label(by_name[name], result.edition), _reported(by_name[name])
        rows += [(row, {"case": "" if i else label}, {"the paper": "" if i else reported}) for i, row in enumerate(of_case)]
    return tables(rows)


def _label(case: Case, edition: str) -> str:
    """The name of a case: that of its organisms, or in the edition "paper" what they stand for."""
    return case.name if edition == "organisms" else case.stands_for


def _reported(case: Case) -> str:
    return "as above" if case.stands_for == SAME else f"{case.stands_for}: {case.reported}"
