"""The page of results: our numbers and the paper's, with n, intervals, the command and a sentence for each experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from interp_transfer.paper.cells import QUICK_N, Cell, Job, jobs_of, read_cell
from interp_transfer.paper.experiment import Case, Experiment
from interp_transfer.paper.experiment import experiments as known_experiments
from interp_transfer.paper.kinds import kind
from interp_transfer.paper.markdown import anchor, escaped, tables
from interp_transfer.paper.rows import RowsByCase, Verdict
from interp_transfer.paper.runner import measure_missing
from interp_transfer.reporting.render import write_page
from interp_transfer.stats import Estimate

SAME = "the same"
"""``stands_for`` of a case that stands for the same as the one before it."""
ENOUGH = 200
"""Prompts, texts or trials that a figure should rest on."""
ANSWERS = {"yes": "agrees", "in part": "agrees in part", "no": "does not agree", "not measured": "not measured"}


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
        page: file to write; RESULTS.md in the folder unless given.
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
    cells = {job.name: cell for job in jobs if (cell := read_cell(job, folder)) is not None}
    file = folder / "RESULTS.md" if page is None else Path(page)
    result = Reproduction(experiments, jobs, cells, failures, edition, quick, file)
    write_page(_page(result), file)
    return result


def _page(result: Reproduction) -> str:
    cells, verdicts = list(result.cells.values()), result.verdicts
    figures = [(column, v) for cell in cells for row in cell.rows for column, v in row.items()]
    estimates = [v for _, v in figures if isinstance(v, Estimate)]
    bare = dict.fromkeys(column for column, v in figures if isinstance(v, float))
    everything = len(result.experiments) == len(known_experiments())
    command = _command(result, [] if everything else [one.name for one in result.experiments])
    introduction = _QUICK if result.quick else _INTRODUCTION if result.edition == "organisms" else []
    lines = [
        "# Results\n",
        f"Written by `{command}`: the paper's experiments (edition {result.edition}), with what the paper reported.",
        *introduction,
        f"\nMeasured: {len(cells)} of {len(result.jobs)} cases{_measured(result) if cells else ''}.",
        f"\nIntervals are 95% intervals, {len(estimates)} of them on this page: about {round(0.05 * len(estimates))} can be "
        "expected to miss the truth, and the best of several cells looks better than it is. Those of means are Student's, and "
        "may reach a little beyond what is possible where a mean is next to 0."
        f"{_few(estimates, result.quick)} Without an interval of their own, as they are made of others, of two vectors or of "
        f"what was set: {', '.join(map(escaped, bare)) or 'none'}.\n",
        "| experiment | in the paper | here | in a sentence |",
        "|---|---|---|---|",
        *(
            f"| [{escaped(one.title)}](#{anchor(one.title)}) | {escaped(one.where)} | {ANSWERS[verdicts[one.name].agrees]} | "
            f"{escaped(verdicts[one.name].sentence)} |"
            for one in result.experiments
        ),
        "",
        *(line for one in result.experiments for line in _section(result, one, verdicts[one.name])),
    ]
    return "\n".join(lines) + "\n"


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
    minutes = sum(cell.seconds for cell in cells) / 60
    return f", {minutes:.0f} minutes of computing, seed {result.jobs[0].seed}, with {packages}"


_INTRODUCTION = [
    "The organisms are models of a million parameters that live in a micro-world, where every answer can be judged exactly. "
    "They say whether the method does what the paper says it does, and where a claim rests on few samples, a judge or an "
    "optimiser; they say nothing about how large models behave.",
]
_QUICK = [
    "**A quick reproduction**: a case or two of each experiment, on few prompts. It shows that everything runs; do not "
    "read the figures.",
]


def _section(result: Reproduction, one: Experiment, verdict: Verdict) -> list[str]:
    lines = [f"## {escaped(one.title)}\n", f"{escaped(one.where)}. The paper: {escaped(one.claim)}\n"]
    lines.append(f"**Here: {ANSWERS[verdict.agrees]}.** {escaped(verdict.sentence)}\n")
    lines += [f"- {escaped(detail)}." for detail in verdict.details]
    lines += [""] if verdict.details else []
    if one.differs and result.edition == "organisms":
        lines.append(f"{escaped(one.differs)}\n")
    lines += [f"{table}\n" for table in _tables(result, one)]
    for case in one.cases:
        reason = case.reasons.get(result.edition) or result.failures.get((one.name, case.name))
        if reason is None and (one.name, case.name) not in result.cells:
            reason = "left out of a quick reproduction" if result.quick else "not measured yet"
        if reason is not None:
            lines.append(escaped(f"- {_label(case, result.edition)} ({_reported(case)}): {reason}."))
    if lines[-1].startswith("- "):
        lines.append("")
    if one.columns:
        lines.append(f"{escaped(one.columns)}\n")
    lines.append(f"`{_command(result, [one.name])}`\n")
    return lines


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
