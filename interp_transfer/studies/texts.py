"""What mappers are fitted on: texts that were given, the task's own, or prompts with answers that the target generates.

A task that has prompts alone says little about the activations of answers. So the default is the task's training prompts, each
with the target's own answer, but for targets that a plugin made for its tasks. Where these are chats and too few, questions
under the instructions of all ready traits (``prompts.traits``) are added. Answers are kept in the user's cache folder, under a
hash of the model and of the prompts as it reads them, portion by portion, so that a killed run resumes.
"""

import random
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from interp_transfer.evaluation.kept import Kept
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.generation import generate
from interp_transfer.io import cache_folder, hashed
from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.mapping.stored import StoredPairs
from interp_transfer.models.hooked_model import HookedModel, context_length
from interp_transfer.models.identity import identity
from interp_transfer.models.tokens import tokenize
from interp_transfer.plugins import known_model
from interp_transfer.progress import progress_bar
from interp_transfer.prompts.chats import Chat, Prompt, with_answer
from interp_transfer.prompts.texts import read_texts
from interp_transfer.prompts.traits import questions, traits

TASK, GENERATED = "task", "generated"
"""Names for the two sources that are no files."""
TOKENS, TOKENS_PER_DIMENSION = 20_000, 20
"""Tokens of prompts and answers together: at least the first number, and the second for each dimension of either model."""
ANSWER_TOKENS = 32
"""Largest length of an answer."""
PORTION = 64
"""Number of answers after which they are stored."""
IN_MEMORY = 2 * 2**30
"""Bytes of pairs above which they are kept in a store on disk."""


@dataclass(frozen=True)
class MapperTexts:
    """Texts and their origin in words."""

    texts: list[Prompt]
    origin: str


def given_texts(texts: str | Path | Iterable[Any] | None) -> MapperTexts | None:
    """Return the texts of a file, a data set or an iterable; None for None, "task" and "generated".

    Raises:
        ValueError: for texts that cannot be read.
    """
    if texts is None or texts in (TASK, GENERATED):
        return None
    named = isinstance(texts, str | Path)
    return MapperTexts(read_texts(texts), f"texts of {texts}" if named else "texts that were passed")


def mapper_texts(
    task: Task, models: tuple[HookedModel, HookedModel], which: str | None = None, *, seed: int = 0, progress: bool = True
) -> MapperTexts:
    """Return the texts that mappers between two models are fitted on where none were given.

    Args:
        task: its training texts, or its training prompts, are used.
        models: source and target.
        which: "task" or "generated"; None chooses.
        seed: of the order in which prompts are answered.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: for a cache folder that cannot be written.
    """
    _, target = models
    if not _generated(task, target, which):
        return MapperTexts(_training_texts(task), "the task's training texts")
    tokens = mapper_tokens(models)
    own = training_prompts(task, seed)
    more = ready_prompts(seed) if all(isinstance(prompt, Chat) for prompt in own) else []
    whole = answered(target, [*own, *more], tokens, min(task.max_new_tokens, ANSWER_TOKENS), progress)
    counts = [f"{min(len(own), len(whole))} training prompts of the task"]
    if len(whole) > len(own):
        counts.append(f"{len(whole) - len(own)} ready questions")
    return MapperTexts(whole, f"{' and '.join(counts)}, with answers by {identity(target).name}")


def tokens_wanted(
    task: Task, models: tuple[HookedModel, HookedModel], which: str | None, given: MapperTexts | None
) -> tuple[int, int]:
    """Return about how many tokens the texts of a run will have, and how many of the texts the target will answer."""
    _, target = models
    if given is not None or not _generated(task, target, which):
        texts = given.texts if given is not None else _training_texts(task)
        return sum(map(len, tokenize(target, texts, any_length=True))), 0
    prompts = training_prompts(task, 0)
    length = sum(map(len, tokenize(target, prompts, any_length=True))) / len(prompts)
    tokens = mapper_tokens(models)
    return tokens, round(tokens / (length + min(task.max_new_tokens, ANSWER_TOKENS)))


def _training_texts(task: Task) -> list[Prompt]:
    try:
        return task.texts("train")
    except ValueError as error:
        raise ValueError(f"{error}; or fit mappers on the target's answers: texts='generated' (--texts generated)") from error


def _generated(task: Task, target: HookedModel, which: str | None) -> bool:
    known = known_model(identity(target).name)
    own = which == TASK or not task.texts_are_prompts or (known is not None and not known.fetched)
    return which == GENERATED or not own


def mapper_tokens(models: tuple[HookedModel, HookedModel]) -> int:
    """Return about how many tokens mappers between two models are fitted on."""
    return max(TOKENS, TOKENS_PER_DIMENSION * max(int(model.cfg.d_model) for model in models))


