"""Tasks of the lm-evaluation-harness on a steered model: its own by name, and two of the micro-world that need no network.

``micro_choice`` asks for the likeliest of four answers, the right one and three wrong ones of the same form; chance is 1/4.
``micro_answer`` lets the model say what it likes, and the world's oracle rules on it. Both are ordinary tasks of the harness
(the folder ``micro``), which ``lm_eval.simple_evaluate(..., task_manager=micro_tasks())`` runs without this module.
"""

import difflib
import logging
import random
import re
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

from interp_transfer.organisms.world import WORLD_VERSION, Question, load_world
from interp_transfer.organisms.world.cues import ask, oracle
from interp_transfer.organisms.world.question import capital
from interp_transfer.evaluation.capability.harness import BATCH_SIZE, harness_model, need_lm_eval
from interp_transfer.organisms.measure import APART
from interp_transfer.stats import Estimate, mean_interval
from interp_transfer.evaluation.metrics import Rate, rate
from interp_transfer.interventions.apply import Intervention
from interp_transfer.models.load import identity
from interp_transfer.models.sites import HookedModel

FOLDER = Path(__file__).parents[2] / "organisms" / "harness"
MICRO = ("micro_choice", "micro_answer")
WITH_CHOICES = ("facts", "howto", "code")
"""Families whose wrong answers can be told from others' right ones: what is said of another subject, said of this one."""
WRONG = 3
LOGGERS = ("lm_eval", "datasets", "huggingface_hub")
LEADING = ("valid", "acc", "exact_match", "f1")
"""Metrics that may stand for a task, the first that it has."""

Scores = Mapping[str, Rate | Estimate]
"""By name of the metric: a share of documents with its exact interval, or a mean over them."""


@dataclass(frozen=True)
class Capability:
    """What a model can do in the harness' tasks.

    Attributes:
        scores: by task. A group, such as mmlu, has the documents of all its tasks, each counting alike.
        whole: by task, the metrics that are no mean over documents, such as those of squadv2: the harness' figure, which comes
            without an interval.
        details: model, interventions, settings and versions.
    """

    scores: Mapping[str, Scores]
    whole: Mapping[str, Mapping[str, float]]
    details: Mapping[str, Any]

    def __getitem__(self, task: str) -> Rate | Estimate:
        """The figure that stands for a task: the first of valid, acc, exact_match and f1 that it has, else its first.

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
        """As JSON holds it."""
        scores = {task: {name: one.to_dict() for name, one in found.items()} for task, found in self.scores.items()}
        return {**self.details, "scores": scores, "whole": {task: dict(found) for task, found in self.whole.items()}}

    def __str__(self) -> str:
        both = [*self.scores.items(), *self.whole.items()]
        return "\n".join(f"{task}: {name} {one}" for task, found in both for name, one in found.items())


def evaluate(
    model: HookedModel,
    *interventions: Intervention,
    tasks: Sequence[str] = MICRO,
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
        interventions: the context of a task is their prompt, what is scored or said is generated.
        tasks: names: ``micro_choice``, ``micro_answer``, or any task or group of the harness (``mmlu``, ``squadv2``,
            ``arc_easy``, ``gsm8k``), whose data is fetched from the hub unless it is there already.
        limit: documents of each task, the first ones; of each task of a group, so that 4 of mmlu are 228. All if None.
        shots: solved examples before each question; as the task has it if not given. Those of this project have none.
        chat: put the harness' tasks into the chat template of the model's tokenizer. Those of this project are in it anyway.
        max_new_tokens: what is said at most, in tokens, in the harness' tasks; as the task has it if not given.
        batch_size: texts in a batch, at most.
        seed: draws the solved examples. Nothing else is random.
        progress: show bars; also lets the harness report what it does.

    Raises:
        ValueError: for an unknown task, naming the closest ones, or one whose data cannot be had.
        ImportError: without lm-eval, naming the extra that holds it.
    """
    if isinstance(tasks, str) or not tasks:
        raise ValueError(f"tasks={tasks!r}: give a list of names, ['micro_choice', 'mmlu']")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: give at least one document, or None for all")
    lm_eval = need_lm_eval()
    scores, whole = {}, {}
    with _quiet(progress), _own_random_numbers():
        found = {name: _load(name) for name in dict.fromkeys(tasks)}  # before any work
        adapter = harness_model(model, *interventions, batch_size=batch_size, progress=progress)
        for name, parts in found.items():
            ours = name in MICRO
            asking: dict[str, Any] = {"limit": limit, "num_fewshot": None if ours else shots}
            asking["apply_chat_template"] = chat and not ours
            asking["gen_kwargs"] = None if ours or max_new_tokens is None else {"max_gen_toks": max_new_tokens}
            seeds = {"fewshot_random_seed": seed} | {
                f"{kind}_seed": None for kind in ("random", "numpy_random", "torch_random")
            }
            with _having_data(name):
                result = lm_eval.simple_evaluate(
                    model=adapter, tasks=parts, bootstrap_iters=0, task_manager=micro_tasks(), **asking, **seeds
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


def micro_tasks(*, others: bool = False) -> Any:
    """The harness' ``TaskManager`` that knows the two tasks of the micro-world.

    Args:
        others: whether it knows the harness' own tasks too, which it takes some seconds to list.
    """
    need_lm_eval()
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(FOLDER), include_defaults=others)


