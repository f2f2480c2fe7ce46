"""A judge's opinions on every condition of a run.

All conditions are judged in one call, so that they share one budget and equal completions are judged once. The mean of a
condition is over the prompts that have a score and is reported with the number of missing ones, because the completions that
are easy to judge are not a fair sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_transfer.evaluation.judges.opinion import Judged, ModelJudge, ask
from interp_transfer.stats import Estimate, mean_interval

FORMAT = "interp_transfer.judged/1"


@dataclass(frozen=True, repr=False)
class JudgedConditions:
    """A judge's opinions on the completions of several conditions.

    Attributes:
        judge: its name.
        identity: what its opinions depend on.
        scale: describes its scores.
        against: the condition whose completions the others were compared with; empty for judges that do not compare.
        conditions: opinions by condition.
        every: the opinions of all conditions.
    """

    judge: str
    identity: Mapping[str, Any]
    scale: str
    against: str
    conditions: Mapping[str, Judged]
    every: Judged

    def mean(self, name: str) -> Estimate | None:
        """Return the mean score of a condition with its interval over prompts; None without a score."""
        scores = self.conditions[name].scores
        return mean_interval(scores) if scores else None

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON stores it."""
        plain = {}
        for name, judged in self.conditions.items():
            mean = self.mean(name)
            plain[name] = {
                "mean": mean and mean.value,
                "low": mean and mean.low,
                "high": mean and mean.high,
                "n": len(judged.scores),
                "missing": judged.missing,
                "left": judged.left,
                "opinions": [{"score": o.score, "reason": o.reason} for o in judged.opinions],
            }
        return {
            "format": FORMAT,
            "judge": self.judge,
            "identity": dict(self.identity),
            "scale": self.scale,
            "against": self.against,
            "missing": self.every.why_missing,
            "left": len(self.every.left),
            "damaged": list(self.every.damaged),
            "conditions": plain,
        }

    def __repr__(self) -> str:
        return "\n".join([self.scale, *(f"{name}: {judged}" for name, judged in self.conditions.items())])


def judge_conditions(
    judge: ModelJudge,
    prompts: Sequence[str],
    conditions: Mapping[str, Sequence[str]],
    *,
    against: str | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
) -> JudgedConditions:
    """Judge the completions of the same prompts under several conditions.

    Args:
        judge: the judge.
        prompts: the prompts.
        conditions: completions of the prompts, by name of the condition.
        against: for judges that compare, the condition that the others are compared with, which is not judged itself; "native",
            or "unsteered" if there is no native one, unless given.
        cache: folder of opinions, as in `ask`.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: what `ask` raises; for an unknown ``against``, or one that the judge does not use; for no conditions.
    """
    reference = _reference(judge, conditions, against)
    names = [name for name in conditions if name != reference]
    if not names or not prompts:
        raise ValueError(f"{judge.name}: there is nothing to judge but {reference!r}" if reference else "nothing to judge")
    completions = [text for name in names for text in conditions[name]]
    references = [text for _ in names for text in conditions[reference]] if reference else None
    every = ask(judge, [*prompts] * len(names), completions, references, cache=cache, progress=progress)
    n = len(prompts)
    each = {name: Judged(judge.name, every.opinions[k * n : k * n + n]) for k, name in enumerate(names)}
    return JudgedConditions(judge.name, dict(judge.identity), judge.scale, reference, each, every)


def _reference(judge: ModelJudge, conditions: Mapping[str, Any], against: str | None) -> str:
    if not judge.needs_reference:
        if against is not None:
            raise ValueError(f"against={against!r}: {judge.name} judges completions by themselves, leave it out")
        return ""
    chosen = against or next((name for name in ("native", "unsteered") if name in conditions), "")
    if chosen not in conditions:
        raise ValueError(f"{judge.name} compares with the condition {chosen!r}, which there is not: {', '.join(conditions)}")
    return chosen
