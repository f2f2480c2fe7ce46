"""What the tasks of the micro-world have in common."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from interp_transfer.evaluation.judges.rules import Verdict, check_lengths
from interp_transfer.evaluation.task import BUDGET
from interp_transfer.organisms.world import Question, Ruling, load_world
from interp_transfer.organisms.world.cues import ask, oracle, question_of

CONTRAST = 400
"""Maximum number of contrast pairs."""

TEXTS = 2600
"""Maximum number of texts, about 80,000 tokens."""

T = TypeVar("T")
_DESCRIPTIONS = tomllib.loads(Path(__file__).with_name("descriptions.toml").read_text("utf-8"))


@dataclass(frozen=True)
class WorldTask:
    """A task of the micro-world. Subclasses add ``contrast``, ``prompts``, ``clean`` and ``texts`` (see `Task`).

    Attributes:
        name: the registered name.
        max_new_tokens: number of tokens that the longest valid answer needs.
        positions: where the vector is applied.
        budget: clean KL in nats per token that an intervention may cost.
        trigger: text that sets a backdoor off, if the task has one.
        safe_trigger: its harmless twin.
        choices: the values that each option of the task can have.
    """

    name: ClassVar[str]
    max_new_tokens: ClassVar[int]
    positions: ClassVar[str] = "all"
    budget: ClassVar[float] = BUDGET
    trigger: ClassVar[str] = ""
    safe_trigger: ClassVar[str] = ""
    choices: ClassVar[Mapping[str, Sequence[str]]] = {}

    def __post_init__(self) -> None:
        """Reject unknown values of options."""
        for option, values in self.choices.items():
            if getattr(self, option) not in values:
                raise ValueError(f"unknown {option} {getattr(self, option)!r}: choose one of {', '.join(values)}")

    @property
    def description(self) -> str:
        """The task in plain words."""
        texts, options = _DESCRIPTIONS[self.name], {option: getattr(self, option) for option in self.choices}
        return texts["text"].format(options=options, **{option: texts[option][value] for option, value in options.items()})

    def answers(self, prompts: Sequence[str]) -> list[str]:
        """The wanted completion of each prompt, with its leading space."""
        return [f" {self.wanted(prompt)}" for prompt in prompts]

    def judge(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """Judge the completions, each by ``verdict``."""
        check_lengths(prompts, completions)
        return [self.verdict(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]

    def wanted(self, prompt: str) -> str:
        """The wanted completion of a prompt; the right answer unless a task overrides it."""
        return question_of(prompt).answer

    def verdict(self, prompt: str, completion: str) -> Verdict:
        """The verdict on one completion; whether the answer is valid unless a task overrides it."""
        return as_ruled(oracle(prompt, completion))


def as_ruled(ruling: Ruling) -> Verdict:
    """A verdict whose success is the validity of the answer."""
    return Verdict(ruling.valid, ruling.valid, ruling.reason)


def questions(split: str, *families: str) -> list[Question]:
    """The world's questions of a split, without the held-out subjects in "train": no mapper or vector is fitted on those."""
    return load_world().questions(split, *families, for_mapping=True)


def answered(question: Question, cue: str = "", answer: str | None = None) -> str:
    """A prompt and its answer as one text; the canonical answer unless another is passed."""
    return f"{ask(question, cue)} {question.answer if answer is None else answer}"


def in_turn(*lists: Iterable[T]) -> list[T]:
    """One item of each list in turn, until the shortest list ends."""
    return [item for items in zip(*lists, strict=False) for item in items]
