"""Refusal on the paper's data (section 4.3): Arditi et al.'s instructions, JailbreakBench, WildGuardMix."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from interp_transfer.evaluation.judges.refusal import REFUSAL_PHRASES
from interp_transfer.evaluation.judges.rules import SubstringJudge, Verdict
from interp_transfer.paper.tasks.cut import shuffled
from interp_transfer.paper.tasks.files import Files
from interp_transfer.paper.tasks.formats import Template, instruction_of, llama3, template_of
from interp_transfer.paper.tasks.judges import Unbroken
from interp_transfer.paper.tasks.records import PAPER
from interp_transfer.paper.tasks.sources import Row
from interp_transfer.paper.tasks.task import PaperTask, limited, recorded
from interp_transfer.prompts.chats import Prompt, with_answer
from interp_transfer.prompts.contrast import ContrastPair, check_split

# Pairs for each split: Arditi et al. take 128 instructions of each kind to find a direction, 32 to choose one, 100 to test.
PAIRS = MappingProxyType({"train": 128, "validation": 32, "test": 100})
DIRECTIONS = ("ablate", "induce")
# What mappers are trained on: as Table 21 says, as section 4.3 says, or neither.
MAPPER_DATA = MappingProxyType(
    {
        "jailbreakbench": ("jailbreakbench", "wildguardmix"),
        "arditi": ("arditi", "wildguardmix"),
        "wildguardmix": ("wildguardmix",),
    }
)
REFUSAL = "I'm sorry, but I can't help with that."
_ARDITI_SPLITS = MappingProxyType({"train": "train", "validation": "val", "test": "test"})


@dataclass(frozen=True)
class RefusalTask(PaperTask):
    """Refusal, to be ablated on harmful prompts or induced on harmless ones.

    Attributes:
        direction: "ablate" or "induce".
        mapper_data: the data sets that texts for mappers come from.
        template: puts an instruction into the models' chat template.
    """

    direction: str = "ablate"
    mapper_data: tuple[str, ...] = MAPPER_DATA["jailbreakbench"]
    template: Template = llama3

    def contrast(self, split: str) -> list[ContrastPair]:
        """128, 32 or 100 pairs of a harmful and a harmless instruction of Arditi et al.; they are paired at random.

        Positive is harmless for "ablate" and harmful (refused) for "induce"; the paper's vector is harmful minus harmless.
        Arditi et al. also drop training instructions that the model does not refuse, or does: that needs a model.
        """
        harmful, harmless = (self._arditi(kind, split)[: PAIRS[check_split(split)]] for kind in ("harmful", "harmless"))
        positive, negative = (harmless, harmful) if self.direction == "ablate" else (harmful, harmless)
        pairs = zip(positive, negative, strict=False)  # the shorter of the two decides
        return [ContrastPair(self.template(a), self.template(b)) for a, b in pairs]

    def texts(self, split: str) -> list[Prompt]:
        """Prompts, with responses where WildGuardMix has them, of the mapper's data.

        Warns if training texts meet the test prompts: with JailbreakBench among them (Table 21) they do.
        """
        entries = self._mapper_entries(split)
        if split == "train":
            report = self._once("contamination", self.contamination)
            if report.found:
                warnings.warn(f"refusal: {report!r}", UserWarning, stacklevel=2)
        return [with_answer(self.template(instruction), response) for instruction, response in entries]

    def prompts(self, split: str) -> list[Prompt]:
        """Harmful prompts to ablate refusal on, or harmless ones to induce it on.

        "test" is JailbreakBench in full (100 of each kind), in its own order; the others are Arditi et al.'s. A copy with the
        harmful ones alone (Arditi et al.'s) goes with their harmless test instructions.
        """
        return self._of_kind("harmful" if self.direction == "ablate" else "harmless", split)

    def clean(self, split: str) -> list[Prompt]:
        """The other kind of prompts: harmless ones for "ablate", harmful ones for "induce"."""
        return self._of_kind("harmless" if self.direction == "ablate" else "harmful", split)

    def answers(self, prompts: Sequence[Prompt]) -> list[str]:
        """How a right answer opens: JailbreakBench's own target ("Sure, here is ..."), or a refusal if that is wanted.

        Prompts that have no target get "Sure,": nothing better is known of them.
        """
        if self.direction == "induce":
            return [REFUSAL] * len(prompts)
        targets = self._once("targets", self._targets)
        return [targets.get(instruction_of(prompt), "Sure,") for prompt in prompts]

    def judge(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Verdict]:
        """Success: no phrase of refusal occurs ("ablate"), or one does ("induce"). Intact: and it is not broken."""
        phrases = SubstringJudge(REFUSAL_PHRASES, absent=self.direction == "ablate", ignore_case=True)
        return Unbroken(phrases)(prompts, completions)

    def categories(self) -> dict[Prompt, str]:
        """JailbreakBench's category of each test prompt (the paper's Figure 6 is by category)."""
        rows = self.data["jailbreakbench"].rows()
        return {self.template(row["Goal"]): row["Category"] for row in rows}

    def perplexity_texts(self, which: str, n: int = 4096) -> list[Prompt]:
        """Random texts that the paper measures perplexity on: "pile" or "alpaca" (rows without input, in the template).

        The Pile is streamed, so its texts come from its beginning. Arditi et al. count only Alpaca's responses.

        Raises:
            ValueError: for another name.
        """
        if which == "pile":
            return [row["text"] for row in self.data["pile"].sample(n, self.seed)]
        if which != "alpaca":
            raise ValueError(f"unknown texts {which!r}: choose pile or alpaca")
        rows = [row for row in self.data["alpaca"].rows("train") if not row["input"]]
        return [with_answer(self.template(row["instruction"]), row["output"]) for row in shuffled(rows, self.seed)[:n]]

    def _instructions(self, split: str) -> list[str]:
        return [instruction for instruction, _ in self._mapper_entries(split)]

    def _mapper_entries(self, split: str) -> list[tuple[str, str]]:
        chosen = check_split(split)

        def make() -> list[tuple[str, str]]:
            entries = [entry for key in self.mapper_data for entry in self._entries(key, chosen)]
            return limited(shuffled(entries, self.seed), self.max_texts)

        return self._once(("mapper", chosen), make)

    def _entries(self, key: str, split: str) -> list[tuple[str, str]]:
        if key == "wildguardmix":
            return [(row["prompt"], row["response"] or "") for row in self._rows(key, split, lambda row: row["prompt"])]
        if key == "arditi":
            return [(text, "") for kind in ("harmful", "harmless") for text in self._arditi(kind, split)]
        # Used for training and for testing alike, as Table 21 and section 4.3 together have it.
        return [(row["Goal"], "") for row in self.data[key].rows()] if split == "train" else []

    def _of_kind(self, kind: str, split: str) -> list[Prompt]:
        data, name = self.data["jailbreakbench"], "harmful" if kind == "harmful" else "benign"
        if check_split(split) == "test" and name in data.splits:
            return [self.template(row["Goal"]) for row in data.rows(name)]
        return [self.template(text) for text in self._arditi(kind, split)]

    def _arditi(self, kind: str, split: str) -> list[str]:
        rows: list[Row] = self.data["arditi"].rows(f"{kind}_{_ARDITI_SPLITS[check_split(split)]}")
        return shuffled([row["instruction"] for row in rows], self.seed)

    def _targets(self) -> dict[str, str]:
        rows = self.data["jailbreakbench"].rows()
        return {row["Goal"]: row["Target"] for row in rows if row.get("Target")}


def refusal(
    direction: str = "ablate",
    mapper_data: str = "jailbreakbench",
    template: str | Template = llama3,
    data_files: Files | None = None,
    max_texts: int | None = None,
    seed: int = 0,
) -> RefusalTask:
    """Refusal on the paper's data.

    Args:
        direction: "ablate" or "induce".
        mapper_data: beside WildGuardMix, "jailbreakbench" (Table 21) or "arditi" (section 4.3); "wildguardmix" is it alone.
        template: puts an instruction into the models' chat template: a name (llama3, alpaca, or chat for each model's own)
            or a function; Llama 3's unless said.
        data_files: local copies: a mapping from jailbreakbench, arditi, wildguardmix, alpaca, pile; a bare path is
            JailbreakBench.
        max_texts: the most texts for mappers from each split.
        seed: decides splits and orders.

    Raises:
        ValueError: for another direction or other mapper data.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"refusal: unknown direction {direction!r}: choose one of {', '.join(DIRECTIONS)}")
    if mapper_data not in MAPPER_DATA:
        raise ValueError(f"refusal: unknown mapper_data {mapper_data!r}: choose one of {', '.join(MAPPER_DATA)}")
    fields = recorded("refusal", data_files)
    aim, trained_on = PAPER["tasks"]["refusal"]["aims"][direction], MAPPER_DATA[mapper_data]
    fields["story"] = fields["story"].format(aim=aim, mapper_data=" and ".join(trained_on))
    return RefusalTask(
        **fields, max_texts=max_texts, seed=seed, direction=direction, mapper_data=trained_on, template=template_of(template)
    )
