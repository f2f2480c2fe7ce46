"""Judges that need no model: what an intervention did to an answer, and whether the answer is still right.

A judge gives two verdicts on each completion. `success`: the intervention did what it is for. `intact`: it did so and
the completion is a valid answer. They are kept apart because removing a behaviour by breaking the model is no success
(random vectors "remove" the paper's backdoor in 60% of prompts).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from interp_transfer.prompts.chats import request_of


@dataclass(frozen=True)
class Verdict:
    """The judgement of one completion.

    Attributes:
        success: the intervention did what it is for.
        intact: `success`, and the completion is a valid answer to the prompt.
        reason: in words.
    """

    success: bool
    intact: bool
    reason: str

    def __post_init__(self) -> None:
        """An answer can only be intact if the intervention succeeded."""
        if self.intact and not self.success:
            raise ValueError("a verdict cannot be intact without success: intact means success and a valid answer")


@runtime_checkable
class Judge(Protocol):
    """Anything that turns prompts and their completions into verdicts, one for each, in order."""

    def __call__(self, prompts: Sequence[Any], completions: Sequence[str]) -> list[Verdict]:
        """Judge the completions."""
        ...


@dataclass(frozen=True)
class SubstringJudge:
    """Success: none of the phrases occurs (`absent`, the default), or one does. Says nothing about validity.

    `intact` equals `success`, because a substring knows nothing about right answers; that is why this judge is fooled.
    """

    phrases: tuple[str, ...]
    absent: bool = True
    ignore_case: bool = False

    def __call__(self, prompts: Sequence[Any], completions: Sequence[str]) -> list[Verdict]:
        """Judge the completions."""
        check_lengths(prompts, completions)
        return [self._one(completion) for completion in completions]

    def _one(self, completion: str) -> Verdict:
        fold = str.casefold if self.ignore_case else str
        found = next((p for p in self.phrases if fold(p) in fold(completion)), None)
        success = (found is None) == self.absent
        return Verdict(success, success, "no phrase occurs" if found is None else f"contains {found!r}")


@dataclass(frozen=True)
class RepetitionJudge:
    """Success: the completion does not go in circles. Cheap evidence of a broken model where no oracle exists.

    Broken means: some run of one to `longest` words is repeated `times` times in a row, or the completion is empty.
    """

    times: int = 4
    longest: int = 8

    def __call__(self, prompts: Sequence[Any], completions: Sequence[str]) -> list[Verdict]:
        """Judge the completions."""
        check_lengths(prompts, completions)
        return [self._one(completion) for completion in completions]

    def _one(self, completion: str) -> Verdict:
        words = re.findall(r"\w+|[^\w\s]", completion)
        if not words:
            return Verdict(False, False, "empty")
        for size in range(1, self.longest + 1):
            for start in range(len(words) - size * self.times + 1):
                run = words[start : start + size]
                if words[start : start + size * self.times] == run * self.times:
                    return Verdict(False, False, f"repeats {' '.join(run)!r}")
        return Verdict(True, True, "no repetition")


def check_lengths(prompts: Sequence[Any], completions: Sequence[str]) -> None:
    """Raise `ValueError` unless there is one completion for each prompt."""
    if isinstance(prompts, str) or isinstance(completions, str):
        raise ValueError("judges take lists of prompts and completions, not a single string: put it in a list")
    if len(prompts) != len(completions):
        raise ValueError(f"{len(prompts)} prompts but {len(completions)} completions: a judge needs one for each")


JudgeOne = Callable[[str, str], "bool | tuple[bool, bool] | Verdict"]
"""Judges one (prompt, completion): whether the intervention did what it is for; or that and whether the answer is valid."""


@dataclass(frozen=True)
class OneByOne:
    """A judge made of a function of one prompt and one completion. Of a chat the function is passed the last user message."""

    one: JudgeOne
    name: str

    def __call__(self, prompts: Sequence[Any], completions: Sequence[str]) -> list[Verdict]:
        """Judge the completions.

        Raises:
            ValueError: if the function returns neither a bool, nor two of them, nor a `Verdict`.
        """
        check_lengths(prompts, completions)
        return [self._verdict(self.one(request_of(p), c)) for p, c in zip(prompts, completions, strict=True)]

    def _verdict(self, said: object) -> Verdict:
        match said:
            case Verdict():
                return said
            case bool(success):
                return Verdict(success, success, "as the task's judge says")
            case (bool(success), bool(valid)):
                return Verdict(success, success and valid, "as the task's judge says")
        raise ValueError(
            f"the judge of {self.name!r} returned {said!r}: expected True or False, (success, valid) as two of them, or a "
            "Verdict"
        )
