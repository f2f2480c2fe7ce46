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
from interp_transfer.interventions.transforms import MeanAblate, Transform
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.stats import Estimate, mean_interval, rate

if TYPE_CHECKING:
    import pandas as pd

TARGET, MAPPED, ABLATED, SOURCE = "target", "mapped", "mean_ablated", "source"
ALL = "all"
BOTH_VALID = "oracle"
"""Name of the similarity that is 1 if both completions are valid answers, else 0."""

TIES = "a tie counts as not closer"


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
        to_target: mean similarity of its completions with the target's, by name of the similarity.
        valid: share of completions that are valid answers; None without an oracle.
        kl: nats per token from the target to this condition, on the target's own answers; None for the source.
        agreement: share of those answers' tokens for which both predict the same token; None for the source.
        mva: by similarity, and by "kl": whether it is closer to the target than the mean-ablated one; for mapped conditions.
        tvs: by similarity: whether it is closer to the target than to the source; for mapped conditions.
        intervals: 95% intervals of the means, by "kl", "agreement" and name of the similarity.
    """

    to_target: Mapping[str, float]
    valid: Estimate | None
    kl: float | None
    agreement: float | None
    mva: Mapping[str, Closer]
    tvs: Mapping[str, Closer]
    intervals: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, repr=False)
class Replacement:
    """The outcome of full replacement.

    Attributes:
        prompts: the prompts.
        groups: the group of each prompt.
        completions: by condition: "target", "mapped", "mean_ablated", "source" and the controls.
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
                row: dict[str, Any] = {"group": group, "condition": name, "n": self.count(group), **figures.to_target}
                row |= figures.valid.columns("valid") if figures.valid else {}
                row |= {"kl": figures.kl, "agreement": figures.agreement}
                for title, shares in (("mva", figures.mva), ("tvs", figures.tvs)):
                    for similarity, share in shares.items():
                        row |= share.share.columns(f"{title}_{similarity}")
                        row[f"{title}_{similarity}_ties"] = share.ties
                rows.append(row)
        return pd.DataFrame(rows).set_index(["group", "condition"])

    def __repr__(self) -> str:
        lines = [f"Replacement ({TIES})"]
        for group, conditions in self.slices.items():
            for name, f in conditions.items():
                parts = [f"rouge1 {f.to_target['rouge1']:.2f}"]
                parts += [f"valid {f.valid:.2f}"] if f.valid else []
                parts += [f"KL {f.kl:.3f}, agreement {f.agreement:.2f}"] if f.kl is not None else []
                parts += [f"MvA {f.mva['rouge1'].share:.2f}, TvS {f.tvs['rouge1'].share:.2f}"] if f.mva else []
                lines.append(f"  {group:18s} {name:14s} {', '.join(parts)}")
        return "\n".join(lines)


def validate_replacement(
    source: HookedModel,
    target: HookedModel,
    mapped: Intervention,
    prompts: Sequence[str],
    *,
    controls: Mapping[str, Transform | Intervention] | None = None,
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
        mapped: the replacement, ``follow(source, from_site, to_site, mapper)``.
        prompts: the prompts; the mapper should not have been fitted on them.
        controls: other replacements at the same site, by name: transforms, which act at the same positions (such as the mean
            activation of each token id), or whole interventions, such as ``follow`` with another mapper.
        texts: the mean is taken over all their tokens; the prompts with the target's answers unless given.
        oracle: whether a completion is a valid answer to a prompt, such as ``task.valid``.
        group: the group of a prompt, such as ``task.group``; each group is reported on its own, too.
        max_new_tokens: tokens to generate at most.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: for no prompts, an intervention at several sites, a control at another one or with a name that is taken.
        ImportError: without rouge-score.
    """
    taken = {TARGET, MAPPED, ABLATED, SOURCE} & set(controls or {})
    if taken:
        raise ValueError(f"{sorted(taken)} are conditions already: give the controls other names")
    if isinstance(prompts, str) or not len(prompts):
        raise ValueError("no prompts to validate on: give a list of strings")
    if not isinstance(mapped.site, str):
        raise ValueError(f"the replacement acts at {len(mapped.site)} sites: give one at a single site")
    for name, what in (controls or {}).items():
        if isinstance(what, Intervention) and what.site != mapped.site:
            raise ValueError(
                f"control {name!r} acts at {what.site}, the replacement at {mapped.site}: compare them at one site"
            )
    groups = tuple(group(prompt) if group else ALL for prompt in prompts)
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "progress": progress}
    answers = generate_tokens(target, prompts, **options)
    tok = tokenizer_of(target)
    own = [tok.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) for ids in answers]
    seen = list(texts) if texts is not None else [p + a for p, a in zip(prompts, own, strict=True)]
    mean: Tensor = capture(target, seen, mapped.site, progress=progress)[mapped.site].double().mean(dim=0).float()
    replaced = {MAPPED: mapped} | {
        name: what if isinstance(what, Intervention) else Intervention(mapped.site, what, mapped.positions, model=mapped.model)
        for name, what in {ABLATED: MeanAblate(mean), **(controls or {})}.items()
    }
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

        mapped = name not in (TARGET, ABLATED, SOURCE)
        similarities = self.similar if mapped else ()
        means = {similarity: mean_interval(of(similarity, name, TARGET)) for similarity in self.similar}
        for what, each in (("kl", self.kl), ("agreement", self.agreement)):
            if name in each:
                means[what] = mean_interval(each[name][i] for i in chosen)
        by_kl = {"kl": closer(*([-self.kl[which][i] for i in chosen] for which in (name, ABLATED)))} if mapped else {}
        return Figures(
            {similarity: means[similarity].value for similarity in self.similar},
            None if self.valid is None else rate([self.valid[name][i] for i in chosen]),
            means["kl"].value if "kl" in means else None,
            means["agreement"].value if "agreement" in means else None,
            {s: closer(of(s, name, TARGET), of(s, ABLATED, TARGET)) for s in similarities} | by_kl,
            {s: closer(of(s, name, TARGET), of(s, name, SOURCE)) for s in similarities},
            {what: (mean.low, mean.high) for what, mean in means.items()},
        )


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
