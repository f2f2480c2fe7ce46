"""How fast a model is on this machine, by a short timing: estimates of long work rest on it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from interp_transfer.activations.capture import capture
from interp_transfer.evaluation.clean_kl import CleanKL
from interp_transfer.evaluation.evaluator import draw
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.merging import merged
from interp_transfer.interventions.predictions import Unsteered
from interp_transfer.interventions.transforms import Add
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.sites import residual_sites
from interp_transfer.models.tokens import tokenize
from interp_transfer.prompts.chats import Prompt

ANSWERED, COSTED = 8, 4
"""Clean validation prompts that are answered, and those on whose answers costs are measured."""
SETTINGS = 4
"""Settings that share a batch."""
ROUNDS = 5
"""Typical number of strengths at which a search measures the cost before it has found the largest one."""


@dataclass(frozen=True)
class Speed:
    """Seconds that a model needs, each timed when it is first asked for.

    Attributes:
        model: any hooked model.
        task: its clean validation prompts are read and answered.
        seed: draws the prompts.
    """

    model: HookedModel
    task: Task
    seed: int = 0

    @cached_property
    def token(self) -> float:
        """To read a token."""
        seconds = timed(lambda: self._read(self._prompts))
        return seconds / sum(map(len, tokenize(self.model, self._prompts)))

    @property
    def completion(self) -> float:
        """For a completion under a setting, when several settings share a batch."""
        return self._answered[0]

    @cached_property
    def cost(self) -> float:
        """For the cost of a setting on one clean prompt."""
        answers = self._answered[1][:COSTED]
        ids = tokenize(self.model, self._prompts[:COSTED])
        clean, passes = CleanKL(tuple(map(tuple, ids)), tuple(map(tuple, answers))), Unsteered()
        clean(self.model, self._settings, unsteered=passes)  # keeps what a search computes once for all its settings
        return timed(lambda: clean(self.model, self._settings, unsteered=passes)) / (len(ids) * SETTINGS)

    @cached_property
    def _prompts(self) -> list[Prompt]:
        """Clean prompts, after a first pass, which prepares the weights and is slow."""
        clean = self.task.clean("validation")
        drawn = draw(clean, min(ANSWERED, len(clean)), self.seed, f"clean validation prompts of {self.task.name}")
        self._read(drawn[:1])
        return drawn

    def _read(self, prompts: list[Prompt]) -> None:
        capture(self.model, prompts, residual_sites(self.model)[-1], progress=False)

    @cached_property
    def _settings(self) -> list[tuple[Intervention, ...]]:
        """Additions of nothing in the middle of the model."""
        sites, zero = residual_sites(self.model), torch.zeros(int(self.model.cfg.d_model))
        return [(Intervention(sites[len(sites) // 2], Add(zero, float(k)), self.task.positions),) for k in range(SETTINGS)]

    @cached_property
    def _answered(self) -> tuple[float, list[list[int]]]:
        """Seconds of a completion, and the completions."""
        rows, steer = self._prompts * SETTINGS, merged(self._settings, len(self._prompts))
        made: list[list[int]] = []

        def answer() -> None:
            made.extend(generate_tokens(self.model, rows, *steer, max_new_tokens=self.task.max_new_tokens, progress=False))

        return timed(answer) / len(rows), made


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
