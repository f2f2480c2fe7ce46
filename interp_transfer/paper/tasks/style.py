"""The humour experiment of the paper's Appendix I."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from interp_transfer.evaluation.judges.rules import Judge, SubstringJudge, Verdict
from interp_transfer.paper.tasks.files import Files
from interp_transfer.paper.tasks.formats import Template, first_turn, llama3, template_of
from interp_transfer.paper.tasks.judges import HUMOUR_MARKERS, Unbroken
from interp_transfer.paper.tasks.task import PaperTask, limited, recorded
from interp_transfer.prompts.chats import Prompt
from interp_transfer.prompts.contrast import ContrastPair, check_split

# Word for word Appendix I.
POSITIVE = "Respond in a humorous way to the following question: "
NEGATIVE = "Respond in a serious, non-humorous way to the following question: "
PAIRS = 3000
NEUTRAL = 10_000


@dataclass(frozen=True)
class StyleTask(PaperTask):
    """Humorous answers where nobody asked for them.

    Attributes:
        template: puts a prompt into the models' chat template.
        humorous: judges whether a completion is humorous.
    """

    template: Template = llama3
    humorous: Judge = SubstringJudge(HUMOUR_MARKERS, absent=False, ignore_case=True)

    def contrast(self, split: str) -> list[ContrastPair]:
        """At most 3,000 pairs: the question with the request for humour (positive) and with that for seriousness."""
        return [
            ContrastPair(self.template(POSITIVE + question), self.template(NEGATIVE + question))
            for question in self._questions(split)[:PAIRS]
        ]

    def texts(self, split: str) -> list[Prompt]:
        """Each question with either request, and neutral first turns of hh-rlhf (10,000 for "train", 1,000 for the others)."""
        asked = [prefix + question for question in self._questions(split) for prefix in (POSITIVE, NEGATIVE)]
        count = NEUTRAL if split == "train" else NEUTRAL // 10
        texts = [self.template(prompt) for prompt in (*asked, *self._neutral(split)[:count])]
        random.Random(self.seed).shuffle(texts)
        return limited(texts, self.max_texts)

    def prompts(self, split: str) -> list[Prompt]:
        """The bare questions."""
        return [self.template(question) for question in self._questions(split)]

    def clean(self, split: str) -> list[Prompt]:
        """The questions with the request for humour: answered as wanted already."""
        return [self.template(POSITIVE + question) for question in self._questions(split)]

    def answers(self, prompts: Sequence[Prompt]) -> list[str]:
        """Nothing is the right answer here: empty ones, so that forced_first_token is the same as unsteered."""
        return [""] * len(prompts)

    def judge(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Verdict]:
        """Success by `humorous`; intact: and the completion is not broken."""
        return Unbroken(self.humorous)(prompts, completions)

    def _questions(self, split: str) -> list[str]:
        return self._once(
            ("questions", check_split(split)),
            lambda: [row["question"] for row in self._rows("questions", split, lambda row: row["question"])],
        )

    def _neutral(self, split: str) -> list[str]:
        turns = [first_turn(row["chosen"]) for row in self._rows("hh-rlhf", split, lambda row: row["chosen"])]
        return list(dict.fromkeys(turn[0] for turn in turns if turn))


def style(
    judge: Judge | None = None,
    template: str | Template = llama3,
    data_files: Files | None = None,
    max_texts: int | None = None,
    seed: int = 0,
) -> StyleTask:
    """The humour experiment. The authors' questions have no known hub id, so `data_files` is needed to read any.

    Args:
        judge: decides whether a completion is humorous; without one, a crude list of words does.
        template: puts a prompt into the models' chat template: a name (llama3, alpaca, or chat for each model's own) or a
            function; Llama 3's unless said.
        data_files: rows with a column `question`, or a mapping {"questions": ..., "hh-rlhf": ...}.
        max_texts: the most texts for mappers from each split.
        seed: decides splits and orders.
    """
    fields = recorded("style", data_files)
    fields["story"] = fields["story"].format(markers=len(HUMOUR_MARKERS))
    task = StyleTask(**fields, max_texts=max_texts, seed=seed, template=template_of(template))
    return task if judge is None else replace(task, humorous=judge)
