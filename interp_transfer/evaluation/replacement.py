"""Validation of a mapper by full replacement (the paper's section 4).

At one layer the target reads only the mapped activations of the source, at prompt and generated tokens. Its completions are
compared with those of the unchanged target, of the target with that layer replaced by its mean, and of the source. MvA is the
share of prompts on which the mapped completion is closer to the target's than the mean-ablated one is; TvS the share on which
it is closer to the target's than to the source's. Free completions diverge after the first different word, so the replacements
are also measured token by token on the target's own answers (the paper's KL of free completions is not a divergence of
predictions).

Closeness is ROUGE and, where an oracle knows the prompts, whether both completions are valid answers. MvA is also computed from
the divergence of predictions, which has almost no ties. Both shares count a tie as not closer, like the paper's ">"; the number
of ties and the share among the other prompts are reported with them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.evaluation.rouge import ROUGE, rouge
from interp_transfer.interventions.generation import generate, generate_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.interventions.transforms import MeanAblate
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.stats import Estimate, mean_interval, rate

if TYPE_CHECKING:
    import pandas as pd

TARGET, MAPPED, ABLATED, SOURCE = "target", "mapped", "mean_ablated", "source"
ALL = "all"
BOTH_VALID = "oracle"
"""Name of the similarity that is 1 if both completions are valid answers, else 0."""


@dataclass(frozen=True)
class Closer:
    """The share of prompts on which one completion is closer than another.

    Attributes:
        share: with ties counted as not closer.
        ties: number of prompts on which both are equally close.
        decided: the share among the other prompts; None where all are ties.
    """

    share: Estimate
    ties: int
    decided: Estimate | None


def closer(one: Sequence[float], other: Sequence[float]) -> Closer:
    """Compare the similarities of one condition with those of another, prompt by prompt.

    Raises:
        ValueError: for no prompts, or not as many of both.
    """
    pairs = list(zip(one, other, strict=True))
    apart = [a > b for a, b in pairs if a != b]
    return Closer(rate([a > b for a, b in pairs]), len(pairs) - len(apart), rate(apart) if apart else None)


@dataclass(frozen=True)
class Figures:
    """The outcome of one condition on some prompts; means are over prompts.

    Attributes:
        means: the similarity of its completions with the target's, by name of the similarity; "kl", nats per token from the
            target to this condition, on the target's own answers; and "agreement", the share of those answers' tokens for which
            both predict the same token. The source has neither of the last two.
        valid: share of completions that are valid answers; None without an oracle.
        mva: by similarity, and by "kl": whether it is closer to the target than the mean-ablated one; for "mapped".
        tvs: by similarity: whether it is closer to the target than to the source; for "mapped".
    """

    means: Mapping[str, Estimate]
    valid: Estimate | None
    mva: Mapping[str, Closer]
    tvs: Mapping[str, Closer]


@dataclass(frozen=True, repr=False)
class Replacement:
    """The outcome of full replacement.

    Attributes:
        prompts: the prompts.
        groups: the group of each prompt.
        completions: by condition: "target", "mapped", "mean_ablated" and "source".
        slices: figures by group ("all" is every prompt) and condition.
    """

    prompts: tuple[str, ...]
    groups: tuple[str, ...]
    completions: Mapping[str, tuple[str, ...]]
    slices: Mapping[str, Mapping[str, Figures]]

    def count(self, group: str = ALL) -> int:
        """Return the number of prompts in a group."""
        return len(self.prompts) if group == ALL else self.groups.count(group)

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each group and condition; MvA and TvS with their intervals and ties, NaN where they do not apply."""
        import pandas as pd

        rows = []
        for group, conditions in self.slices.items():
            for name, figures in conditions.items():
                row: dict[str, Any] = {"group": group, "condition": name, "n": self.count(group)}
                row |= {what: mean.value for what, mean in figures.means.items()}
                row |= figures.valid.columns("valid") if figures.valid else {}
                for title, shares in (("mva", figures.mva), ("tvs", figures.tvs)):
                    for similarity, share in shares.items():
                        row |= share.share.columns(f"{title}_{similarity}")
                        row[f"{title}_{similarity}_ties"] = share.ties
                rows.append(row)
        return pd.DataFrame(rows).set_index(["group", "condition"])

    def __repr__(self) -> str:
        frame = self.to_frame()
        shown = [name for name in ("rouge1", "valid", "kl", "agreement", "mva_rouge1", "tvs_rouge1") if name in frame]
        return f"Replacement (a tie counts as not closer)\n{frame[shown].round(3)}"


