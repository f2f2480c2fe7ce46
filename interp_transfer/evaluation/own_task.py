"""A task of your own, from a JSONL of contrasts and a function that judges one completion.

It has all that `Task` asks for, so `extract`, `collect`, `compare` and `run` take it like any task of the package.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from interp_transfer.prompts.jsonl import read_jsonl
from interp_transfer.evaluation.judges.rules import Verdict, check_lengths
from interp_transfer.prompts.prompts import ContrastPair, check_split

JudgeOne = Callable[[str, str], "bool | tuple[bool, bool] | Verdict"]
"""Judges (prompt, completion): whether the intervention did what it is for; or that and whether the answer is a valid one."""

_SHARES = (("train", 0.7), ("validation", 0.85), ("test", 1.0))  # cumulative


@dataclass(frozen=True)
class Contrast:
    """One line of the file.

    Attributes:
        positive: a prompt that shows the behaviour that is wanted.
        negative: its twin that shows the unwanted one.
        answer: the right answer to both, as it continues them, leading space included; empty if not given.
        clean: a prompt that needs no intervention; `positive` if not given.
        split: "train", "validation" or "test".
    """

    positive: str
    negative: str
    answer: str
    clean: str
    split: str


@dataclass(frozen=True)
class JsonlTask:
    """A task made by `task_from_jsonl`.

    Attributes:
        name: as reports call it.
        rows: the file's lines.
        judge_one: judges (prompt, completion).
        positions: where the vector is applied.
        max_new_tokens: tokens that the longest valid answer needs.
        description: the task in plain words.
        finetune: suffix of the organisms that are tuned for it: none.
        paper: what the paper says of it: nothing.
        edition: "own".
    """

    name: str
    rows: tuple[Contrast, ...] = field(repr=False)
    judge_one: JudgeOne
    positions: str = "all"
    max_new_tokens: int = 64
    description: str = ""
    finetune: str | None = None
    paper: Mapping[str, str] = field(default_factory=dict, hash=False)
    edition: str = "own"

    def contrast(self, split: str) -> list[ContrastPair]:
        """The pairs of each line."""
        return [ContrastPair(row.positive, row.negative) for row in self._of(split)]

    def texts(self, split: str) -> list[str]:
        """The positive and the negative prompt of each line, each with the answer."""
        return list(dict.fromkeys(side + row.answer for row in self._of(split) for side in (row.positive, row.negative)))

    def prompts(self, split: str) -> list[str]:
        """The negative prompts."""
        return list(dict.fromkeys(row.negative for row in self._of(split)))

    def clean(self, split: str) -> list[str]:
        """The prompts that need no intervention."""
        return list(dict.fromkeys(row.clean for row in self._of(split)))

    def answers(self, prompts: Sequence[str]) -> list[str]:
        """The right answer to each positive or negative prompt.

        Raises:
            ValueError: for a prompt that the file has no answer to.
        """
        known = {side: row.answer for row in self.rows for side in (row.positive, row.negative) if row.answer}
        for prompt in prompts:
            if prompt not in known:
                raise ValueError(
                    f"the task {self.name!r} has no right answer to {prompt[:80]!r}: give its line an 'answer' (run needs them)"
                )
        return [known[prompt] for prompt in prompts]

    def judge(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """What the user's function says of each.

        Raises:
            ValueError: if it says neither yes or no, nor two of them, nor a `Verdict`.
        """
        check_lengths(prompts, completions)
        return [_verdict(self.judge_one(p, c), self.name) for p, c in zip(prompts, completions, strict=True)]

    def describe(self) -> str:
        """The task in plain words."""
        return self.description

    def _of(self, split: str) -> list[Contrast]:
        check_split(split)
        return [row for row in self.rows if row.split == split]


def task_from_jsonl(
    path: str | Path,
    judge: JudgeOne,
    *,
    name: str | None = None,
    positions: str = "all",
    max_new_tokens: int = 64,
    description: str = "",
) -> JsonlTask:
    """A task from a JSONL of contrasts.

    Args:
        path: each line an object with `positive` and `negative`, two full prompts, template included, of which the first shows
            the behaviour that is wanted; and perhaps with `answer` (the right answer, as it continues both prompts, leading
            space included; `run` needs it), `clean` (a prompt that needs no intervention) and `split`. Lines without a split
            get one by a hash of `negative`, always the same: 70% train, 15% validation, 15% test.
        judge: judges one completion, `judge(prompt, completion)`: whether the intervention did what it is for (then every
            success counts as intact); or that and whether the answer is a valid one, as two values; or a `Verdict`.
        name: as reports call it; the file's name, unless given.
        positions: where the vector is applied.
        max_new_tokens: tokens that the longest valid answer needs.
        description: the task in plain words, for reports.

    Raises:
        ValueError: for the first line that is wrong, or a negative prompt that is in two splits.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}: a completion has at least one token")
    rows, first = [], {}
    for number, line in read_jsonl(path, ("positive", "negative"), ("answer", "clean", "split"), strict=True):
        negative = line["negative"]
        try:
            split = check_split(line["split"]) if "split" in line else _split(negative)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        other, seen = first.setdefault(negative, (split, number))
        if other != split:
            raise ValueError(
                f"{path}, line {number}: its 'negative' is in the split {split!r}, in line {seen} it is in {other!r}: what is "
                "tested must not be fitted on"
            )
        clean = line.get("clean", line["positive"])
        rows.append(Contrast(line["positive"], negative, line.get("answer", ""), clean, split))
    called = name if name is not None else Path(path).stem
    said = description or f"{called}: {len(rows)} contrasts of {Path(path).name}, judged by {_name_of(judge)}."
    return JsonlTask(called, tuple(rows), judge, positions, max_new_tokens, said)


def _split(negative: str) -> str:
    place = int(hashlib.sha256(negative.encode()).hexdigest()[:8], 16) / 16**8
    return next(split for split, end in _SHARES if place < end)


def _verdict(said: object, name: str) -> Verdict:
    match said:
        case Verdict():
            return said
        case bool(success):
            return Verdict(success, success, "as the task's judge says")
        case (bool(success), bool(valid)):
            return Verdict(success, success and valid, "as the task's judge says")
    raise ValueError(
        f"the judge of {name!r} returned {said!r}: expected True or False, (success, valid) as two of them, or a Verdict"
    )


def _name_of(judge: JudgeOne) -> str:
    return getattr(judge, "__name__", type(judge).__name__)
