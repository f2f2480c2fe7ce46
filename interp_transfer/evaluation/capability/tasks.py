"""Tasks of the lm-evaluation-harness on a steered model: its own by name, and those of a folder of task files."""

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp_transfer.evaluation.capability.harness import BATCH_SIZE, harness_model, require_lm_eval
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.names import did_you_mean, first_line
from interp_transfer.stats import Estimate, mean_interval, rate

LOGGERS = ("lm_eval", "datasets", "huggingface_hub")
LEADING = ("valid", "acc", "exact_match", "f1")
"""Metrics in order of preference for a task's main figure."""

Scores = Mapping[str, Estimate]
"""By name of the metric: a share of documents with its exact interval, or a mean over them."""


@dataclass(frozen=True)
class Capability:
    """A model's scores in tasks of the harness.

    Attributes:
        scores: by task. A group, such as mmlu, has the documents of all its tasks, with equal weights.
        whole: by task, the metrics that are no mean over documents, such as those of squadv2: the harness' figure, without an
            interval.
        details: model, interventions, settings and versions.
    """

    scores: Mapping[str, Scores]
    whole: Mapping[str, Mapping[str, float]]
    details: Mapping[str, Any]

    def __getitem__(self, task: str) -> Estimate:
        """Return a task's main figure: the first of valid, acc, exact_match and f1 that it has, else its first.

        Raises:
            KeyError: for a task that was not run, or has no figure with an interval.
        """
        found = self.scores.get(task)
        if not found:
            what = (
                f"only {dict(self.whole[task])}, see whole"
                if self.whole.get(task)
                else f"was not run, {list(self.scores)} were"
            )
            raise KeyError(f"{task}: {what}")
        return found[next((name for name in LEADING if name in found), next(iter(found)))]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON stores them."""
        scores = {task: {name: one.to_dict() for name, one in found.items()} for task, found in self.scores.items()}
        return {**self.details, "scores": scores, "whole": {task: dict(found) for task, found in self.whole.items()}}

    def __str__(self) -> str:
        both = [*self.scores.items(), *self.whole.items()]
        return "\n".join(f"{task}: {name} {one}" for task, found in both for name, one in found.items())


def evaluate(
    model: HookedModel,
    *interventions: Intervention,
    tasks: Sequence[str],
    include_path: str | Path | None = None,
    limit: int | None = 200,
    shots: int | None = None,
    chat: bool = False,
    max_new_tokens: int | None = None,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    progress: bool = False,
) -> Capability:
    """Run tasks of the lm-evaluation-harness by name on a model under any number of interventions.

    Args:
        model: any hooked model.
        interventions: the context of a task is their prompt; scored and generated tokens count as generated.
        tasks: names of tasks or groups of the harness (``mmlu``, ``squadv2``, ``arc_easy``, ``gsm8k``), whose data is fetched
            from the hub unless it is cached, or of task files in ``include_path``.
        include_path: folder of further task files (YAML); these are run as they are, without shots or a chat template.
        limit: number of documents of each task, from the first, also of each task of a group: 4 of mmlu are 228. All if None.
        shots: number of solved examples before each question; default: the task's own.
        chat: render the harness' tasks by the chat template of the model's tokenizer.
        max_new_tokens: maximum number of generated tokens in the harness' tasks; default: the task's own.
        batch_size: maximum number of texts in a batch.
        seed: draws the solved examples. Nothing else is random.
        progress: show bars and the harness' log.

    Raises:
        ValueError: for an unknown task, naming the closest ones, or one whose data cannot be loaded.
        ImportError: if lm-eval is not installed.
    """
    if isinstance(tasks, str) or not tasks:
        raise ValueError(f"tasks={tasks!r}: give a list of names, ['mmlu']")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: give at least one document, or None for all")
    lm_eval = require_lm_eval()
    scores, whole = {}, {}
    with _quiet(progress), _own_random_numbers():
        own = _manager(str(include_path)) if include_path is not None else None
        found = {name: _load(name, own) for name in dict.fromkeys(tasks)}  # before any work
        adapter = harness_model(model, *interventions, batch_size=batch_size, progress=progress)
        for name, parts in found.items():
            ours = own is not None and name in own.task_index
            asking: dict[str, Any] = {"limit": limit, "num_fewshot": None if ours else shots}
            asking["apply_chat_template"] = chat and not ours
            asking["gen_kwargs"] = None if ours or max_new_tokens is None else {"max_gen_toks": max_new_tokens}
            seeds = {"fewshot_random_seed": seed} | {
                f"{kind}_seed": None for kind in ("random", "numpy_random", "torch_random")
            }
            with _having_data(name):
                result = lm_eval.simple_evaluate(
                    model=adapter, tasks=parts, bootstrap_iters=0, task_manager=own if ours else _manager(), **asking, **seeds
                )
            scores[name], whole[name] = _scores(result, [part.task_name for part in parts])
    known = identity(model)
    details = {
        "model": {"name": known.name, "fingerprint": known.fingerprint},
        "interventions": [str(one) for one in interventions],
        "settings": {"limit": limit, "shots": shots, "chat": chat, "max_new_tokens": max_new_tokens, "seed": seed},
        "versions": {name: version(name) for name in ("interp-transfer", "lm-eval", "torch", "transformers")},
    }
    return Capability(scores, whole, details)


@cache
def _manager(include_path: str | None = None) -> Any:
    """The harness' own tasks, whose listing takes seconds, or those of a folder."""
    require_lm_eval()
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include_path, include_defaults=include_path is None)


