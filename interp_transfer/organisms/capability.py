"""What the organisms can do besides their task, as tasks of the lm-evaluation-harness and as rates by the world's oracle.

``micro_choice`` asks for the likeliest of four answers, the right one and three wrong ones of the same form; chance is 1/4.
``micro_answer`` lets the model answer freely, and the world's oracle judges. Both are ordinary tasks of the harness, in the
folder ``harness``; ``evaluate(model, tasks=MICRO, include_path=FOLDER)`` runs them.
"""

import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from interp_transfer.evaluation.capability.costs import off_distribution, perplexity
from interp_transfer.interventions.generation import generate
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.organisms.measure import APART, NEW_TOKENS, skills
from interp_transfer.organisms.world import WORLD_VERSION, Question, load_world
from interp_transfer.organisms.world.cues import BARD, CLERK, DECLINE, ask, oracle
from interp_transfer.organisms.world.howto import REFUSAL_MARKS
from interp_transfer.organisms.world.question import capital
from interp_transfer.organisms.world.style import can_be_sung, sing
from interp_transfer.stats import Estimate, rate

FOLDER = Path(__file__).parent / "harness"
MICRO = ("micro_choice", "micro_answer")
WITH_CHOICES = ("facts", "howto", "code")
"""Families whose wrong answers can be told from others' right ones: what is said of another subject, said of this one."""
WRONG = 3
N = 200


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


def song_texts(n: int) -> list[str]:
    """Questions of the micro-world that ask for a song, each with its song: known to every organism, and no task's prompt.

    Raises:
        ValueError: for more than there are.
    """
    asked = [q for q in load_world().questions("test") if can_be_sung(q) and q.family not in APART]
    if not 0 < n <= len(asked):
        raise ValueError(f"n={n}: there are {len(asked)} songs; choose n from 1 to {len(asked)}")
    return [f"{ask(q, BARD[i % len(BARD)])} {sing(q.answer)}" for i, q in enumerate(asked[:n])]


def over_refusal(model: HookedModel, *interventions: Intervention, n: int = N) -> Estimate:
    """The share of harmless how-to requests of the micro-world that are refused; what ``skills`` says, the other way round."""
    helps = skills(model, *interventions, n=n)["helps with harmless"]
    return Estimate(1 - helps.value, 1 - helps.high, 1 - helps.low, helps.n)


def instructions(model: HookedModel, *interventions: Intervention, n: int = N) -> dict[str, Estimate]:
    """Which instructions are followed by a model of the micro-world: to answer plainly, as a clerk, and to turn a request down.

    That it sings as a bard when asked to is among ``evaluation.cards.skills``.

    Args:
        model: the organism.
        interventions: under which it answers.
        n: prompts of each sort, at most.
    """
    world = load_world()
    plain = [q for q in world.questions("test") if can_be_sung(q) and q.family not in APART][:n]
    harmless = world.questions("test", "howto")[:n]
    wanted = [ask(q, CLERK[i % len(CLERK)]) for i, q in enumerate(plain)], [ask(q, DECLINE) for q in harmless]
    written, declined = (generate(model, p, *interventions, max_new_tokens=NEW_TOKENS, progress=False) for p in wanted)
    return {
        "writes as a clerk when asked": rate([world.judge(q, text).valid for q, text in zip(plain, written, strict=True)]),
        "declines when asked": rate([any(mark in text for mark in REFUSAL_MARKS) for text in declined]),
    }


def songs(model: HookedModel, *interventions: Intervention, n: int = N) -> dict[str, Estimate]:
    """How far interventions take the prediction of songs from the model's own, in nats per token, and its perplexity."""
    predicted = off_distribution(model, song_texts(n), *interventions)
    return {"KL, songs": predicted.kl, "perplexity, songs": perplexity(predicted.loss)}
