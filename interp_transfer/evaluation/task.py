"""Tasks: what is steered, on which prompts, and when it has worked.

A task is a value. `Task.from_pairs` makes one from a list of contrast pairs and a judge, `Task.from_jsonl` from a file; other
packages register theirs by name (``plugins``), and `load_task` looks them up.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from interp_transfer.escape import visible
from interp_transfer.evaluation.judges.named import as_judge, name_of
from interp_transfer.evaluation.judges.rules import Judge
from interp_transfer.names import misplaced
from interp_transfer.plots.cards import card, columns
from interp_transfer.prompts.chats import Prompt, as_prompt, as_user_message, with_answer
from interp_transfer.prompts.contrast import ContrastPair, Pairs, check_split, sides
from interp_transfer.prompts.jsonl import read_jsonl

BUDGET = 0.01
"""Clean KL, in nats per token, that an intervention may cost unless the task or the user sets another limit."""

DESCRIBED = 200
"""Characters of the description in a task's ``repr``."""
PAIRS_SHOWN = 3
"""Pairs of the contrast that a task draws in a notebook."""

_SHARES = (("train", 0.7), ("validation", 0.85), ("test", 1.0))  # cumulative


Readings = Callable[[Sequence[Any], Sequence[str]], dict[str, list[bool | None]]]
"""Further ways to read completions, by name; None where a reading does not apply to a completion."""


