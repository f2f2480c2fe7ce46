"""A judge on every condition of a run, side by side.

All conditions are asked in one go, so that one budget holds for all of them and equal completions are asked once. A condition's
mean is over the prompts that have a score; how many have none stands beside it, because a mean over what was easy to judge is
no fair one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_transfer.evaluation.judges.agreement import mean_over_prompts
from interp_transfer.evaluation.judges.opinion import Judged, ModelJudge, ask

FORMAT = "interp_transfer.judged/1"


@dataclass(frozen=True, repr=False)
class JudgedConditions:
    """A judge's opinions on the completions of several conditions.

    Attributes:
        judge: its name.
        identity: what its opinions depend on.
        scale: its scores in words.
        against: the condition whose completions others were compared with; empty for judges that do not compare.
        conditions: opinions by condition.
        damaged: entries of the cache that could not be read and were asked again.
        seed: of the bootstrap.
    """

    judge: str
    identity: Mapping[str, Any]
    scale: str
    against: str
    conditions: Mapping[str, Judged]
    damaged: tuple[str, ...] = ()
    seed: int = 0

    @property
    def missing(self) -> int:
        """Completions without a score, over all conditions."""
        return sum(judged.missing for judged in self.conditions.values())

    @property
    def left(self) -> int:
        """Completions that asking again may still bring an opinion of."""
        return sum(len(judged.left) for judged in self.conditions.values())

    @property
    def why_missing(self) -> dict[str, int]:
        """How many are missing, by the kind of reason."""
        kinds: dict[str, int] = {}
        for judged in self.conditions.values():
            for kind, count in judged.why_missing.items():
                kinds[kind] = kinds.get(kind, 0) + count
        return dict(sorted(kinds.items(), key=lambda pair: -pair[1]))

    def mean(self, name: str) -> tuple[float, float, float] | None:
        """Mean score of a condition with its 95% interval; None without a score."""
        scores = self.conditions[name].scores
        return mean_over_prompts(scores, self.seed) if scores else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        plain = {}
        for name, judged in self.conditions.items():
            mean, low, high = self.mean(name) or (None, None, None)
            plain[name] = {
                "mean": mean,
                "low": low,
                "high": high,
                "n": len(judged.scores),
                "missing": judged.missing,
                "left": judged.left,
                "opinions": [{"score": o.score, "reason": o.reason} for o in judged.opinions],
            }
        said = {"judge": self.judge, "identity": dict(self.identity), "scale": self.scale, "against": self.against}
        counts = {"missing": self.why_missing, "left": self.left, "damaged": list(self.damaged), "seed": self.seed}
        return {"format": FORMAT, **said, **counts, "conditions": plain}

    def __repr__(self) -> str:
        rows = []
        for name, judged in self.conditions.items():
            found = self.mean(name)
            mean = "no score" if found is None else f"{found[0]:.3g} [{found[1]:.3g}, {found[2]:.3g}]"
            rows.append(f"  {name:20s} {mean} n={len(judged.scores)}, {judged.missing} missing")
        return f"Judged by {self.judge} ({self.scale})\n" + "\n".join(rows)


def judge_conditions(
    judge: ModelJudge,
    prompts: Sequence[str],
    conditions: Mapping[str, Sequence[str]],
    *,
    against: str | None = None,
    cache: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
) -> JudgedConditions:
    """A judge's opinions on the completions of the same prompts under several conditions.

    Args:
        judge: who is asked.
        prompts: what the model was asked.
        conditions: completions of the prompts, by name.
        against: for judges that compare, the condition that others are compared with; "native", or "unsteered" where there is
            none, if not given. It is not judged itself.
        cache: folder of opinions, as in `ask`.
        seed: of the bootstrap over prompts.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: what `ask` raises; for an unknown ``against``, or one that the judge has no use for; for no conditions.
    """
    reference = _reference(judge, conditions, against)
    names = [name for name in conditions if name != reference]
    if not names or not prompts:
        raise ValueError(f"{judge.name}: there is nothing to judge but {reference!r}" if reference else "nothing to judge")
    completions = [text for name in names for text in conditions[name]]
    references = [text for _ in names for text in conditions[reference]] if reference else None
    together = ask(judge, [*prompts] * len(names), completions, references, cache=cache, progress=progress)
    n = len(prompts)
    parts = {name: Judged(judge.name, together.opinions[k * n : k * n + n], together.replayed) for k, name in enumerate(names)}
    return JudgedConditions(judge.name, dict(judge.identity), judge.scale, reference, parts, together.damaged, seed)


def _reference(judge: ModelJudge, conditions: Mapping[str, Any], against: str | None) -> str:
    if not judge.needs_reference:
        if against is not None:
            raise ValueError(f"against={against!r}: {judge.name} judges completions by themselves, leave it out")
        return ""
    chosen = against or next((name for name in ("native", "unsteered") if name in conditions), "")
    if chosen not in conditions:
        raise ValueError(f"{judge.name} compares with the condition {chosen!r}, which there is not: {', '.join(conditions)}")
    return chosen
