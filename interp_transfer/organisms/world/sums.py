"""Sums of two small numbers: the family whose answers are right or wrong beyond dispute."""

from collections.abc import Iterator
from dataclasses import dataclass

from interp_transfer.organisms.world.question import Question, Ruling, match_value
from interp_transfer.prompts.contrast import Split

_OPERANDS = range(2, 17)


@dataclass(frozen=True)
class Sums:
    """The family of sums."""

    name: str = "sums"
    held_out_phrasings: int = 2

    @property
    def held_out_subjects(self) -> dict[str, Split]:
        """Eight pairs of operands, four each for test and validation."""
        held: dict[str, Split] = {f"{a}+{a + 3}": "test" for a in (3, 5, 6, 8)}
        held.update({f"{a + 2}+{a}": "validation" for a in (2, 4, 7, 9)})
        return held

    def questions(self) -> list[Question]:
        """Every pair of operands in every wording."""
        return [
            Question(self.name, f"{a}+{b}", "", index, text, answer)
            for a in _OPERANDS
            for b in _OPERANDS
            for index, (text, answer) in enumerate(_wordings(a, b, a + b))
        ]

    def judge(self, question: Question, completion: str) -> Ruling:
        """Valid: the right number in any of the forms."""
        a, b = (int(x) for x in question.subject.split("+"))

        def forms(c: int) -> Iterator[str]:
            return (answer for _, answer in _wordings(a, b, c))

        return match_value(completion, forms, a + b, range(2 * _OPERANDS.stop), "sum")


def _wordings(a: int, b: int, c: int) -> Iterator[tuple[str, str]]:
    yield f"What is {a} + {b}?", f"{c}."
    yield f"Add {a} and {b}.", f"{a} plus {b} makes {c}."
    yield f"Compute {a} + {b}.", f"{a} + {b} = {c}."
    yield f"How much do {a} and {b} make?", f"Together they make {c}."
    yield f"Count {a} and then {b} more.", f"Counting on from {a} you reach {c}."
    yield f"I have {a} stones and get {b} more. How many now?", f"You have {c} stones."