def training_prompts(task: Task, seed: int) -> list[Prompt]:
    """Return all training prompts of a task in a mixed order, each once: of the contrast, those that are tried, clean ones."""
    contrast = task.contrast("train")
    every = [side for pair in contrast for side in (pair.positive, pair.negative)]
    once = list(dict.fromkeys([*every, *task.prompts("train"), *task.clean("train")]))
    random.Random(seed).shuffle(once)
    return once


def ready_prompts(seed: int) -> list[Prompt]:
    """Return the ready training questions under the instructions of every trait, and alone, in a mixed order."""
    instructions = [None, *(one for trait in traits().values() for one in trait.instructions)]
    systems = [() if one is None else (("system", one),) for one in instructions]
    chats: list[Prompt] = [Chat((*system, ("user", question))) for system in systems for question in questions("train")]
    random.Random(seed).shuffle(chats)
    return chats


def answered(
    model: HookedModel, prompts: Sequence[Prompt], tokens: int, max_new_tokens: int, progress: bool = True
) -> list[Prompt]:
    """Return prompts with a model's own greedy answers, from the first on, until they have so many tokens together.

    Args:
        model: any hooked model.
        prompts: texts or chats; those that leave no room for an answer are left out.
        tokens: number of tokens of prompts and answers from which no more are answered.
        max_new_tokens: largest length of an answer.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: for prompts that all leave no room, or a cache folder that cannot be written.
    """
    room = context_length(model) - max_new_tokens
    fitting = [(p, row) for p, row in zip(prompts, tokenize(model, prompts, any_length=True), strict=True) if len(row) <= room]
    if not fitting:
        raise ValueError(f"no prompt leaves room for {max_new_tokens} new tokens in the model's context: give texts to fit on")
    prompts, ids = [prompt for prompt, _ in fitting], [row for _, row in fitting]
    kept, about = Kept(cache_folder("texts")), [identity(model).fingerprint, max_new_tokens]
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "progress": False}
    bar = progress_bar("answers", progress, total=tokens, unit="token")
    whole: list[Prompt] = []
    read = 0  # a bar that is off does not count
    with bar:
        while read < tokens and len(whole) < len(prompts):
            start = len(whole)
            part = slice(start, start + PORTION)
            key = hashed([*about, ids[part]])
            try:
                [answers] = kept.each(
                    "answers", [key], lambda _, part=part: [generate(model, prompts[part], **options)], list[str], at_once=1
                )
            except OSError as error:
                raise ValueError(
                    f"cannot keep answers in {str(kept.folder)!r}: {error.strerror}; free some space, or set XDG_CACHE_HOME to "
                    "another folder, or give texts"
                ) from error
            whole += [with_answer(p, a) for p, a in zip(prompts[part], answers, strict=True)]
            more = sum(map(len, tokenize(model, whole[start:], any_length=True)))
            read += more
            bar.update(more)
    return whole


def pairs_key(models: tuple[HookedModel, HookedModel], texts: Sequence[Prompt], sites: tuple[str, str], strategy: str) -> str:
    """Return a hash of what pairs are collected from."""
    return hashed([*(identity(model).fingerprint for model in models), *sites, strategy, list(map(str, texts))])


def paired(
    models: tuple[HookedModel, HookedModel],
    texts: Sequence[Prompt],
    sites: tuple[str, str],
    strategy: str,
    progress: bool = True,
    folder: Path | None = None,
) -> PairedActivations:
    """Collect pairs into memory, or above ``IN_MEMORY`` into a store on disk, from which the call resumes.

    Args:
        models: source and target.
        texts: what both read; texts beyond a context are left out and counted.
        sites: of source and target.
        strategy: how tokens are paired.
        progress: show bars for what takes longer than two seconds.
        folder: keep pairs of any number in a store there; without it, large ones are in the user's cache folder.
    """
    source, target = models
    options: dict[str, Any] = {"strategy": strategy, "too_long": "drop", "progress": progress}
    tokens = sum(map(len, tokenize(target, texts, any_length=True)))
    bytes_per_token = sum(int(m.cfg.d_model) * torch.finfo(m.cfg.dtype).bits // 8 for m in models)
    large = tokens * bytes_per_token > IN_MEMORY
    if large or folder is not None:
        key = pairs_key(models, texts, sites, strategy)
        options["store"] = cache_folder("pairs") / key if folder is None else folder / f"pairs-{key}"
    pairs = collect(source, target, texts, *sites, **options)
    return pairs if large or not isinstance(pairs, StoredPairs) else pairs.in_memory()


def discard(pairs: PairedActivations) -> None:
    """Remove the store of pairs that `paired` put on disk."""
    if isinstance(pairs, StoredPairs):
        shutil.rmtree(pairs.store.folder)
