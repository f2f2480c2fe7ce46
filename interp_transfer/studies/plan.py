"""What a run, a sweep or the moving of features will take.

The work ahead is counted, and each kind of work is timed for a moment on this machine. The counts are exact but for two: a
search takes about ``ROUNDS`` costs, and answers end before their largest length. Times are those of small batches, so the
estimate is meant to be within a factor of two.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from interp_transfer.activations.align import AlignmentReport
from interp_transfer.activations.positions import Positions
from interp_transfer.evaluation.baselines import RANDOM_DIRECTIONS
from interp_transfer.evaluation.evaluator import CLEAN_PROMPTS, RANDOM_PROMPTS
from interp_transfer.evaluation.similarity import layerwise_cka
from interp_transfer.evaluation.speed import ROUNDS, Speed, duration, timed
from interp_transfer.evaluation.task import Task
from interp_transfer.features.train import SMALL_MODEL, train_sae
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.move import MODES
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.models.hooked_model import HookedModel, parameter_count
from interp_transfer.models.identity import identity
from interp_transfer.models.sites import expand_sites
from interp_transfer.models.tokens import tokenize
from interp_transfer.progress import write_line
from interp_transfer.prompts.chats import Prompt
from interp_transfer.prompts.contrast import sides as sides_of
from interp_transfer.search.site_search import FEW, PROMPTS
from interp_transfer.search.strengths import FRACTIONS
from interp_transfer.search.sweep import POSITIONS, SITES
from interp_transfer.studies.inputs import needs_search
from interp_transfer.studies.options import RunOptions
from interp_transfer.studies.texts import MapperTexts, tokens_wanted
from interp_transfer.studies.trial import VARIANTS, clean_prompts, validation_prompts

LARGE = 50_000_000
"""Parameters of both models together from which a run is planned; with smaller ones it takes minutes."""
EFFECT_CONDITIONS = 4
"""Conditions whose side effects are measured."""
FEATURE_CONDITIONS = 10
"""Conditions of a direction in which features are judged, besides random directions: about so many in either model."""
PAIRS_TIMED, SAE_STEPS = 8, 8
COMPARED = (16, 48)
"""Numbers of prompts on which two comparisons are timed."""
SAMPLE_ROWS = (1000, 3000)
"""Rows that two mappers are fitted on for the timing."""


@dataclass(frozen=True)
class Step:
    """A stage of a run: its name, the amount of work in words, and seconds."""

    name: str
    amount: str
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The stages of a run.

    Attributes:
        models: both models in one line.
        steps: the stages.
    """

    models: str
    steps: tuple[Step, ...]

    @property
    def seconds(self) -> float:
        """The time of all stages together."""
        return sum(step.seconds for step in self.steps)

    def __str__(self) -> str:
        lines = [f"  {step.name:<28} {step.amount:<60} {duration(step.seconds)}" for step in self.steps]
        return "\n".join([f"Planned: {self.models}", *lines, f"About {duration(self.seconds)} on this machine"])


def announce(plan: Callable[[], Plan], *models: HookedModel) -> None:
    """Print the plan of work on large models on stderr; the plan is not made for small ones."""
    if sum(map(parameter_count, models)) >= LARGE:
        write_line(str(plan()))


def plan_sweep(
    task: Task,
    model: HookedModel,
    *,
    sites: str | Sequence[str] | None = None,
    positions: Sequence[Positions] | None = None,
    strengths: Sequence[float] | None = None,
    n: int = 100,
    seed: int = 0,
    early: bool = False,
) -> Plan:
    """Count the work of a sweep (with ``early`` the most), and time each kind of it; arguments of `search.sweep.sweep`."""
    one = Speed(model, task, seed)
    clean = min(max(n, CLEAN_PROMPTS), len(task.clean("validation")))
    places = len(expand_sites(model, SITES if sites is None else sites)) * len(POSITIONS if positions is None else positions)
    settings = places * len(FRACTIONS if strengths is None else strengths)
    at_most = "at most " if early else ""
    steps = [Step("settings", f"{at_most}{settings * n} completions", settings * (n * one.completion + clean * one.cost))]
    if strengths is None:
        steps.insert(0, Step("strengths", f"{places} searches on {clean} clean prompts", places * ROUNDS * clean * one.cost))
    return Plan(f"sweep of {task.name}, {_described(model)}", tuple(steps))


