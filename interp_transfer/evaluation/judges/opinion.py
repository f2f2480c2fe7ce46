"""Opinions of judges that need a model: scores with reasons, some of which may be missing.

A model can fail to judge, when an endpoint times out or a guard does not give a verdict. So an opinion has a score or none, and
always a reason; missing ones are counted and never filled in. `ask` stores every final opinion in a cache as it arrives and
asks no question twice: an interrupted run resumes, and a finished one replays without the model. `Threshold` turns opinions
into verdicts, which makes such a judge a `Judge`.
"""

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from interp_transfer.evaluation.judges.rules import Verdict, check_lengths
from interp_transfer.progress import progress_bar
from interp_transfer.prompts.chats import Prompt, request_of


@dataclass(frozen=True)
class Opinion:
    """A judge's opinion of one completion.

    Attributes:
        score: on the judge's scale, or None if it is missing.
        reason: in words; for a missing score "kind: what happened".
        final: whether another request would give the same. It is False after a failure of an endpoint.
    """

    score: float | None
    reason: str
    final: bool = True

    def __post_init__(self) -> None:
        """Reject scores that are not finite numbers, or not final."""
        if self.score is not None and not (isfinite(self.score) and self.final):
            raise ValueError(f"an opinion with score {self.score} and final={self.final}: a score is finite, and final")

    @property
    def missing(self) -> bool:
        """Whether there is no score."""
        return self.score is None


@dataclass(frozen=True)
class Item:
    """A question to a judge: a prompt, its completion and, for judges that compare, another completion of the prompt."""

    prompt: str
    completion: str
    reference: str | None = None


@runtime_checkable
class ModelJudge(Protocol):
    """A judge that uses a model."""

    @property
    def name(self) -> str:
        """Its name in tables."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that its opinions depend on, as plain data: model, wording, settings. Part of the cache's keys."""
        ...

    @property
    def scale(self) -> str:
        """A description of its scores: unit, range, which end is good."""
        ...

    @property
    def needs_reference(self) -> bool:
        """Whether it compares completions with references."""
        ...

    def opinions(self, items: Sequence[Item]) -> Generator[tuple[int, Opinion], None, None]:
        """Yield opinions with the indices of their items, in any order, as they arrive."""
        ...


@dataclass(frozen=True, repr=False)
class Judged:
    """The opinions on some completions.

    Attributes:
        judge: name of the judge.
        opinions: one for each completion, in order.
        replayed: number of opinions from the cache.
        damaged: entries of the cache that could not be read, by file and line; their questions were asked again.
    """

    judge: str
    opinions: tuple[Opinion, ...]
    replayed: int = 0
    damaged: tuple[str, ...] = ()

    @property
    def scores(self) -> list[float]:
        """The scores, without the missing ones."""
        return [opinion.score for opinion in self.opinions if opinion.score is not None]

    @property
    def missing(self) -> int:
        """Number of opinions without a score."""
        return sum(opinion.missing for opinion in self.opinions)

    @property
    def left(self) -> list[int]:
        """Indices of the completions that another call may still get an opinion on."""
        return [index for index, opinion in enumerate(self.opinions) if not opinion.final]

    @property
    def why_missing(self) -> dict[str, int]:
        """Number of missing scores by the kind of reason, the most frequent first."""
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
    """Ask a judge for its opinions on completions. Equal questions are asked once.

    Args:
        judge: the judge.
        prompts: texts or chats; of a chat the judge reads the last user message.
        completions: one for each prompt.
        references: one for each prompt, for judges that compare; other judges do not read them.
        cache: folder of opinions; final ones are stored there as they arrive, and replayed by later calls.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: for lists of different lengths, missing references, and where asking is pointless: an endpoint that refuses
            the key. Opinions that were final by then are in the cache.
    """
    from interp_transfer.evaluation.judges.cache import OpinionCache, key_of

    check_lengths(prompts, completions)
    if judge.needs_reference and references is None:
        raise ValueError(f"{judge.name} compares completions: give references=, another completion of each prompt")
    if references is not None:
        check_lengths(prompts, references)
    compared: Sequence[str | None] = references if judge.needs_reference and references is not None else [None] * len(prompts)
    items = [Item(request_of(p), c, r) for p, c, r in zip(prompts, completions, compared, strict=True)]
    identity = judge.identity  # read once: it may hash a model's weights
    keys = [key_of(identity, item) for item in items]
    stored = OpinionCache.open(cache, identity) if cache is not None else None
    by_key = {key: stored.known[key] for key in keys if key in stored.known} if stored is not None else {}
    replayed = sum(key in by_key for key in keys)
    todo = {key: item for key, item in zip(keys, items, strict=True) if key not in by_key}
    order = list(todo)
    with (
        progress_bar(judge.name, progress, total=len(order)) as bar,
        closing(judge.opinions(list(todo.values()))) as arriving,
    ):
        for index, opinion in arriving:
            by_key[order[index]] = opinion
            if stored is not None and opinion.final:
                stored.add(order[index], opinion)
            bar.update()
    unasked = Opinion(None, "not asked: the judge ended before", final=False)
    opinions = tuple(by_key.get(key, unasked) for key in keys)
    return Judged(judge.name, opinions, replayed, stored.damaged if stored is not None else ())


@dataclass(frozen=True)
class Threshold:
    """A `Judge` for tasks that turns opinions into verdicts. A missing opinion is no success, and `intact` equals `success`.

    Attributes:
        judge: the judge that gives the opinions.
        at_least: lowest score that is a success.
        at_most: highest score that is a success; give one of the two.
        references: for judges that compare, by prompt.
        cache: folder of opinions.
    """

    judge: ModelJudge
    at_least: float | int | None = None
    at_most: float | int | None = None
    references: Mapping[str, str] | None = field(default=None, hash=False, repr=False)
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        """Reject both limits, or none."""
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"at_least={self.at_least}, at_most={self.at_most}: give one of the two")

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """Judge the completions.

        Raises:
            ValueError: what `ask` raises, and for a prompt without a reference.
        """
        references = None
        if self.references is not None:
            missing = next((prompt for prompt in prompts if prompt not in self.references), None)
            if missing is not None:
                raise ValueError(f"no reference for the prompt {missing[:60]!r}: give one for each prompt")
            references = [self.references[prompt] for prompt in prompts]
        judged = ask(self.judge, prompts, completions, references, cache=self.cache, progress=False)
        return [self._verdict(opinion) for opinion in judged.opinions]

    def _verdict(self, opinion: Opinion) -> Verdict:
        if opinion.score is None:
            return Verdict(False, False, f"missing, {opinion.reason}")
        high = self.at_least is not None and opinion.score >= self.at_least
        success = high or (self.at_most is not None and opinion.score <= self.at_most)
        return Verdict(success, success, f"{self.judge.name} {opinion.score:.3g}: {opinion.reason}")