@dataclass(frozen=True, repr=False)
class Task:
    """A behaviour that is steered. ``split`` is "train", "validation" or "test" everywhere; any other raises ``ValueError``.

    Attributes:
        name: as reports call it.
        judge: ``judge(prompts, completions)`` gives a verdict on each completion, of clean prompts too.
        contrast: ``contrast(split)`` gives pairs of prompts; the positive one shows the behaviour that is wanted.
        prompts: ``prompts(split)`` gives prompts that show the unwanted behaviour when nothing is done.
        clean: ``clean(split)`` gives prompts that need no intervention, on which its cost is measured.
        texts: ``texts(split)`` gives whole texts, prompt and answer, that mappers are fitted on.
        answers: ``answers(prompts)`` gives a right answer to each prompt as it continues the prompt, leading space included.
            Without it, what needs right answers is left out of a run.
        positions: where the vector is applied, see ``activations.positions``.
        read: the tokens of the contrast's prompts that the vector is extracted from.
        max_new_tokens: length of completions.
        budget: clean KL that an intervention may cost, in nats per token.
        description: the task in plain words.
        options: what `load_task` was called with, defaults included.
        trigger: text in a prompt that sets the behaviour off, if one does.
        safe_trigger: its harmless twin.
        group: the group that a prompt belongs to, for results by group.
        valid: whether a completion is a valid answer to a prompt, whatever the behaviour.
        readings: further ways to read completions.
        differ: indices of the completions on which a second judge disagrees with ``judge``.
        training: ``training(split)`` gives (prompt, response) pairs that a model is tuned on.
        recipe: hyper-parameters of that tuning, see ``finetuning``.
        instruction: system prompt that asks for the behaviour. With one, the model under it, without a vector, is one more
            condition of a run.
        skills: see ``plugins.KnownModel.skills``.
        opposite: makes the same task in the other direction (induce in place of remove).
        texts_are_prompts: ``texts`` are the prompts of the contrast without answers, because nothing better was given.
    """

    name: str
    judge: Judge
    contrast: Callable[[str], list[ContrastPair]]
    prompts: Callable[[str], list[Any]]
    clean: Callable[[str], list[Any]]
    texts: Callable[[str], list[Any]]
    answers: Callable[[Sequence[Any]], list[str]] | None = None
    positions: Any = "all"
    read: Any = "last"
    max_new_tokens: int = 64
    budget: float = BUDGET
    description: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    trigger: str = ""
    safe_trigger: str = ""
    group: Callable[[Any], str] | None = None
    valid: Callable[[Any, str], bool] | None = None
    readings: Readings | None = None
    differ: Callable[[Sequence[Any], Sequence[str]], list[int]] | None = None
    training: Callable[[str], list[tuple[str, str]]] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict, hash=False)
    skills: Callable[..., Sequence[Mapping[str, Any]]] | None = None
    opposite: Callable[[], "Task"] | None = None
    texts_are_prompts: bool = False
    instruction: str = ""

    def __repr__(self) -> str:
        from interp_transfer.activations.positions import describe  # imports torch, which the name of a task does not need

        judged: Any = getattr(self.judge, "__self__", self.judge)  # a method's repr has its object's, whole
        judge = getattr(judged, "__name__", type(judged).__name__)
        about = f"{self.description[:DESCRIBED]}..." if len(self.description) > DESCRIBED else self.description
        return visible(
            f"Task({self.name}: {about}\n  judge {judge}, vector read at {describe(self.read)}, applied at "
            f"{describe(self.positions)}, {self.max_new_tokens} new tokens, budget {self.budget:g} nats per token)"
        )

    def _repr_html_(self) -> str:
        rows = [(str(pair.positive), str(pair.negative)) for pair in self.contrast("train")[:PAIRS_SHOWN]]
        return card(repr(self), columns(("positive", "negative"), rows))

    @classmethod
    def from_pairs(
        cls,
        pairs: Pairs | Mapping[str, Pairs],
        judge: Any,
        *,
        texts: Iterable[Any] | Mapping[str, Iterable[Any]] | None = None,
        clean: Iterable[Any] | Mapping[str, Iterable[Any]] | None = None,
        answers: Mapping[Any, str] | Sequence[str] | None = None,
        name: str = "task",
        positions: Any = "all",
        read: Any = "last",
        max_new_tokens: int = 64,
        budget: float = BUDGET,
        description: str = "",
        instruction: str = "",
        seed: int = 0,
    ) -> "Task":
        """A task from contrast pairs and a judge.

        Args:
            pairs: (positive, negative) prompts, the behaviour that is wanted first. Each side is a text, or a chat: a list of
                messages. A list is split 70/15/15 into train, validation and test by a hash of the negative side; or give
                ``{"train": [...], "validation": [...], "test": [...]}``.
            judge: the name of a judge (see ``judges.load``), or a function of one prompt and one completion that returns
                whether the intervention did what it is for; or that and whether the answer is valid; or a ``Verdict``.
                Of a chat it is passed the last user message.
            texts: whole texts that mappers are fitted on, all for training or by split; the prompts of both sides, with their
                answers where these are given, unless given.
            clean: prompts that need no intervention; the positive sides unless given. A list is split as pairs are.
            answers: a right answer to each prompt of either side, as it continues the prompt, leading space included: by
                prompt, or one for each pair of a list of pairs.
            name: as reports call it.
            positions: where the vector is applied.
            read: the tokens of both prompts that the vector is extracted from.
            max_new_tokens: length of completions.
            budget: clean KL that an intervention may cost, in nats per token.
            description: the task in plain words, for reports.
            instruction: system prompt that asks for the behaviour, a baseline that needs no vector.
            seed: of the split.

        Raises:
            ValueError: for pairs that are none, a prompt in two splits, pairs whose two sides are equal, or an unknown judge.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens}: a completion has at least one token")
        by_split = _pairs_by_split(pairs, seed)
        known = _answers(pairs, answers)
        prompts = {s: _once(pair.negative for pair in part) for s, part in by_split.items()}
        kept = {s: _once(pair.positive for pair in part) for s, part in by_split.items()}
        if clean is not None:
            kept = _by_split(clean, seed)
        if texts is None:
            both = {s: _once(p for pair in part for p in (pair.positive, pair.negative)) for s, part in by_split.items()}
            whole = {s: [with_answer(p, known.get(p, "")) for p in part] for s, part in both.items()}
        else:
            given = texts if isinstance(texts, Mapping) else {"train": texts}
            whole = {check_split(s): [as_prompt(text) for text in part] for s, part in given.items()}

        def right(asked: Sequence[Any]) -> list[str]:
            if missing := [prompt for prompt in asked if prompt not in known]:
                raise ValueError(
                    f"the task {name!r} has no right answer to {str(missing[0])[:80]!r}: give answers= for every prompt, or "
                    "none"
                )
            return [known[prompt] for prompt in asked]

        count = sum(map(len, by_split.values()))
        return cls(
            name=name,
            judge=as_judge(judge, name),
            contrast=_reader(by_split),
            prompts=_reader(prompts),
            clean=_reader(kept),
            texts=_reader(whole),
            answers=right if known else None,
            texts_are_prompts=texts is None and not known,
            positions=positions,
            read=read,
            max_new_tokens=max_new_tokens,
            budget=budget,
            instruction=instruction,
            description=description or f"{name}: {count} contrast pairs, judged by {name_of(judge)}.",
        )

    @classmethod
    def from_jsonl(
        cls,
        path: str | Path,
        judge: Any,
        *,
        name: str | None = None,
        chat: bool = False,
        system: str | None = None,
        **options: Any,
    ) -> "Task":
        """A task from a JSONL file, one contrast a line.

        Args:
            path: each line is an object with ``positive`` and ``negative``, each a text or a list of messages; and optionally
                ``answer`` (a right answer to both), ``clean`` (a prompt that needs no intervention) and ``split``.
            judge: as in `from_pairs`.
            name: as reports call it; the name of the file unless given.
            chat: make each text a chat of one message by the user, which every model renders by its own template.
            system: system prompt of every chat; implies ``chat``.
            options: of `from_pairs`.

        Raises:
            ValueError: for the first line that is wrong, or a negative prompt that is in two splits.
        """
        rows = read_jsonl(path, ("positive", "negative"), ("answer", "clean", "split"), strict=True, chats=True)
        seed = options.get("seed", 0)
        pairs: dict[str, list[ContrastPair]] = {split: [] for split, _ in _SHARES}
        clean: dict[str, list[Prompt]] = {split: [] for split, _ in _SHARES}
        answers: dict[Prompt, str] = {}
        first: dict[Prompt, tuple[str, int]] = {}

        def read(prompt: Any) -> Prompt:
            return as_user_message(prompt, system) if chat or system is not None else as_prompt(prompt)

        for number, line in rows:
            try:
                positive, negative, kept = map(read, (line["positive"], line["negative"], line.get("clean", line["positive"])))
                split = check_split(line["split"]) if "split" in line else split_of(negative, seed)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            other, seen = first.setdefault(negative, (split, number))
            if other != split:
                raise ValueError(
                    f"{path}, line {number}: its 'negative' is in the split {split!r}, in line {seen} it is in {other!r}: what "
                    "is tested must not be fitted on"
                )
            pairs[split].append(ContrastPair(positive, negative))
            clean[split].append(kept)
            if "answer" in line:
                answers |= {positive: line["answer"], negative: line["answer"]}
        called = name if name is not None else Path(path).stem
        return cls.from_pairs(pairs, judge, clean=clean, answers=answers or None, name=called, **options)

    @classmethod
    def from_object(cls, source: Any, **changes: Any) -> "Task":
        """A task from an object that has the fields of a task as attributes or methods; others of its attributes are left out.

        Args:
            source: the object. What it lacks gets the default.
            changes: fields that replace those of the object.
        """
        there = {f.name: getattr(source, f.name) for f in fields(cls) if hasattr(source, f.name)}
        return cls(**there | changes)


def check_task(task: Any) -> None:
    """Check that an argument is a task.

    Raises:
        ValueError: for a name, pairs or anything else.
    """
    if not isinstance(task, Task):
        load = (
            f"it.load_task({task!r})" if isinstance(task, str) else "it.load_task(name) or it.Task.from_pairs(pairs, judge=...)"
        )
        raise misplaced(task, "a task", f"make one with {load}")


def split_of(prompt: Prompt, seed: int = 0) -> str:
    """The split of a prompt: 70% train, 15% validation, 15% test, by a hash, always the same for one seed."""
    text = str(prompt) if seed == 0 else f"{seed}\n{prompt}"
    place = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8
    return next(split for split, end in _SHARES if place < end)


def _pairs_by_split(pairs: Pairs | Mapping[str, Pairs], seed: int) -> dict[str, list[ContrastPair]]:
    found: dict[str, list[ContrastPair]] = {split: [] for split, _ in _SHARES}
    if isinstance(pairs, Mapping):
        for split, part in pairs.items():
            found[check_split(split)] = [ContrastPair(*two) for two in zip(*sides(part), strict=True)] if part else []
        sides([pair for part in found.values() for pair in part])  # refuses a contrast without any pair
    else:
        for positive, negative in zip(*sides(pairs), strict=True):
            found[split_of(negative, seed)].append(ContrastPair(positive, negative))
    where: dict[Prompt, str] = {}
    for split, part in found.items():
        for pair in part:
            if pair.positive == pair.negative:
                raise ValueError(
                    f"both sides of a pair are {str(pair.negative)[:80]!r}: a contrast needs two different prompts"
                )
            if where.setdefault(pair.negative, split) != split:
                raise ValueError(
                    f"the negative prompt {str(pair.negative)[:80]!r} is in the splits {where[pair.negative]} and {split}: "
                    "what is tested must not be fitted on"
                )
    return found


def _by_split(given: Iterable[Any] | Mapping[str, Iterable[Any]], seed: int) -> dict[str, list[Prompt]]:
    if isinstance(given, Mapping):
        return {check_split(split): _once(map(as_prompt, part)) for split, part in given.items()}
    found: dict[str, list[Prompt]] = {split: [] for split, _ in _SHARES}
    for prompt in _once(map(as_prompt, given)):
        found[split_of(prompt, seed)].append(prompt)
    return found


def _answers(pairs: Any, answers: Any) -> dict[Prompt, str]:
    """The right answer to each prompt that one is given for."""
    if answers is None:
        return {}
    if isinstance(answers, Mapping):
        return {as_prompt(prompt): str(answer) for prompt, answer in answers.items()}
    if isinstance(pairs, Mapping) or isinstance(answers, str) or len(answers) != len(pairs):
        count = "by split" if isinstance(pairs, Mapping) else len(pairs)
        raise ValueError(
            f"{len(answers)} answers for pairs given {count}: give one for each pair of a list, or a dict by prompt"
        )
    return {prompt: answer for two, answer in zip(zip(*sides(pairs), strict=True), answers, strict=True) for prompt in two}


def _once(prompts: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(prompts))


def _reader(by_split: Mapping[str, list[Any]]) -> Callable[[str], list[Any]]:
    return lambda split: list(by_split.get(check_split(split), []))