@cache
def _all_tasks() -> Any:
    return micro_tasks(others=True)


def choice_documents(**_: Any) -> dict[str, Any]:
    """Questions with four answers, as the harness takes them; what it passes on is of no use here."""
    return _documents(_choices())


def answer_documents(**_: Any) -> dict[str, Any]:
    """Questions with their canonical answers: every family of the bases but those that small models find hard."""
    asked = (q for q in load_world().questions("test") if q.family not in APART)
    return _documents([{"prompt": ask(q), "answer": f" {q.answer}", "family": q.family} for q in asked])


def judged(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, int]:
    """Whether the world's oracle takes a completion for a valid answer."""
    return {"valid": int(oracle(doc["prompt"], results[0]).valid)}


def _documents(rows: list[dict[str, Any]]) -> dict[str, Any]:
    from datasets import Dataset

    return {"test": Dataset.from_list(rows)}


@cache
def _choices() -> list[dict[str, Any]]:
    rows = []
    for question in load_world().questions("test", *WITH_CHOICES):
        wrong = wrong_answers(question)
        if len(wrong) < WRONG:
            continue
        choices = [question.answer, *wrong]
        random.Random(f"{WORLD_VERSION} order {question.text}").shuffle(choices)
        row = {"prompt": ask(question), "choices": [f" {choice}" for choice in choices]}
        rows.append({**row, "right": choices.index(question.answer), "family": question.family})
    return rows


def wrong_answers(question: Question, n: int = WRONG) -> list[str]:
    """Answers in the form of the right one that the oracle rejects, always the same; fewer where there are not as many.

    What the world says of other subjects in answer to the same wording, said of this one: the wrong cargo of the right ship.
    Those to the same aspect come first.
    """
    world = load_world()
    others = list(_same_wording()[question.family, question.phrasing])
    random.Random(f"{WORLD_VERSION} wrong {question.text}").shuffle(others)
    others.sort(key=lambda other: other.aspect != question.aspect)
    found: dict[str, None] = {}
    for other in others:
        text = _said_of(question, other)
        if text.casefold() != question.answer.casefold() and not world.judge(question, text).valid:
            found.setdefault(text)
        if len(found) == n:
            break
    return list(found)


@cache
def _same_wording() -> dict[tuple[str, int], tuple[Question, ...]]:
    found: dict[tuple[str, int], list[Question]] = {}
    for split in ("train", "validation", "test"):
        for question in load_world().questions(split, *WITH_CHOICES):
            found.setdefault((question.family, question.phrasing), []).append(question)
    return {key: tuple(sorted(questions, key=lambda q: q.text)) for key, questions in found.items()}


def _said_of(question: Question, other: Question) -> str:
    """The answer to another question with this one's subject and aspect in it."""
    pairs = [(other.subject, question.subject), (other.aspect, question.aspect)]
    table = {old: new for old, new in pairs if old} | {capital(old): capital(new) for old, new in pairs if old}
    pattern = "|".join(re.escape(old) for old in sorted(table, key=len, reverse=True))
    return re.sub(rf"\b(?:{pattern})\b", lambda match: table[match[0]], other.answer)


def _load(name: str) -> list[Any]:
    """The harness' tasks behind a name.

    Raises:
        ValueError: for a name that is not known, or a task whose data cannot be had.
    """
    manager = micro_tasks() if name in MICRO else _all_tasks()
    if name not in manager.task_index:
        close = difflib.get_close_matches(name, manager.all_tasks, n=3, cutoff=0.6)
        meant = f"did you mean {', '.join(close)}? " if close else ""
        raise ValueError(f"the harness has no task {name!r}: {meant}`lm-eval ls tasks` lists all of them")
    with _having_data(name):
        return list(manager.load([name])["tasks"].values())


@contextmanager
def _having_data(name: str) -> Iterator[None]:
    """Say which task it is whose data set, or metric, the hub does not give."""
    try:
        yield
    except OSError as error:  # ConnectionError, FileNotFoundError and the hub's own errors are kinds of it
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"the data of task {name!r} cannot be had: {first}. Run it once where there is a network, or take the tasks "
            f"that need none: {', '.join(MICRO)}"
        ) from error


def _scores(result: Mapping[str, Any], parts: Sequence[str]) -> tuple[Scores, Mapping[str, float]]:
    """Every metric over the documents of all parts; a filter's name stands behind the metric where it is not "none"."""
    values: dict[str, list[Any]] = {}
    for part in parts:
        for sample in result["samples"][part]:
            for metric in sample["metrics"]:
                values.setdefault(f"{metric},{sample['filter']}", []).append(sample[metric])
    scores: dict[str, Rate | Estimate] = {}
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
    """The caller's generators as they were: loading data draws from them."""
    plain, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(numpy)


@contextmanager
def _quiet(progress: bool) -> Iterator[None]:
    """Without what the harness prints and logs, unless that is wanted."""
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
