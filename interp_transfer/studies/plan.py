"""What a run will take: the work ahead is counted, and each kind of work is timed for a moment on this machine.

The counts are exact but for two: a search takes about ``ROUNDS`` costs, and answers end before their largest length. Times
are those of small batches, so the estimate is meant to be within a factor of two.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tqdm.auto import tqdm

from interp_transfer.activations.align import AlignmentReport
from interp_transfer.activations.capture import capture
from interp_transfer.evaluation.evaluator import RANDOM_PROMPTS, Evaluator, evaluator
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.transforms import Add
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.move import MODES
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.models.hooked_model import HookedModel, parameter_count
from interp_transfer.models.identity import identity
from interp_transfer.models.sites import residual_sites
from interp_transfer.models.tokens import tokenize
from interp_transfer.search.site_search import FEW, PROMPTS
from interp_transfer.search.strengths import FRACTIONS
from interp_transfer.studies.inputs import needs_search
from interp_transfer.studies.options import RunOptions
from interp_transfer.studies.texts import MapperTexts, tokens_wanted
from interp_transfer.studies.trial import VARIANTS, clean_prompts, validation_prompts

LARGE = 50_000_000
"""Parameters of both models together from which a run is planned; with smaller ones it takes minutes."""
ROUNDS = 5
"""Typical number of strengths at which a search measures the cost before it has found the largest one."""
SAMPLE = 16
"""Prompts that are answered and read for the timing."""
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


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Speed:
    """Seconds that a model needs: for a completion, for the cost of a setting on one clean prompt, and to read a token."""

    completion: float
    cost: float
    token: float


def speed(model: HookedModel, task: Task, seed: int = 0) -> Speed:
    """Time a model on a few validation prompts."""
    n = min(SAMPLE, len(task.prompts("validation")))
    evaluator(model, task, "validation", n=1, seed=seed, clean_prompts=1)  # the first pass prepares weights, and is slow
    few: list[Evaluator] = []
    answering = _timed(lambda: few.append(evaluator(model, task, "validation", n=n, seed=seed, clean_prompts=n)))
    sites = residual_sites(model)
    zero = torch.zeros(int(model.cfg.d_model))
    settings = [(Intervention(sites[len(sites) // 2], Add(zero, float(k)), task.positions),) for k in range(2)]
    costs = _timed(lambda: few[0].costs(settings))
    prompts = list(few[0].prompts)
    reading = _timed(lambda: capture(model, prompts, sites[-1], progress=False))
    tokens = sum(map(len, tokenize(model, prompts)))
    return Speed(answering / n, costs / (n * len(settings)), reading / tokens)


def announce(
    task: Task,
    models: tuple[HookedModel, HookedModel],
    how: RunOptions,
    sites: Mapping[str, str | int | None],
    given: MapperTexts | None = None,
) -> None:
    """Print the plan of a run of large models on stderr; arguments as for `plan_run`."""
    if sum(map(parameter_count, models)) >= LARGE:
        tqdm.write(str(plan_run(task, models, how, sites, given)), sys.stderr)


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
    source, target = (speed(model, task, how.seed) for model in models)
    steps: list[Step] = []
    for side, model, one in zip(("source", "target"), models, (source, target), strict=True):
        if needs_search(model, task, sites[side]):
            settings = FEW * len(FRACTIONS)
            seconds = PROMPTS * (settings * (one.completion + one.cost) + FEW * ROUNDS * one.cost)
            steps.append(Step(f"site of the {side}", f"{settings * PROMPTS} completions for {FEW} blocks", seconds))
    tokens, answers = tokens_wanted(task, models, how.texts, given)
    reading = tokens * (source.token + target.token) + answers * target.completion
    fits = how.seeds * 4 + (len(VARIANTS) if how.variants else 0)
    made = f", {answers} of the texts answered by the target" if answers else ""
    steps.append(Step("pairs", f"{tokens} tokens read by both models{made}", reading))
    steps.append(Step("mappers", f"{fits} fits ({how.mapper})", fits * _fit_seconds(models, how, tokens)))
    counts = vectors_of(how)
    v, total = validation_prompts(task, how), sum(counts.values())
    judged = total * len(FRACTIONS) * v
    seconds = judged * (target.completion + target.cost) + total * ROUNDS * v * target.cost
    steps.append(Step("strengths", f"{judged} completions of {v} validation prompts for {total} vectors", seconds))
    clean = clean_prompts(how.n)
    pooled = counts["random"] + counts["random_in_span"]
    single = total - pooled + 2 + (task.answers is not None)  # unsteered, mean-ablated, first token forced
    again = 1 + how.seeds * 2 + how.directions  # at strength 1
    completions = (single + 2) * how.n + (pooled - 2) * min(how.n, RANDOM_PROMPTS) + again * how.n
    costs = (single + 2) * clean + (pooled - 2) * min(clean, RANDOM_PROMPTS) + again * clean
    seconds = completions * target.completion + costs * target.cost
    steps.append(Step("held-out prompts", f"{completions} completions of {how.n} prompts", seconds))
    if how.variants:
        extra = len({*VARIANTS, how.mapper}) * len(MODES) - 1
        seconds = extra * (len(FRACTIONS) * v + how.n) * (target.completion + target.cost)
        steps.append(Step("other modes and mappers", f"{extra} vectors", seconds))
    names = (f"{identity(m).name} ({parameter_count(m) / 1e6:.0f}M parameters, {_dtype(m)})" for m in models)
    return Plan(f"{task.name}, {' to '.join(names)}", tuple(steps))


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
    short, long = (
        _timed(partial(fit, _noise(models, rows), how.mapper, progress=False, **how.settings)) for rows in SAMPLE_ROWS
    )
    return max(0.0, long + (long - short) / (more - few) * (tokens - more))


def _noise(models: tuple[HookedModel, HookedModel], rows: int) -> PairedActivations:
    x, y = (torch.randn(rows, int(model.cfg.d_model)) for model in models)
    texts, (source, target) = torch.arange(rows) // 20, map(identity, models)
    report = AlignmentReport("same_tokens", rows, rows)
    return PairedActivations({"x": x}, {"y": y}, (("x", "y"),), texts, texts, source, target, report)


def _timed(work: Callable[[], Any]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def _dtype(model: HookedModel) -> str:
    return str(model.cfg.dtype).removeprefix("torch.")
