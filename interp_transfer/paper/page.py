"""The page of results: ours and the paper's numbers side by side, with n, intervals, the command and a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interp_transfer.paper.kinds import kind
from interp_transfer.paper.plan import Case, Experiment
from interp_transfer.paper.plan import experiments as known
from interp_transfer.paper.rows import Estimate, Found, Row, Value, Verdict, short
from interp_transfer.paper.runner import QUICK_N, Asked, Cell, asked, kept, measure_missing
from interp_transfer.reporting.render import visible, write_page

SAME = "the same"
"""What a case stands for that stands for the same as the one above it."""
ENOUGH = 200
"""Prompts, texts or trials that a figure should rest on."""
ANSWERS = {"yes": "agrees", "in part": "agrees in part", "no": "does not agree", "not measured": "not measured"}


@dataclass(frozen=True)
class Reproduction:
    """What was reproduced.

    Attributes:
        page: the page that was written.
        verdicts: by experiment.
        failed: why cases failed, by experiment and case.
    """

    page: Path
    verdicts: Mapping[str, Verdict]
    failed: Mapping[tuple[str, str], str]


def reproduce(
    experiments: Sequence[Experiment],
    out: str | Path,
    *,
    page: str | Path | None = None,
    edition: str = "organisms",
    quick: bool = False,
    n: int | None = None,
    seed: int = 0,
    jobs: int | None = None,
    kept_only: bool = False,
    progress: bool = True,
) -> Reproduction:
    """Measure what is missing of some experiments, and write the page.

    Args:
        experiments: which; see ``plan.chosen``.
        out: folder that cells are kept in; a killed run goes on with it.
        page: file to write; RESULTS.md in the folder unless given.
        edition: "organisms" or "paper".
        quick: only a case or two of each, on few prompts: to see that it runs.
        n: prompts of every figure, in place of each experiment's own.
        seed: of everything that is drawn.
        jobs: processes; as many as there are cores unless given.
        kept_only: measure nothing; write the page from what the folder holds.
        progress: show a bar.

    Raises:
        ValueError: for anything unknown and for damaged cells, before any work.
    """
    folder = Path(out)
    cases = asked(experiments, edition, quick=quick, n=n, seed=seed)
    failed = {} if kept_only else measure_missing(cases, folder, jobs=jobs, progress=progress)
    cells = {(one.experiment.name, one.case.name): cell for one in cases if (cell := kept(one, folder)) is not None}
    found = {one.name: _found(one, cells) for one in experiments}
    verdicts = {one.name: _verdict(one, found[one.name]) for one in experiments}
    text = _page(experiments, cases, cells, verdicts, failed, edition, quick)
    return Reproduction(write_page(text, folder / "RESULTS.md" if page is None else Path(page)), verdicts, failed)


def _found(one: Experiment, cells: Mapping[tuple[str, str], Cell]) -> Found:
    return {case.name: cells[one.name, case.name].rows for case in one.cases if (one.name, case.name) in cells}


def _verdict(one: Experiment, found: Found) -> Verdict:
    if not found:
        return Verdict("not measured", "No case was measured.")
    return kind(one.kind).verdict(found)


def _page(
    experiments: Sequence[Experiment],
    cases: Sequence[Asked],
    cells: Mapping[tuple[str, str], Cell],
    verdicts: Mapping[str, Verdict],
    failed: Mapping[tuple[str, str], str],
    edition: str,
    quick: bool,
) -> str:
    seconds = sum(cell.seconds for cell in cells.values())
    figures = [(column, v) for cell in cells.values() for row in cell.rows for column, v in row.items()]
    estimates = [v for _, v in figures if isinstance(v, Estimate)]
    bare = dict.fromkeys(column for column, v in figures if isinstance(v, float))
    everything = len(experiments) == len(known())
    given = _options(cases, quick)
    command = _command([] if everything else [one.name for one in experiments], edition, given)
    lines = [
        "# Results\n",
        f"Written by `{command}`: the paper's experiments ({edition} edition), each beside what the paper reported.",
        *(_QUICK if quick else _INTRODUCTION if edition == "organisms" else []),
        f"\nMeasured: {len(cells)} of {len(cases)} cases{_measured(seconds, cases, list(cells.values())) if cells else ''}.",
        f"\nIntervals are 95% intervals, {len(estimates)} of them on this page: about {round(0.05 * len(estimates))} can be "
        "expected to miss the truth, and the best of several cells looks better than it is. Those of means are Student's, and "
        "may reach a little beyond what is possible where a mean is next to 0."
        f"{_few(estimates, quick)} Without an interval of their own, as they are made of others, of two vectors or of what was "
        f"set: {', '.join(map(_text, bare)) or 'none'}.\n",
        "| experiment | in the paper | here | in a sentence |",
        "|---|---|---|---|",
        *(
            f"| [{_text(one.title)}](#{_anchor(one.title)}) | {_text(one.where)} | {ANSWERS[verdicts[one.name].agrees]} | "
            f"{_text(verdicts[one.name].sentence)} |"
            for one in experiments
        ),
        "",
        *(line for one in experiments for line in _section(one, cells, verdicts[one.name], failed, edition, quick, given)),
    ]
    return "\n".join(lines) + "\n"


def _options(cases: Sequence[Asked], quick: bool) -> list[str]:
    """What the command was given beside names and edition."""
    given = ["--quick"] if quick else []
    counts = {one.n for one in cases}
    if counts and counts != {QUICK_N if quick else one.experiment.n for one in cases}:
        given.append(f"--n {counts.pop()}")
    return given + ([f"--seed {cases[0].seed}"] if cases and cases[0].seed else [])


def _command(names: Sequence[str], edition: str, options: Sequence[str]) -> str:
    parts = ["interp-transfer reproduce", *names, *options]
    return " ".join([*parts, *([f"--edition {edition}"] if edition != "organisms" else [])])


def _few(estimates: Sequence[Estimate], quick: bool) -> str:
    """How many figures rest on few prompts, and on how few."""
    if quick or not (few := [v.n for v in estimates if v.n < ENOUGH]):
        return ""
    return f" {len(few)} of them are of fewer than {ENOUGH} prompts, texts or trials (the fewest: {min(few)})."


def _measured(seconds: float, cases: Sequence[Asked], cells: Sequence[Cell]) -> str:
    versions = {name: dict.fromkeys(cell.versions.get(name, "?") for cell in cells) for name in cells[0].versions}
    told = ", ".join(f"{name} {' or '.join(numbers)}" for name, numbers in versions.items())
    return f", {seconds / 60:.0f} minutes of computing, seed {cases[0].seed}, with {told}"


_INTRODUCTION = [
    "The organisms are models of a million parameters that live in a micro-world, where every answer can be judged exactly. "
    "They say whether the method does what the paper says it does, and where a claim rests on few samples, a judge or an "
    "optimiser; they say nothing about how large models behave.",
]
_QUICK = [
    "**A quick reproduction**: a case or two of each experiment, on few prompts. It shows that everything runs; do not "
    "read the figures.",
]


def _section(
    one: Experiment,
    cells: Mapping[tuple[str, str], Cell],
    verdict: Verdict,
    failed: Mapping[tuple[str, str], str],
    edition: str,
    quick: bool,
    given: Sequence[str],
) -> list[str]:
    lines = [f"## {_text(one.title)}\n", f"{_text(one.where)}. The paper: {_text(one.claim)}\n"]
    lines.append(f"**Here: {ANSWERS[verdict.agrees]}.** {_text(verdict.sentence)}\n")
    lines += [f"- {_text(detail)}." for detail in verdict.details]
    lines += [""] if verdict.details else []
    if one.differs and edition == "organisms":
        lines.append(f"{_text(one.differs)}\n")
    for header, rows in _tables(one, cells, edition):
        lines += [f"| {' | '.join(map(_text, header))} |", "|---" * len(header) + "|", *rows, ""]
    for case in one.cases:
        reason = case.reasons.get(edition) or failed.get((one.name, case.name))
        if reason is None and (one.name, case.name) not in cells:
            reason = "left out of a quick reproduction" if quick else "not measured yet"
        if reason is not None:
            lines.append(_text(f"- {_label(case, edition)} ({_reported(case)}): {reason}."))
    if lines[-1].startswith("- "):
        lines.append("")
    if one.columns:
        lines.append(f"{_text(one.columns)}\n")
    lines.append(f"`{_command([one.name], edition, given)}`\n")
    return lines


def _tables(one: Experiment, cells: Mapping[tuple[str, str], Cell], edition: str) -> list[tuple[list[str], list[str]]]:
    """Rows with the same columns make a table; the paper's figures stand in the last column of a case's first row."""
    tables: list[tuple[list[str], list[str]]] = []
    for case in one.cases:
        cell = cells.get((one.name, case.name))
        if cell is None:
            continue
        for index, row in enumerate(cell.rows):
            header = ["case", *row, "n", "the paper"]
            if not tables or tables[-1][0] != header:
                tables.append((header, []))
            first = index == 0
            told = [_label(case, edition) if first else "", *map(_value, row.values()), _n(row)]
            reported = _reported(case) if first else ""
            tables[-1][1].append(f"| {' | '.join(map(_text, [*told, reported]))} |")
    return tables


def _label(case: Case, edition: str) -> str:
    """Cases are named by the organisms; in the paper's edition by what these stand for."""
    return case.name if edition == "organisms" else case.stands_for


def _reported(case: Case) -> str:
    return "as above" if case.stands_for == SAME else f"{case.stands_for}: {case.reported}"


def _value(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, Estimate):
        return f"{short(value.value)} [{short(value.low)}, {short(value.high)}]"
    return short(value) if isinstance(value, float) else str(value)


def _n(row: Row) -> str:
    """The number of prompts behind a row's figures; both ends where they differ."""
    counts = sorted({v.n for v in row.values() if isinstance(v, Estimate)})
    return "-" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _text(text: str) -> str:
    """Text that cannot end a cell or hide anything."""
    plain = visible(text).replace("\n", " ")
    return plain.replace("|", "\\|").replace("<", "&lt;")


def _anchor(title: str) -> str:
    """The anchor that Markdown gives a heading."""
    kept_characters = (c for c in title.lower() if c.isalnum() or c in " -")
    return "".join(kept_characters).replace(" ", "-")