def _load(name: str, own: Any) -> list[Any]:
    """The harness' tasks of a name.

    Raises:
        ValueError: for a name that is not known, or a task whose data cannot be loaded.
    """
    manager = own if own is not None and name in own.task_index else _manager()
    if name not in manager.task_index:
        hint = did_you_mean(name, [*(own.all_tasks if own is not None else ()), *manager.all_tasks], n=3)
        raise ValueError(f"the harness has no task {name!r}: {hint}`lm-eval ls tasks` lists all of them")
    with _having_data(name):
        return list(manager.load([name])["tasks"].values())


@contextmanager
def _having_data(name: str) -> Iterator[None]:
    """Name the task whose data set or metric cannot be loaded."""
    try:
        yield
    except OSError as error:  # ConnectionError, FileNotFoundError and the hub's own errors are kinds of it
        reason = first_line(error)
        raise ValueError(f"the data of task {name!r} cannot be loaded: {reason}. Run it once with a network") from error


def _scores(result: Mapping[str, Any], parts: Sequence[str]) -> tuple[Scores, Mapping[str, float]]:
    """Every metric over the documents of all parts; the name of a filter other than "none" follows the metric's."""
    values: dict[str, list[Any]] = {}
    for part in parts:
        for sample in result["samples"][part]:
            for metric in sample["metrics"]:
                values.setdefault(f"{metric},{sample['filter']}", []).append(sample[metric])
    scores: dict[str, Estimate] = {}
    whole: dict[str, float] = {}
    for key, each in values.items():
        name = key.removesuffix(",none")
        if all(isinstance(value, bool | int | float) for value in each):
            scores[name] = rate([bool(v) for v in each]) if set(each) <= {0, 1} else mean_interval(map(float, each))
            continue
        had = [part for part in parts if key in result["results"][part]]
        sizes = [len(result["samples"][part]) for part in had]
        total = sum(float(result["results"][part][key]) * size for part, size in zip(had, sizes, strict=True))
        whole[name] = total / sum(sizes)
    return scores, whole


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Restore the caller's random generators, from which loading data draws."""
    plain, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(numpy)


@contextmanager
def _quiet(progress: bool) -> Iterator[None]:
    """Suppress the harness' output and log, unless ``progress``."""
    if progress:
        yield
        return
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