def validate_replacement(
    source: HookedModel,
    target: HookedModel,
    mapped: Intervention,
    prompts: Sequence[str],
    *,
    texts: Sequence[str] | None = None,
    oracle: Callable[[str, str], bool] | None = None,
    group: Callable[[str], str] | None = None,
    max_new_tokens: int = 40,
    progress: bool = True,
) -> Replacement:
    """Replace the activations at a site by another model's mapped activations, and measure what the model retains.

    Completions are greedy, so nothing here is random.

    Args:
        source: the model that activations come from; its own completions are what TvS compares with.
        target: the model whose activations are replaced.
        mapped: the replacement, ``follow(source, from_site, to_site, mapper)``; or a control, any other intervention there.
        prompts: the prompts; the mapper should not have been fitted on them.
        texts: the mean is taken over all their tokens; the prompts with the target's answers unless given.
        oracle: whether a completion is a valid answer to a prompt, such as ``task.valid``.
        group: the group of a prompt, such as ``task.group``; each group is reported on its own, too.
        max_new_tokens: tokens to generate at most.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: for no prompts, or an intervention at several sites.
        ImportError: without rouge-score.
    """
    if isinstance(prompts, str) or not len(prompts):
        raise ValueError("no prompts to validate on: give a list of strings")
    if not isinstance(mapped.site, str):
        raise ValueError(f"the replacement acts at {len(mapped.site)} sites: give one at a single site")
    groups = tuple(group(prompt) if group else ALL for prompt in prompts)
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "progress": progress}
    answers = generate_tokens(target, prompts, **options)
    tok = tokenizer_of(target)
    own = [tok.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) for ids in answers]
    seen = list(texts) if texts is not None else [p + a for p, a in zip(prompts, own, strict=True)]
    mean: Tensor = capture(target, seen, mapped.site, progress=progress)[mapped.site].double().mean(dim=0).float()
    ablated = Intervention(mapped.site, MeanAblate(mean), mapped.positions, model=mapped.model)
    replaced = {MAPPED: mapped, ABLATED: ablated}
    completions = {TARGET: own} | {name: generate(target, prompts, what, **options) for name, what in replaced.items()}
    completions[SOURCE] = generate(source, prompts, **options)
    ids = tokenize(target, prompts)
    each = teacher_forced_each(target, ids, answers, [(what,) for what in replaced.values()])
    forced = dict(zip(replaced, each, strict=True))
    valid = oracle and {n: [oracle(p, x) for p, x in zip(prompts, out, strict=True)] for n, out in completions.items()}
    measured = _Measured(
        completions,
        _similarities(completions, valid),
        valid,
        {TARGET: [0.0] * len(prompts)} | {name: f.kl.tolist() for name, f in forced.items()},
        {TARGET: [1.0] * len(prompts)} | {name: f.agreement.tolist() for name, f in forced.items()},
    )
    named = list(dict.fromkeys(groups)) if group else []
    slices = {ALL: measured.figures(range(len(prompts)))} | {
        name: measured.figures([i for i, g in enumerate(groups) if g == name]) for name in sorted(named)
    }
    texts_by_name = {name: tuple(out) for name, out in completions.items()}
    return Replacement(tuple(prompts), groups, texts_by_name, slices)


@dataclass(frozen=True)
class _Measured:
    """Measurements for each prompt.

    Attributes:
        completions: by condition.
        similar: by similarity, and by (condition, "target" or "source"), the similarity of the two completions.
        valid: by condition, whether each completion is a valid answer.
        kl: by condition.
        agreement: by condition.
    """

    completions: Mapping[str, Sequence[str]]
    similar: Mapping[str, Mapping[tuple[str, str], Sequence[float]]]
    valid: Mapping[str, Sequence[bool]] | None
    kl: Mapping[str, Sequence[float]]
    agreement: Mapping[str, Sequence[float]]

    def figures(self, chosen: Sequence[int]) -> dict[str, Figures]:
        """Return the outcome of every condition on some of the prompts."""
        return {name: self._one(name, chosen) for name in self.completions}

    def _one(self, name: str, chosen: Sequence[int]) -> Figures:
        def of(similarity: str, one: str, other: str) -> list[float]:
            return [self.similar[similarity][one, other][i] for i in chosen]

        means = {similarity: mean_interval(of(similarity, name, TARGET)) for similarity in self.similar}
        for what, each in (("kl", self.kl), ("agreement", self.agreement)):
            if name in each:
                means[what] = mean_interval(each[name][i] for i in chosen)
        valid = None if self.valid is None else rate([self.valid[name][i] for i in chosen])
        if name != MAPPED:
            return Figures(means, valid, {}, {})
        mva = {s: closer(of(s, name, TARGET), of(s, ABLATED, TARGET)) for s in self.similar}
        mva["kl"] = closer(*([-self.kl[which][i] for i in chosen] for which in (name, ABLATED)))
        tvs = {s: closer(of(s, name, TARGET), of(s, name, SOURCE)) for s in self.similar}
        return Figures(means, valid, mva, tvs)


def _similarities(
    completions: Mapping[str, Sequence[str]], valid: Mapping[str, Sequence[bool]] | None
) -> dict[str, dict[tuple[str, str], list[float]]]:
    """Return the similarity of each condition's completions to the target's and to the source's."""
    similar: dict[str, dict[tuple[str, str], list[float]]] = {name: {} for name in ROUGE}
    pairs = [(name, other) for name in completions for other in (TARGET, SOURCE)]
    for pair in pairs:
        for name, scores in rouge(completions[pair[0]], completions[pair[1]]).items():
            similar[name][pair] = scores
    if valid is not None:
        similar[BOTH_VALID] = {(a, b): [float(x and y) for x, y in zip(valid[a], valid[b], strict=True)] for a, b in pairs}
    return similar
