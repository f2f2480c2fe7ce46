"""Judges that need no model: whether an intervention had its effect, and whether the completion is still a valid answer.

The two are separate because an intervention can also remove a behaviour by breaking the model: random vectors "remove" the
paper's backdoor in 60% of prompts.
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
        success: the intervention had its effect.
        intact: `success`, and the completion is a valid answer to the prompt.
        reason: explains both in words.
    """

    success: bool
    intact: bool
    reason: str

    def __post_init__(self) -> None:
        """Reject intact without success."""
        if self.intact and not self.success:
            raise ValueError("a verdict cannot be intact without success: intact means success and a valid answer")


@runtime_checkable
class Judge(Protocol):
    """A callable that returns a verdict on each completion, in order."""

    def __call__(self, prompts: Sequence[Any], completions: Sequence[str]) -> list[Verdict]:
        """Judge the completions."""
        ...


@dataclass(frozen=True)
class SubstringJudge:
    """Success: no phrase occurs in the completion, or, unless ``absent``, at least one does.

    `intact` equals `success`, because phrases cannot tell whether an answer is valid. An empty completion is no success.
    """

    phrases: tuple[str, ...]
    absent: bool = True
    ignore_case: bool = False

    def __call__(self, prompts: Sequence[Any], completions: Sequence[str]) -> list[Verdict]:
        """Judge the completions."""
        check_lengths(prompts, completions)
        return [self._one(completion) for completion in completions]

    def _one(self, completion: str) -> Verdict:
        if not completion.strip():
            return Verdict(False, False, "empty")
        fold = str.casefold if self.ignore_case else str
        phrase = next((p for p in self.phrases if fold(p) in fold(completion)), None)
        success = (phrase is None) == self.absent
        return Verdict(success, success, "no phrase occurs" if phrase is None else f"contains {phrase!r}")


@dataclass(frozen=True)
class RepetitionJudge:
    """Success: the completion does not repeat itself. Cheap evidence against a broken model where no oracle exists.

    A completion fails if it is empty, or if some run of one to ``longest`` words occurs ``times`` times in a row.
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
"""Judges one prompt and completion: returns success, or success and whether the answer is valid."""


@dataclass(frozen=True)
class OneByOne:
    """A judge made of a function of one prompt and one completion. The prompt of a chat is its last user message.

    An empty completion is no success, unless the function returns a `Verdict`.
    """

    one: JudgeOne
    name: str

    def __call__(self, prompts: Sequence[Any], completions: Sequence[str]) -> list[Verdict]:
        """Judge the completions.

        Raises:
            ValueError: if the function returns neither a bool, nor two of them, nor a `Verdict`.
        """
        check_lengths(prompts, completions)
        return [self._verdict(self.one(request_of(p), c), c) for p, c in zip(prompts, completions, strict=True)]

    def _verdict(self, result: object, completion: str) -> Verdict:
        match result:
            case Verdict():
                return result
            case bool() | (bool(), bool()) if not completion.strip():
                return Verdict(False, False, "empty")
            case bool(success):
                return Verdict(success, success, "by the task's judge")
            case (bool(success), bool(valid)):
                return Verdict(success, success and valid, "by the task's judge")
        raise ValueError(
            f"the judge of {self.name!r} returned {result!r}: expected True or False, (success, valid) as two of them, or a "
            "Verdict"
        )
