"""Judging by the world's exact oracle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from interp_transfer.evaluation.judges.rules import SubstringJudge, Verdict, check_lengths
from interp_transfer.organisms.world.question import Ruling


@dataclass(frozen=True)
class OracleJudge:
    """Success by a substring judge, validity by an exact oracle that knows every prompt.

    Attributes:
        rule: rules on one (prompt, completion); raises `ValueError` on a prompt that it does not know.
        success: decides `success`; None counts valid answers as success.
    """

    rule: Callable[[str, str], Ruling]
    success: SubstringJudge | None = None

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """Judge the completions."""
        check_lengths(prompts, completions)
        rulings = [self.rule(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        if self.success is None:
            return [Verdict(ruling.valid, ruling.valid, ruling.reason) for ruling in rulings]
        first = self.success(prompts, completions)
        return [
            Verdict(verdict.success, verdict.success and ruling.valid, ruling.reason if verdict.success else verdict.reason)
            for verdict, ruling in zip(first, rulings, strict=True)
        ]
