"""Asking, keeping and replaying; no model is needed for that."""

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.evaluation.judges import Item, ModelJudge, Opinion, Threshold, ask
from interp_transfer.evaluation.judges.conditions import judge_conditions
from interp_transfer.evaluation.judges.rules import Judge
from interp_transfer.stats import mean_interval


@dataclass(frozen=True)
class Lengths:
    """Scores the length of completions; "?" is never judged, "!" not this time; stops before "stop"."""

    version: int = 1
    compares: bool = False
    seen: list[Item] = field(default_factory=list)
    dies_at: str = ""

    @property
    def name(self) -> str:
        return "length"

    @property
    def scale(self) -> str:
        return "characters"

    @property
    def needs_reference(self) -> bool:
        return self.compares

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"judge": "length", "version": self.version}

    def opinions(self, items: Sequence[Item]) -> Generator[tuple[int, Opinion], None, None]:
        for index in reversed(range(len(items))):  # any order is allowed
            item = items[index]
            self.seen.append(item)
            if item.completion == self.dies_at:
                raise KeyboardInterrupt
            if item.completion == "stop":
                return
            if item.completion in ("?", "!"):
                yield index, Opinion(None, f"kind {item.completion}: no", final=item.completion == "?")
            else:
                score = len(item.completion) - len(item.reference or "")
                yield index, Opinion(float(score), f"{item.completion!r}")


def test_opinions_come_back_in_order_and_equal_questions_are_asked_once():
    judge = Lengths()
    assert isinstance(judge, ModelJudge)
    judged = ask(judge, ["p", "p", "q", "p"], ["a", "bbb", "a", "a"], progress=False)
    assert [o.score for o in judged.opinions] == [1, 3, 1, 1]
    assert len(judge.seen) == 3
    assert (judged.missing, judged.left, judged.replayed) == (0, [], 0)


def test_missing_ones_are_counted_and_those_that_are_not_final_are_left():
    judged = ask(Lengths(), ["p"] * 4, ["?", "ab", "!", "?"], progress=False)
    assert (judged.missing, judged.left) == (3, [2])
    assert judged.why_missing == {"kind ?": 2, "kind !": 1}
    assert judged.scores == [2.0]
    assert "3 missing (2 kind ?, 1 kind !)" in repr(judged)


def test_what_was_never_asked_is_left():
    judged = ask(Lengths(), ["p"] * 3, ["a", "stop", "b"], progress=False)  # asked from the last to the first
    assert judged.left == [0, 1]
    assert judged.opinions[0].reason.startswith("not asked")


def test_a_finished_run_replays_without_asking(tmp_path: Path):
    first = ask(Lengths(), ["p", "q"], ["a", "?"], cache=tmp_path, progress=False)
    judge = Lengths()
    again = ask(judge, ["p", "q"], ["a", "?"], cache=tmp_path, progress=False)
    assert (again.opinions, again.replayed, judge.seen) == (first.opinions, 2, [])


@pytest.mark.parametrize("what", ["version", "prompt", "completion", "reference"])
def test_anything_that_changes_the_question_asks_again(tmp_path: Path, what: str):
    ask(Lengths(compares=True), ["p"], ["c"], ["r"], cache=tmp_path, progress=False)
    judge = Lengths(version=2 if what == "version" else 1, compares=True)
    texts = [["x"] if what == name else [old] for name, old in (("prompt", "p"), ("completion", "c"), ("reference", "r"))]
    assert ask(judge, *texts, cache=tmp_path, progress=False).replayed == 0
    assert len(judge.seen) == 1


def test_a_killed_run_goes_on(tmp_path: Path):
    prompts, texts = ["p"] * 4, ["a", "bb", "ccc", "dddd"]
    with pytest.raises(KeyboardInterrupt):
        ask(Lengths(dies_at="bb"), prompts, texts, cache=tmp_path, progress=False)
    judge = Lengths()
    judged = ask(judge, prompts, texts, cache=tmp_path, progress=False)
    assert (judged.replayed, judged.scores) == (2, [1, 2, 3, 4])
    assert [item.completion for item in judge.seen] == ["bb", "a"]


def test_what_is_not_final_is_asked_again(tmp_path: Path):
    ask(Lengths(), ["p", "p"], ["!", "?"], cache=tmp_path, progress=False)
    judge = Lengths()
    assert ask(judge, ["p", "p"], ["!", "?"], cache=tmp_path, progress=False).replayed == 1
    assert [item.completion for item in judge.seen] == ["!"]


def damaged(line: str) -> dict[str, str]:
    plain = json.loads(line)
    return {
        "cut off": line[:-9],
        "another score": json.dumps({**plain, "score": 5.0}),
        "no object": "[1]",
        "not JSON": "{nonsense",
        "score is a text": json.dumps({**plain, "score": "1"}),
        "infinite": line.replace('"score": 1.0', '"score": Infinity'),
        "deep": "[" * 100_000,
        "another format": json.dumps({"format": "else/1"}),
        "not text": "\udcff\udcfe",
    }


