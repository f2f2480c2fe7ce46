"""A task of the user's own, from one file of theirs: it goes wherever a task of the package goes."""

import importlib.util
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from interp_transfer.evaluation.own_task import JsonlTask, task_from_jsonl

import interp_transfer as it
from interp_transfer.evaluation.judges.rules import Verdict
from interp_transfer.evaluation.task import Task

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_task.py"


def example() -> Any:
    spec = importlib.util.spec_from_file_location("own_task", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path: Path, *lines: Any) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def yes(_: str, completion: str) -> bool:
    return "no" not in completion


def made(tmp_path: Path, *lines: Any, judge: Any = yes) -> JsonlTask:
    return task_from_jsonl(write(tmp_path / "mine.jsonl", *lines), judge)


def test_it_is_a_task(tmp_path: Path):
    task = made(
        tmp_path,
        {"positive": "a", "negative": "b", "answer": " x", "clean": "c", "split": "train"},
        "",
        {"positive": "d", "negative": "e", "split": "test"},
        {"positive": "a", "negative": "e", "answer": None, "split": "test"},
    )
    assert isinstance(task, Task)
    assert (task.name, task.edition, task.positions, task.max_new_tokens) == ("mine", "own", "all", 64)
    assert task.contrast("train") == [it.ContrastPair("a", "b")]
    assert task.texts("train") == ["a x", "b x"]
    assert (task.clean("train"), task.clean("test")) == (["c"], ["d", "a"])
    assert (task.prompts("test"), task.prompts("validation")) == (["e"], [])
    assert task.answers(["b", "a"]) == [" x", " x"]
    assert "yes" in task.describe()
    with pytest.raises(ValueError, match="no right answer to 'e'"):
        task.answers(["e"])
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        task.prompts("dev")


def test_splits_that_are_not_given_are_drawn_by_the_negative_prompt_and_always_the_same(tmp_path: Path):
    lines = [{"positive": f"good {i}", "negative": f"bad {i // 2}"} for i in range(4000)]
    task = made(tmp_path, *lines)
    sizes = {split: len(task.prompts(split)) for split in ("train", "validation", "test")}
    assert sum(sizes.values()) == 2000, "a negative prompt is in one split alone"
    assert 0.66 < sizes["train"] / 2000 < 0.74
    assert 0.12 < sizes["validation"] / 2000 < 0.18
    assert made(tmp_path, *reversed(lines)).rows == tuple(reversed(task.rows))


@pytest.mark.parametrize(
    ("said", "expected"),
    [(True, (True, True)), (False, (False, False)), ((True, False), (True, False)), ((False, True), (False, False))],
)
def test_a_judge_may_say_one_thing_or_two(tmp_path: Path, said: Any, expected: tuple[bool, bool]):
    task = made(tmp_path, {"positive": "a", "negative": "b"}, judge=lambda p, c: said)
    assert [(v.success, v.intact) for v in task.judge(["b"], ["x"])] == [expected]


def test_a_judge_may_give_a_verdict_but_nothing_else(tmp_path: Path):
    verdict = Verdict(True, False, "because")
    assert made(tmp_path, {"positive": "a", "negative": "b"}, judge=lambda p, c: verdict).judge(["b"], ["x"]) == [verdict]
    with pytest.raises(ValueError, match="judge of 'mine' returned 0.7: expected True or False"):
        made(tmp_path, {"positive": "a", "negative": "b"}, judge=lambda p, c: 0.7).judge(["b"], ["x"])


GOOD = {"positive": "a", "negative": "b", "split": "train"}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ({"positive": "a"}, r"line 2: 'negative' is missing: expected an object with 'positive', 'negative', and perhaps"),
        ({"positve": "a", "negative": "b"}, r"line 2: 'positive' is missing: did you mean 'positve'\?"),
        ({**GOOD, "anwser": "c"}, "line 2: unknown column 'anwser'"),
        ({**GOOD, "answer": 3}, "line 2: 'answer' is a int, not a string"),
        ({**GOOD, "split": "dev"}, "line 2: unknown split 'dev'"),
        ({**GOOD, "split": "test"}, "line 2: its 'negative' is in the split 'test', in line 1 it is in 'train'"),
        ("[1]", "line 2: not an object"),
        ("{", "line 2: not JSON"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: Any, error: str):
    with pytest.raises(ValueError, match=error):
        made(tmp_path, GOOD, line)


def test_a_wrong_file_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="cannot read .*nowhere.jsonl.: No such file"):
        task_from_jsonl(tmp_path / "nowhere.jsonl", yes)
    with pytest.raises(ValueError, match="is empty"):
        made(tmp_path, "")


def test_the_example_compares(tmp_path: Path, organism_s: Any, organism_m: Any):
    """Its vector, moved by a map, does to the backdoor what the native one does, and a random one does not."""
    own = example()
    task = replace(own.my_task(tmp_path), max_new_tokens=16)
    assert Counter(row.split for row in task.rows) == own.LINES
    vector = it.extract(organism_s, task.contrast("train"), own.SOURCE_SITE)
    texts = task.texts("train")
    pairs = it.collect(organism_s, organism_m, texts, own.SOURCE_SITE, own.TARGET_SITE, progress=False)
    moved = it.fit(pairs, "affine", progress=False).transfer(vector)
    result = it.compare(organism_m, task, {"moved": it.add(moved)}, n=12, progress=False)
    rates = {name: c.success.value for name, c in result.conditions.items()}
    assert rates["unsteered"] == 0.0
    assert rates["moved"] > rates["random"] + 0.2


@pytest.mark.slow
def test_the_example_runs_through_the_whole_pipeline(tmp_path: Path):
    own = example()
    task = replace(own.my_task(tmp_path), max_new_tokens=8)
    result = it.run(
        task,
        own.SOURCE,
        own.TARGET,
        mapper="affine",
        source_site=own.SOURCE_SITE,
        target_site=own.TARGET_SITE,
        n=6,
        strengths=(1.0,),
        variants=False,
        out=tmp_path / "run",
        progress=False,
    )
    assert (result.task, result.details["description"]) == ("kindness", task.describe())
    assert set(result.conditions) >= {"unsteered", "native", "moved", "random", "shuffled", "forced_first_token"}
    assert (tmp_path / "run" / "report.html").is_file()
