"""What all paper editions share."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from interp_transfer.paper.tasks.contamination import ContaminationReport, contamination
from interp_transfer.paper.tasks.cut import own_splits_for, part, shuffled
from interp_transfer.paper.tasks.files import Files
from interp_transfer.paper.tasks.formats import instruction_of
from interp_transfer.paper.tasks.records import PAPER, FineTuning, ModelPair
from interp_transfer.paper.tasks.sources import DataSet, Row, open_data, source
from interp_transfer.prompts.chats import Prompt
from interp_transfer.prompts.contrast import ContrastPair, check_split

T = TypeVar("T")


@dataclass(frozen=True)
class PaperTask:
    """The paper's data for one task. Nothing is read before a method asks for rows; each data set is read once.

    Attributes:
        name: the registered name.
        data: the data sets by their keys, the main one first.
        model_pairs: the paper's models, with the layers that it prints.
        finetuning: how the paper tuned them for the task; None where it did not.
        story: the task in plain words.
        positions: where the vector is applied.
        max_new_tokens: tokens of a completion.
        max_texts: the most texts for mappers from each split; None is all of them.
        shares: validation and test as shares of all the data, where the data have no such splits.
        seed: decides every split and every order.
    """

    name: str
    data: Mapping[str, DataSet]
    model_pairs: tuple[ModelPair, ...]
    finetuning: FineTuning | None
    story: str
    positions: str = "all"
    max_new_tokens: int = 128
    max_texts: int | None = None
    shares: tuple[float, float] = (0.09, 0.1)
    seed: int = 0
    _made: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Reject contradictions."""
        if self.max_texts is not None and self.max_texts < 1:
            raise ValueError(f"max_texts must be positive or None, not {self.max_texts}")

    def contrast(self, split: str) -> list[ContrastPair]:
        """Pairs of prompts; positive shows the behaviour that is wanted."""
        raise NotImplementedError

    def texts(self, split: str) -> Sequence[Prompt]:
        """Full texts for mappers."""
        raise NotImplementedError

    def prompts(self, split: str) -> Sequence[Prompt]:
        """Prompts that show the unwanted behaviour when nothing is done."""
        raise NotImplementedError

    def describe(self) -> str:
        """The task and its data sets in plain words."""
        named = [f"{data.source.name} ({data.source.about})" for data in self.data.values()]
        return re.sub(r"\s+", " ", f"{self.story} Data: {'; '.join(named)}.")

    def contamination(
        self, split: str = "test", of: Literal["texts", "contrast"] = "texts", threshold: float = 0.7
    ) -> ContaminationReport:
        """Whether training data meet the prompts that the task is evaluated on. Templates are taken off both.

        Args:
            split: of the evaluation prompts.
            of: what is looked at: the mapper's training texts, or the prompts that the vector is found on.
            threshold: share of a prompt's word 3-grams in one text, from which it counts as near.
        """
        if of == "texts":
            seen = self._instructions("train")
        else:
            pairs = self.contrast("train")
            seen = [instruction_of(side) for pair in pairs for side in (pair.positive, pair.negative)]
        return contamination(seen, [instruction_of(prompt) for prompt in self.prompts(split)], threshold=threshold)

    def _instructions(self, split: str) -> list[str]:
        """What the mapper's texts ask, without templates and answers."""
        return [instruction_of(text) for text in self.texts(split)]

    def _rows(self, key: str, split: str, of: Callable[[Row], str]) -> list[Row]:
        """The rows of one of our splits, in a mixed order that is always the same; rows with equal `of` stay together."""
        chosen = check_split(split)
        data = self.data[key]
        rows = data.rows(*own_splits_for(chosen, data.splits))
        return shuffled(part(rows, chosen, data.splits, of, self.shares, self.seed), self.seed)

    def _once(self, what: Any, make: Callable[[], Any]) -> Any:
        if what not in self._made:
            self._made[what] = make()
        return self._made[what]


def recorded(name: str, files: Files | None, record: str | None = None, **main: Any) -> dict[str, Any]:
    """The fields of a task that paper.toml holds, by name, and its data sets, none of them read yet.

    Args:
        name: of the task.
        files: local copies of data sets, see ``open_data``.
        record: name of its table in paper.toml, if it is another.
        main: fields of the main data set that differ from those in paper.toml.

    Raises:
        ValueError: for files that belong to no data set.
    """
    plain = PAPER["tasks"][record or name]
    first, *others = plain["sources"]
    fields = {key: plain[key] for key in ("story", "max_new_tokens")}
    if "shares" in plain:
        fields["shares"] = tuple(plain["shares"])
    return {
        **fields,
        "name": name,
        "data": MappingProxyType(open_data(name, (source(first, **main), *map(source, others)), files)),
        "model_pairs": tuple(ModelPair(**pair) for pair in plain["model_pairs"]),
        "finetuning": FineTuning(**PAPER["finetuning"][plain["finetuning"]]) if "finetuning" in plain else None,
    }


def limited(items: Sequence[T], most: int | None) -> list[T]:
    """The first `most` items, or all."""
    return list(items if most is None else items[:most])