def plan_run(
    task: Task,
    models: tuple[HookedModel, HookedModel],
    how: RunOptions,
    sites: Mapping[str, str | int | None],
    given: MapperTexts | None = None,
) -> Plan:
    """Count the work of a run, and time each kind of it.

    Args:
        task: the task.
        models: source and target.
        how: options of the run.
        sites: of "source" and of "target", as far as they were given.
        given: texts that mappers are fitted on, if they were passed.
    """
    source, target = (Speed(model, task, how.seed) for model in models)
    steps: list[Step] = []
    measured = {"source": (models[0], source), "target": (models[1], target)}
    for side, (model, one) in measured.items():
        if needs_search(model, task, sites[side]):
            settings = FEW * len(FRACTIONS)
            seconds = PROMPTS * (settings * (one.completion + one.cost) + FEW * ROUNDS * one.cost)
            steps.append(Step(f"site of the {side}", f"{settings * PROMPTS} completions for {FEW} blocks", seconds))
    sides = 2 * len(task.contrast("train"))
    shares = {"source": 1 + how.seeds, "target": 1}  # the vector, and a wrong contrast for each seed
    extracting = sum(shares[side] * sides * _pair_seconds(task, *both) for side, both in measured.items())
    steps.append(Step("vectors", f"{sides * sum(shares.values())} prompts read", extracting))
    tokens, answers = tokens_wanted(task, models, how.texts, given)
    reading = tokens * (source.token + target.token) + answers * target.completion
    fits = how.seeds * 4 + (len(VARIANTS) if how.variants else 0)
    made = f", {answers} of the texts answered by the target" if answers else ""
    steps.append(Step("pairs", f"{tokens} tokens read by both models{made}", reading))
    steps.append(Step("mappers", f"{fits} fits ({how.mapper})", fits * _fit_seconds(models, how, tokens)))
    counts = vectors_of(how)
    v, total = validation_prompts(task, how), sum(counts.values())
    judged = total * len(how.fractions) * v
    costs = total * (len(how.fractions) - 1 + ROUNDS) * v  # the largest strength's is known by then
    seconds = judged * target.completion + costs * target.cost
    steps.append(Step("strengths", f"{judged} completions of {v} validation prompts for {total} vectors", seconds))
    clean = clean_prompts(how.n)
    pooled = counts["random"] + counts["random_in_span"]
    others = bool(task.instruction) + (task.answers is not None)  # under a system prompt, first token forced
    single = total - pooled + 2 + others  # unsteered, mean-ablated
    again = 1 + how.seeds * 2 + how.directions if how.strength_one else 0
    completions = (single + 2) * how.n + (pooled - 2) * min(how.n, RANDOM_PROMPTS) + again * how.n
    costs = (single + 2) * clean + (pooled - 2) * min(clean, RANDOM_PROMPTS) + again * clean
    seconds = completions * target.completion + costs * target.cost
    steps.append(Step("held-out prompts", f"{completions} completions of {how.n} prompts", seconds))
    if how.side_effects:
        texts = EFFECT_CONDITIONS * 3 * clean  # clean ones, English ones and those that show the behaviour
        seconds = EFFECT_CONDITIONS * clean * target.completion + texts * target.cost
        steps.append(Step("side effects", f"{EFFECT_CONDITIONS * clean} completions, {texts} texts read", seconds))
    if how.variants:
        extra = len({*VARIANTS, how.mapper}) * len(MODES) - 1
        seconds = extra * (len(how.fractions) * v + how.n) * (target.completion + target.cost)
        steps.append(Step("other modes and mappers", f"{extra} vectors", seconds))
    return Plan(f"{task.name}, {' to '.join(map(_described, models))}", tuple(steps))


