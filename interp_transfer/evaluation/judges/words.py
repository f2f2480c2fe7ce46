"""A judge that counts words: whether an answer has one trait more than another."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from interp_transfer.evaluation.judges.rules import RepetitionJudge, Verdict, check_lengths
from interp_transfer.names import find
from interp_transfer.prompts.traits import Trait, traits, two_traits

SHOWN = 5
"""Number of words that a reason lists."""


@dataclass(frozen=True)
class WordsJudge:
    """Success: words of one trait occur, and more often than words of the other. Intact: and the answer does not repeat itself.

    Whole words are counted, whatever the case, each time that they occur; negations are not understood, so that "not happy"
    counts as a happy word. The reason gives both counts and the words.
    """

    wanted: Trait
    unwanted: Trait

    def __call__(self, prompts: Sequence[Any], completions: Sequence[str]) -> list[Verdict]:
        """Judge the completions."""
        check_lengths(prompts, completions)
        sound = RepetitionJudge()(prompts, completions)
        return [self._one(completion, valid) for completion, valid in zip(completions, sound, strict=True)]

    def _one(self, completion: str, valid: Verdict) -> Verdict:
        have, lack = (occurring(trait.words, completion) for trait in (self.wanted, self.unwanted))
        success = len(have) > len(lack)
        counts = f"{_listed(self.wanted.name, have)}; {_listed(self.unwanted.name, lack)}"
        return Verdict(success, success and valid.success, f"{counts}; {valid.reason}")


def _listed(name: str, words: Sequence[str]) -> str:
    return f"{len(words)} {name} words" + (f" ({', '.join(words[:SHOWN])})" if words else "")


def trait_judge(names: str) -> WordsJudge:
    """Return the judge of two traits that are written WANTED/UNWANTED, or of a trait and its opposite.

    Raises:
        ValueError: for an unknown trait, with the closest one.
    """
    wanted, _, unwanted = names.partition("/")
    return WordsJudge(*two_traits(wanted, unwanted or find(wanted, traits(), "trait").opposite))


def occurring(words: Sequence[str], text: str) -> list[str]:
    """Return all occurrences of the words in a text, in lower case. An entry that ends in * matches any continuation."""
    return _pattern(tuple(words)).findall(text.lower())


@cache
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile("|".join(map(_of_word, longest_first)))


def _of_word(word: str) -> str:
    """The pattern of one entry, which may be a sign such as an exclamation mark."""
    stem = word.removesuffix("*")
    before = r"(?<!\w)" if stem[0].isalnum() else ""
    after = r"\w*" if stem != word else r"(?!\w)"
    return before + re.escape(stem) + after
