"""How fast a model is on this machine, by a short timing: estimates of long work rest on it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from interp_transfer.activations.capture import capture
from interp_transfer.evaluation.evaluator import Evaluator, evaluator
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import Unsteered
from interp_transfer.interventions.transforms import Add
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.sites import residual_sites
from interp_transfer.models.tokens import tokenize

SAMPLE = 8
"""Prompts that are answered and read for the timing."""
SETTINGS = 4
"""Settings whose cost is measured together for the timing."""
ROUNDS = 5
"""Typical number of strengths at which a search measures the cost before it has found the largest one."""


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
    answering = timed(lambda: few.append(evaluator(model, task, "validation", n=n, seed=seed, clean_prompts=n)))
    sites = residual_sites(model)
    zero = torch.zeros(int(model.cfg.d_model))
    settings = [(Intervention(sites[len(sites) // 2], Add(zero, float(k)), task.positions),) for k in range(SETTINGS)]
    many = replace(few[0], passes=Unsteered())
    many.costs(settings)  # keeps the passes of the unsteered model, of which a search needs one for all its settings
    costs = timed(lambda: many.costs(settings))
    prompts = list(many.prompts)
    reading = timed(lambda: capture(model, prompts, sites[-1], progress=False))
    tokens = sum(map(len, tokenize(model, prompts)))
    return Speed(answering / n, costs / (n * len(settings)), reading / tokens)


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that a function takes."""
    start = time.monotonic()
    work()
    return time.monotonic() - start