@pytest.mark.parametrize("how", [*damaged('{"score": 1.0}')])
def test_a_damaged_entry_is_named_and_asked_again(tmp_path: Path, how: str):
    ask(Lengths(), ["p", "p"], ["a", "bb"], cache=tmp_path, progress=False)
    [file] = tmp_path.iterdir()
    lines = file.read_text().splitlines()
    assert json.loads(lines[2])["score"] == 1.0
    lines[2] = damaged(lines[2])[how]
    file.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))  # without a line break at the end
    judge = Lengths()
    judged = ask(judge, ["p", "p"], ["a", "bb"], cache=tmp_path, progress=False)
    assert ([item.completion for item in judge.seen], judged.scores, judged.replayed) == (["a"], [1, 2], 1)
    [named] = judged.damaged
    assert f"{file.name}, line 3" in named
    assert "1 damaged" in repr(judged)
    again = ask(Lengths(), ["p", "p"], ["a", "bb"], cache=tmp_path, progress=False)  # the new line is whole
    assert (again.scores, again.replayed) == ([1, 2], 2)


def test_texts_of_any_sort_are_kept(tmp_path: Path):
    texts = ["\ud800 half", "line\nbreak", '"quote"', "\x00", "😀", "\u2028"]
    first = ask(Lengths(), texts, texts, cache=tmp_path, progress=False)
    again = ask(Lengths(), texts, texts, cache=tmp_path, progress=False)
    assert (again.opinions, again.replayed, again.damaged) == (first.opinions, len(texts), ())


def test_a_cache_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot keep opinions in .*file"):
        ask(Lengths(), ["p"], ["a"], cache=tmp_path / "file", progress=False)


def test_bad_lists():
    with pytest.raises(ValueError, match="1 prompts but 2"):
        ask(Lengths(), ["p"], ["a", "b"])
    with pytest.raises(ValueError, match="give references="):
        ask(Lengths(compares=True), ["p"], ["a"])
    with pytest.raises(ValueError, match="2 prompts but 1"):
        ask(Lengths(compares=True), ["p", "q"], ["a", "b"], ["r"])
    assert ask(Lengths(), [], []).opinions == ()


def test_references_are_kept_from_judges_that_do_not_compare():
    judge = Lengths()
    ask(judge, ["p"], ["a"], ["r"], progress=False)
    assert judge.seen == [Item("p", "a")]


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_is_a_number(score: float):
    with pytest.raises(ValueError, match="finite"):
        Opinion(score, "")


def test_verdicts_by_a_threshold():
    high = Threshold(Lengths(), at_least=2)
    assert isinstance(high, Judge)
    verdicts = high(["p"] * 3, ["a", "bb", "?"])
    assert [(v.success, v.intact) for v in verdicts] == [(False, False), (True, True), (False, False)]
    assert verdicts[2].reason == "missing, kind ?: no"
    assert "length 2" in verdicts[1].reason
    assert [v.success for v in Threshold(Lengths(), at_most=1)(["p"] * 2, ["a", "bb"])] == [True, False]
    compared = Threshold(Lengths(compares=True), at_least=0, references={"p": "xx"})
    assert [v.success for v in compared(["p"] * 2, ["a", "bb"])] == [False, True]
    with pytest.raises(ValueError, match="no reference for the prompt 'q'"):
        compared(["q"], ["a"])
    with pytest.raises(ValueError, match="give one of the two"):
        Threshold(Lengths())
    with pytest.raises(ValueError, match="give one of the two"):
        Threshold(Lengths(), at_least=1, at_most=2)


def test_a_task_takes_such_a_judge(tmp_path: Path):
    file = tmp_path / "task.jsonl"
    file.write_text('{"positive": "p", "negative": "n"}\n')
    task = it.Task.from_jsonl(file, judge=Threshold(Lengths(), at_least=2))
    assert [v.success for v in task.judge(["p", "n"], ["a", "bb"])] == [False, True]


def test_conditions_side_by_side(tmp_path: Path):
    said = {"unsteered": ["a", "bb"], "native": ["ccc", "?"], "moved": ["!", "?"]}
    found = judge_conditions(Lengths(), ["p", "q"], said, cache=tmp_path, progress=False)
    assert found.conditions["unsteered"].scores == [1, 2]
    assert found.mean("unsteered") == mean_interval([1.0, 2.0])
    assert found.mean("moved") is None
    assert (found.every.missing, found.every.left, found.every.why_missing) == (3, [4], {"kind ?": 2, "kind !": 1})
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["conditions"]["native"] == {
        "mean": 3.0,
        "low": 3.0,
        "high": 3.0,
        "n": 1,
        "missing": 1,
        "left": [],
        "opinions": [{"score": 3.0, "reason": "'ccc'"}, {"score": None, "reason": "kind ?: no"}],
    }
    assert plain["conditions"]["moved"]["mean"] is None
    assert "unsteered" in repr(found)


def test_comparisons_are_with_the_native_condition():
    said = {"unsteered": ["a", "bb"], "native": ["ccc", "d"], "moved": ["e", "ffff"]}
    found = judge_conditions(Lengths(compares=True), ["p", "q"], said, progress=False)
    assert found.against == "native"
    assert {name: judged.scores for name, judged in found.conditions.items()} == {"unsteered": [-2, 1], "moved": [-2, 3]}
    other = judge_conditions(Lengths(compares=True), ["p", "q"], said, against="unsteered", progress=False)
    assert list(other.conditions) == ["native", "moved"]
    del said["native"]
    assert judge_conditions(Lengths(compares=True), ["p", "q"], said, progress=False).against == "unsteered"
    with pytest.raises(ValueError, match="'nothing', which there is not: unsteered, moved"):
        judge_conditions(Lengths(compares=True), ["p", "q"], said, against="nothing")
    with pytest.raises(ValueError, match="leave it out"):
        judge_conditions(Lengths(), ["p", "q"], said, against="unsteered")
    with pytest.raises(ValueError, match="nothing to judge"):
        judge_conditions(Lengths(compares=True), ["p"], {"native": ["a"]})
