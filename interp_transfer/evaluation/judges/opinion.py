"""What a judge that needs a model thinks of completions: scores with reasons, some of which may be missing.

A model can fail to judge: an endpoint times out, a guard answers in verse. So an opinion has a score or none, and always a
reason; what is missing is counted, never filled in. `ask` puts the questions, keeps every final opinion in a cache as it comes,
and asks nothing twice: a run that was killed or ran out of its budget goes on, and a finished one replays without the model.
`Threshold` makes verdicts of opinions, so that such a judge can stand wherever a `Judge` is asked for.
"""

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tqdm.auto import tqdm

from interp_transfer.activations.capture import SECONDS_BEFORE_PROGRESS
from interp_transfer.evaluation.judges.rules import Verdict, check_lengths
from interp_transfer.prompts.chats import Prompt, request_of


@dataclass(frozen=True)
class Opinion:
    """A judge's opinion of one completion.

    Attributes:
        score: on the judge's scale, or None if it is missing.
        reason: in words; of a missing one "kind: what happened", where kinds are counted.
        final: asking again would change nothing. An endpoint that could not be reached gave no final opinion.
    """

    score: float | None
    reason: str
    final: bool = True

    def __post_init__(self) -> None:
        """A score is a number, and whoever gave one has finished."""
        if self.score is not None and not (isfinite(self.score) and self.final):
            raise ValueError(f"an opinion with score {self.score} and final={self.final}: a score is finite, and final")

    @property
    def missing(self) -> bool:
        """Whether there is no score."""
        return self.score is None


@dataclass(frozen=True)
class Item:
    """What a judge is shown: a prompt, its completion and, for judges that compare, another completion of the prompt."""

    prompt: str
    completion: str
    reference: str | None = None


