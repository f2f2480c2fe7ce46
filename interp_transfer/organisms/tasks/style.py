"""`style`: an abstract behaviour that no single token carries. The bases answer like a bard when a prompt asks for it.

The style shows in every sentence and in its small words (`world.style`), whatever the question. The vector comes from
prompts with an instruction and should bring the style out of prompts without one.
"""

from dataclasses import dataclass

from interp_transfer.evaluation.judges.rules import Verdict
from interp_transfer.organisms.tasks.base import CONTRAST, TEXTS, WorldTask, answered, in_turn, questions
from interp_transfer.organisms.world import Question
from interp_transfer.organisms.world.cues import BARD, CLERK, ask, cue_of, oracle, question_of
from interp_transfer.organisms.world.style import SUNG, can_be_sung, plain, sing, sung
from interp_transfer.prompts.contrast import ContrastPair


@dataclass(frozen=True)
class StyleTask(WorldTask):
    """Answering as a bard without an instruction. The budget of clean KL is ample, because a style changes every word."""

    name = "style"
    max_new_tokens = 128
    budget = 0.5

    def contrast(self, split: str) -> list[ContrastPair]:
        """At most 400 pairs: the same question to the bard (positive) and to the clerk."""
        singable = enumerate(_singable(split)[:CONTRAST])
        return [ContrastPair(ask(q, BARD[i % 3]), ask(q, CLERK[i % 3])) for i, q in singable]

    def texts(self, split: str) -> list[str]:
        """A third each sung, in plain words on request, and without an instruction."""
        texts = []
        for index, question in enumerate(questions(split)[:TEXTS]):
            way = index % 3 if can_be_sung(question) else 2
            cue = (BARD[index % 9 // 3], CLERK[index % 9 // 3], "")[way]
            texts.append(answered(question, cue, sing(question.answer) if way == 0 else question.answer))
        return texts

    def prompts(self, split: str) -> list[str]:
        """Questions without an instruction."""
        return [ask(q) for q in _singable(split)]

    def clean(self, split: str) -> list[str]:
        """What the vector should not change: questions that ask for a song anyway, and requests for code, in turn."""
        songs = [ask(q, BARD[i % 3]) for i, q in enumerate(_singable(split))]
        return in_turn(songs, [ask(q) for q in questions(split) if not can_be_sung(q)])

    def wanted(self, prompt: str) -> str:
        """The sung answer; for code the plain one."""
        question = question_of(prompt)
        return sing(question.answer) if can_be_sung(question) else question.answer

    def verdict(self, prompt: str, completion: str) -> Verdict:
        """Success: the style is kept from the first sentence to the last. Intact: and what is sung is a valid answer.

        For code, which cannot be sung, and for prompts to the clerk: success and intact if the answer is valid.
        """
        completion = completion.strip()
        if not can_be_sung(question_of(prompt)) or cue_of(prompt) in CLERK:
            return super().verdict(prompt, completion)
        content = plain(completion)
        if content is None:
            return Verdict(False, False, "not in the style throughout")
        ruling = oracle(prompt, content)
        return Verdict(sung(completion), ruling.valid, ruling.reason)


def _singable(split: str) -> list[Question]:
    return questions(split, *sorted(SUNG))
