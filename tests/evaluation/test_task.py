"""A task from two lists, or from a file."""

import json
from pathlib import Path
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.evaluation.judges.rules import Verdict
from interp_transfer.evaluation.task import Task


def write(path: Path, *lines: Any) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def yes(_: str, completion: str) -> bool:
    return "no" not in completion


def made(tmp_path: Path, *lines: Any, judge: Any = yes) -> Task:
    return Task.from_jsonl(write(tmp_path / "mine.jsonl", *lines), judge)


def test_it_is_a_task(tmp_path: Path):
    task = made(
        tmp_path,
        {"positive": "a", "negative": "b", "answer": " x", "clean": "c", "split": "train"},
        "",
        {"positive": "d", "negative": "e", "split": "test"},
        {"positive": "a", "negative": "e", "answer": None, "split": "test"},
    )
    assert isinstance(task, Task)
    assert (task.name, task.positions, task.max_new_tokens) == ("mine", "all", 64)
    assert task.contrast("train") == [it.ContrastPair("a", "b")]
    assert task.texts("train") == ["a x", "b x"]
    assert (task.clean("train"), task.clean("test")) == (["c"], ["d", "a"])
    assert (task.prompts("test"), task.prompts("validation")) == (["e"], [])
    assert task.answers is not None
    assert task.answers(["b", "a"]) == [" x", " x"]
    assert "yes" in task.description
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
    assert made(tmp_path, *reversed(lines)).contrast("train") == task.contrast("train")[::-1]


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
        Task.from_jsonl(tmp_path / "nowhere.jsonl", yes)
    with pytest.raises(ValueError, match="is empty"):
        made(tmp_path, "")


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
PAIRS = [(f"good {i}", f"bad {i}") for i in range(40)]


def test_three_lines_make_a_task_of_two_lists():
    task = Task.from_pairs(PAIRS, "lacks:no")
    by_split = {split: task.contrast(split) for split in ("train", "validation", "test")}
    assert sorted((p.positive, p.negative) for part in by_split.values() for p in part) == sorted(PAIRS)
    assert task.prompts("train") == [p.negative for p in by_split["train"]]
    assert task.clean("train") == [p.positive for p in by_split["train"]]
    assert set(task.texts("train")) == {side for p in by_split["train"] for side in (p.positive, p.negative)}
    assert task.answers is None
    assert [v.success for v in task.judge(["bad 1", "bad 1"], ["yes", "no"])] == [True, False]
    assert Task.from_pairs(PAIRS, "lacks:no", seed=1).contrast("train") != by_split["train"]


def test_splits_texts_clean_prompts_and_answers_may_be_given():
    task = Task.from_pairs(
        {"train": PAIRS[:2], "test": PAIRS[2:4]},
        yes,
        texts=["one", "two"],
        clean={"test": ["calm"]},
        answers={"good 2": " fine", "bad 2": " fine"},
        name="mine",
        positions="last",
    )
    assert (task.texts("train"), task.texts("test"), task.clean("test")) == (["one", "two"], [], ["calm"])
    assert task.answers is not None and task.answers(["bad 2"]) == [" fine"]
    assert [str(task.contrast(split)[0].negative) for split in ("train", "test")] == ["bad 0", "bad 2"]
    each = Task.from_pairs(PAIRS, yes, answers=[f" {i}" for i in range(40)])
    assert each.answers is not None and each.answers(["bad 3", "good 3"]) == [" 3", " 3"]


def test_a_side_may_be_a_chat_and_a_judge_reads_its_last_user_message():
    seen = []
    other = [*CHAT[:1], {"role": "user", "content": "Go away!"}]
    task = Task.from_pairs([(CHAT, other)] * 2, lambda prompt, completion: not seen.append((prompt, completion)))
    [split] = [split for split in ("train", "validation", "test") if task.prompts(split)]
    [prompt] = task.prompts(split)
    assert prompt.to_list() == other and task.contrast(split)[0].positive.to_list() == CHAT
    assert task.judge([prompt], ["ok"])[0].success and seen == [("Go away!", "ok")]


def test_a_file_may_hold_chats(tmp_path: Path):
    task = made(tmp_path, {"positive": CHAT, "negative": "b", "answer": " x", "split": "test"})
    assert task.contrast("test")[0].positive.to_list() == CHAT
    assert task.answers is not None and task.answers(["b"]) == [" x"]


@pytest.mark.parametrize(
    ("pairs", "options", "error"),
    [
        ([], {}, "the contrast is empty"),
        (["a", "b"], {}, "not of single texts"),
        ([("a",)], {}, "give two texts or chats"),
        ([("a", 3)], {}, "give two texts or chats"),
        ([("a", [{"role": "user"}])], {}, "give two texts or chats"),
        ([("a", "a")], {}, "both sides of a pair are 'a'"),
        ({"train": [("a", "b")], "test": [("c", "b")]}, {}, "'b' is in the splits train and test"),
        ({"dev": [("a", "b")]}, {}, "unknown split 'dev'"),
        (PAIRS, {"judge": "no_refusel"}, "unknown judge 'no_refusel': did you mean 'no_refusal'"),
        (PAIRS, {"judge": 3}, "is 3: give the name of a judge"),
        (PAIRS, {"answers": [" x"]}, "1 answers for pairs given 40"),
        (PAIRS, {"max_new_tokens": 0}, "at least one token"),
    ],
)
def test_what_makes_no_task_is_refused(pairs: Any, options: dict[str, Any], error: str):
    with pytest.raises(ValueError, match=error):
        Task.from_pairs(pairs, **{"judge": yes, **options})


@pytest.mark.parametrize(
    "line",
    [
        "[" * 20_000,
        '{"positive": ' + "9" * 5000 + ', "negative": "b"}',
        '{"positive": "a \\ud800", "negative": "b"}',
        '{"positive": "a", "negative": "b", "split": "' + "x" * 100_000 + '"}',
        '{"positive": "a", "negative": "b", "' + "x" * 100_000 + '": ""}',
        '{"positive": [{"role": "' + "x" * 100_000 + '"}], "negative": "b"}',
    ],
)
def test_a_line_that_cannot_be_read_gives_one_short_error(line: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine.jsonl, line 1: ") as error:
        Task.from_jsonl(write(tmp_path / "mine.jsonl", line), "contains:a")
    assert len(str(error.value)) < 800 and str(error.value).isprintable()