@runtime_checkable
class ModelJudge(Protocol):
    """A judge that has a model behind it.

    Attributes:
        name: as tables call it.
        identity: whatever its opinions depend on, as plain data: model, wording, settings. Part of the cache's keys.
        scale: its scores in words: unit, range, which end is good.
        needs_reference: it compares completions with references.
    """

    @property
    def name(self) -> str:
        """As tables call it."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """Whatever its opinions depend on."""
        ...

    @property
    def scale(self) -> str:
        """Its scores in words."""
        ...

    @property
    def needs_reference(self) -> bool:
        """Whether it compares completions with references."""
        ...

    def opinions(self, items: Sequence[Item]) -> Generator[tuple[int, Opinion], None, None]:
        """Opinions with the numbers of their items, in any order, as soon as they are there."""
        ...


@dataclass(frozen=True, repr=False)
class Judged:
    """The opinions on some completions.

    Attributes:
        judge: name of the judge.
        opinions: one of each completion, in order.
        replayed: how many of them were in the cache.
        damaged: entries of the cache that could not be read, by file and line; what they held was asked again.
    """

    judge: str
    opinions: tuple[Opinion, ...]
    replayed: int = 0
    damaged: tuple[str, ...] = ()

    @property
    def scores(self) -> list[float]:
        """The scores that are there."""
        return [opinion.score for opinion in self.opinions if opinion.score is not None]

    @property
    def missing(self) -> int:
        """How many have no score."""
        return sum(opinion.missing for opinion in self.opinions)

    @property
    def left(self) -> list[int]:
        """Numbers of the completions that asking again may still bring an opinion of."""
        return [index for index, opinion in enumerate(self.opinions) if not opinion.final]

    @property
    def why_missing(self) -> dict[str, int]:
        """How many are missing, by the kind of reason, the most frequent first."""
        kinds = Counter(opinion.reason.split(":", 1)[0] for opinion in self.opinions if opinion.missing)
        return dict(kinds.most_common())

    def __repr__(self) -> str:
        scores = self.scores
        mean = f"mean {sum(scores) / len(scores):.3g}" if scores else "no score"
        why = ", ".join(f"{count} {kind}" for kind, count in self.why_missing.items())
        missing = f", {self.missing} missing ({why})" if why else ""
        left = f", {len(self.left)} left to do" if self.left else ""
        damaged = f", {len(self.damaged)} damaged cache entries asked again" if self.damaged else ""
        return f"Judged by {self.judge}: {len(scores)} scores, {mean}{missing}{left}, {self.replayed} replayed{damaged}"


def ask(
    judge: ModelJudge,
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    references: Sequence[str] | None = None,
    *,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Judged:
    """What a judge thinks of completions. Equal questions are asked once.

    Args:
        judge: who is asked.
        prompts: as the model read them.
        completions: one of each prompt.
        references: likewise, for judges that compare; other judges are not shown them.
        cache: folder of opinions; final ones are kept there as they come, and are not asked for again.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: for lists of different lengths, missing references, and where asking is pointless: an endpoint that refuses
            the key. What was finished by then is in the cache.
    """
    from interp_transfer.evaluation.judges.cache import OpinionCache, key_of

    check_lengths(prompts, completions)
    if judge.needs_reference and references is None:
        raise ValueError(f"{judge.name} compares completions: give references=, another completion of each prompt")
    if references is not None:
        check_lengths(prompts, references)
    shown: Sequence[str | None] = references if judge.needs_reference and references is not None else [None] * len(prompts)
    items = [Item(request_of(p), c, s) for p, c, s in zip(prompts, completions, shown, strict=True)]
    who = judge.identity  # once: it may hash a model's weights
    keys = [key_of(who, item) for item in items]
    kept = OpinionCache.open(cache, who) if cache is not None else None
    found = {key: kept.known[key] for key in keys if key in kept.known} if kept is not None else {}
    replayed = sum(key in found for key in keys)
    todo = {key: item for key, item in zip(keys, items, strict=True) if key not in found}
    order = list(todo)
    with (
        tqdm(total=len(order), desc=judge.name, delay=SECONDS_BEFORE_PROGRESS, disable=not progress, leave=False) as bar,
        closing(judge.opinions(list(todo.values()))) as coming,
    ):
        for index, opinion in coming:
            found[order[index]] = opinion
            if kept is not None and opinion.final:
                kept.add(order[index], opinion)
            bar.update()
    unasked = Opinion(None, "not asked: the judge ended before", final=False)
    opinions = tuple(found.get(key, unasked) for key in keys)
    return Judged(judge.name, opinions, replayed, kept.damaged if kept is not None else ())


@dataclass(frozen=True)
class Threshold:
    """Verdicts from opinions: a `Judge` for tasks. Success is a score on the right side; a missing opinion is no success.

    `intact` equals `success`: join two judges where validity is another question.

    Attributes:
        judge: whose opinions.
        at_least: success is a score of this or more.
        at_most: success is a score of this or less; give one of the two.
        references: for judges that compare, by prompt.
        cache: folder of opinions.
    """

    judge: ModelJudge
    at_least: float | int | None = None
    at_most: float | int | None = None
    references: Mapping[str, str] | None = field(default=None, hash=False, repr=False)
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        """One side, and one only."""
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"at_least={self.at_least}, at_most={self.at_most}: give one of the two")

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """Judge the completions.

        Raises:
            ValueError: what `ask` raises, and for a prompt without a reference.
        """
        references = None
        if self.references is not None:
            lacking = next((prompt for prompt in prompts if prompt not in self.references), None)
            if lacking is not None:
                raise ValueError(f"no reference for the prompt {lacking[:60]!r}: give one of each prompt")
            references = [self.references[prompt] for prompt in prompts]
        judged = ask(self.judge, prompts, completions, references, cache=self.cache, progress=False)
        return [self._verdict(opinion) for opinion in judged.opinions]

    def _verdict(self, opinion: Opinion) -> Verdict:
        if opinion.score is None:
            return Verdict(False, False, f"missing, {opinion.reason}")
        high = self.at_least is not None and opinion.score >= self.at_least
        success = high or (self.at_most is not None and opinion.score <= self.at_most)
        return Verdict(success, success, f"{self.judge.name} {opinion.score:.3g}: {opinion.reason}")
