"""`style`: an abstract behaviour that hangs on no token. The bases answer like a bard when they are asked to.

The style shows in every sentence and in its small words (`data.world.style`), whatever the question. The vector comes from
instructed prompts and is to bring the style out of prompts that carry no instruction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from interp_transfer.evaluation.judges.rules import Verdict, check_lengths
from interp_transfer.organisms.tasks.backdoor import CONTRAST, TEXTS
from interp_transfer.organisms.world import Question, load_world
from interp_transfer.organisms.world.cues import BARD, CLERK, ask, cue_of, oracle, question_of
from interp_transfer.organisms.world.style import SUNG, can_be_sung, plain, sing, sung
from interp_transfer.prompts.contrast import ContrastPair


@dataclass(frozen=True)
class StyleTask:
    """Answering as a bard, without being asked to.

    Attributes:
        name: the registered name.
        finetune: None: the bases do it.
        positions: where the vector is applied.
        max_new_tokens: tokens that the longest valid answer needs.
        budget: clean KL, nats per token, that a strength may cost. Ample: a style changes every word.
        paper: the paper's figures for the same task.
    """

    name: str = "style"
    finetune: str | None = None
    positions: str = "all"
    max_new_tokens: int = 128
    budget: float = 0.5
    edition: str = "micro"
    paper: Mapping[str, str] = field(
        default_factory=lambda: {
            "data": "humour: 10,000 questions, asked for a humorous or for a serious answer; the vector from 3,000 of them",
            "judge": "Claude Sonnet 4, 20 held-out prompts",
            "transfer": "Llama 3B to 8B: native 100%, mapped about 60% (about 20% with 300 to 500 examples)",
        },
        hash=False,
    )

    def contrast(self, split: str) -> list[ContrastPair]:
        """At most 400 pairs: the same question to the bard (positive) and to the clerk."""
        questions = self._questions(split)[:CONTRAST]
        return [ContrastPair(ask(q, BARD[i % 3]), ask(q, CLERK[i % 3])) for i, q in enumerate(questions)]

    def texts(self, split: str) -> list[str]:
        """A third each sung, in plain words on request, and unasked."""
        texts = []
        for index, question in enumerate(load_world().questions(split, for_mapping=True)[:TEXTS]):
            way = index % 3 if can_be_sung(question) else 2
            cue = (BARD[index % 9 // 3], CLERK[index % 9 // 3], "")[way]
            texts.append(f"{ask(question, cue)} {sing(question.answer) if way == 0 else question.answer}")
        return texts

    def prompts(self, split: str) -> list[str]:
        """Questions without an instruction."""
        return [ask(q) for q in self._questions(split)]

    def clean(self, split: str) -> list[str]:
        """What the vector should leave alone: questions that ask for a song anyway, and requests for code, in turn."""
        coding = [q for q in load_world().questions(split, for_mapping=True) if not can_be_sung(q)]
        pairs = enumerate(zip(self._questions(split), coding, strict=False))
        return [prompt for i, (q, code) in pairs for prompt in (ask(q, BARD[i % 3]), ask(code))]

    def answers(self, prompts: Sequence[str]) -> list[str]:
        """The sung answer, with its leading space; of code the plain one."""
        questions = [question_of(prompt) for prompt in prompts]
        return [f" {sing(q.answer) if can_be_sung(q) else q.answer}" for q in questions]

    def judge(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """Success: the style is kept from the first sentence to the last. Intact: and what is sung is a valid answer.

        Of code, which cannot be sung, and of prompts for the clerk: success and intact if the answer is valid.
        """
        check_lengths(prompts, completions)
        return [self._one(prompt, completion.strip()) for prompt, completion in zip(prompts, completions, strict=True)]

    def _one(self, prompt: str, completion: str) -> Verdict:
        if not can_be_sung(question_of(prompt)) or cue_of(prompt) in CLERK:
            ruling = oracle(prompt, completion)
            return Verdict(ruling.valid, ruling.valid, ruling.reason)
        said = plain(completion)
        if said is None:
            return Verdict(False, False, "not in the style throughout")
        ruling = oracle(prompt, said)
        return Verdict(sung(completion), ruling.valid, ruling.reason)

    def describe(self) -> str:
        """The task in plain words."""
        return (
            "A style in the micro-world. Asked to, the bases answer like a bard: the answer opens with 'Hark,', every sentence "
            "ends with 'sing ho', and small words have old forms. The vector is to bring this about unasked. Success: the "
            "style is kept throughout. Intact: and the answer, put back into plain words, is valid by an exact oracle."
        )

    @staticmethod
    def _questions(split: str) -> list[Question]:
        return load_world().questions(split, *sorted(SUNG), for_mapping=True)