def plan_features(
    directions: Sequence[Task],
    models: tuple[HookedModel, HookedModel],
    untrained: Sequence[HookedModel],
    *,
    candidates: int,
    n: int,
    n_validation: int,
    seed: int = 0,
) -> Plan:
    """Count the work of moving features, and time each kind of it.

    Args:
        directions: the task, and its opposite if it has one.
        models: source and target.
        untrained: those of which an SAE is trained first.
        candidates: number of features that are tried.
        n: number of test prompts.
        n_validation: number of validation prompts.
        seed: draws the prompts.
    """
    task = directions[0]
    source, target = speeds = [Speed(model, task, seed) for model in models]
    length = sum(map(len, tokenize(models[1], task.texts("train"), any_length=True)))
    steps = [Step("pairs", f"{length} tokens read by both models", length * (source.token + target.token))]
    for model in untrained:
        count = SMALL_MODEL.epochs * -(-length // SMALL_MODEL.batch_size)
        steps.append(Step(f"SAE of {identity(model).name}", f"{count} steps", count * _sae_step(model)))
    one = sum(each.completion for each in speeds), sum(each.cost for each in speeds)
    searched = n_validation * (len(FRACTIONS) * (one[0] + one[1]) + ROUNDS * one[1])
    tried = len(directions) * candidates
    words = f"{2 * tried * len(FRACTIONS) * n_validation} completions for {candidates} features in both models"
    steps.append(Step("features", words, tried * searched))
    judged = len(directions) * (RANDOM_DIRECTIONS * min(n, RANDOM_PROMPTS) + FEATURE_CONDITIONS * n)
    seconds = judged * (one[0] + one[1]) + len(directions) * (RANDOM_DIRECTIONS + FEATURE_CONDITIONS) * searched
    steps.append(Step("held-out prompts", f"{2 * judged} completions of {n} prompts, and their searches", seconds))
    return Plan(f"features of {task.name}, {' to '.join(map(_described, models))}", tuple(steps))


def plan_comparison(models: tuple[HookedModel, HookedModel], prompts: Sequence[Prompt]) -> Plan:
    """Time the comparison of two models, block by block, on a few prompts."""
    few, more = (prompts[:count] for count in COMPARED)
    short, long = (timed(partial(layerwise_cka, *models, part, progress=False)) for part in (few, more))
    seconds = long + max(0.0, long - short) / max(len(more) - len(few), 1) * (len(prompts) - len(more))
    blocks = " x ".join(str(model.cfg.n_layers) for model in models)
    step = Step("CKA", f"{len(prompts)} prompts, {blocks} blocks", seconds)
    return Plan(" and ".join(map(_described, models)), (step,))


def _sae_step(model: HookedModel) -> float:
    """Seconds of a step of training an SAE, from a short training."""
    rows = torch.randn(2 * SMALL_MODEL.batch_size, int(model.cfg.d_model))
    return timed(partial(train_sae, rows, "x", SMALL_MODEL, model=identity(model), steps=SAE_STEPS, progress=False)) / SAE_STEPS


def _pair_seconds(task: Task, model: HookedModel, one: Speed) -> float:
    """Seconds to read one side of a contrast pair, from the length of a few."""
    some = sides_of(task.contrast("train")[:PAIRS_TIMED])
    tokens = [len(ids) for side in some for ids in tokenize(model, side, any_length=True)]
    return one.token * sum(tokens) / len(tokens)


def vectors_of(how: RunOptions) -> dict[str, int]:
    """Return the number of draws of each condition of a run that has a vector."""
    each = ("moved", "wrong_contrast", "shuffled", "shuffled_within_text", "untrained")
    pooled = {"random": how.directions, "random_in_span": how.span_directions}
    return {"native": 1, **pooled, **dict.fromkeys(each, how.seeds)}


def _fit_seconds(models: tuple[HookedModel, HookedModel], how: RunOptions, tokens: int) -> float:
    """Seconds of a fit of so many rows, from two fits of fewer: a part of the time does not depend on the rows."""
    if how.mapper == "embeddings":
        return 0.0
    few, more = SAMPLE_ROWS
    with warnings.catch_warnings(action="ignore"):  # that they are few
        short, long = (
            timed(partial(fit, _noise(models, rows), how.mapper, progress=False, **how.settings)) for rows in SAMPLE_ROWS
        )
    return max(0.0, long + (long - short) / (more - few) * (tokens - more))


def _noise(models: tuple[HookedModel, HookedModel], rows: int) -> PairedActivations:
    x, y = (torch.randn(rows, int(model.cfg.d_model)) for model in models)
    texts, (source, target) = torch.arange(rows) // 20, map(identity, models)
    report = AlignmentReport("same_tokens", rows, rows)
    return PairedActivations({"x": x}, {"y": y}, (("x", "y"),), texts, texts, source, target, report)


def _described(model: HookedModel) -> str:
    dtype = str(model.cfg.dtype).removeprefix("torch.")
    return f"{identity(model).name} ({parameter_count(model) / 1e6:.0f}M parameters, {dtype})"
