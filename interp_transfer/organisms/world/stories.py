"""Short stories: many right answers to one request, so validity is a parse and not a string.

A story has two or three sentences from three sets of sentence forms: where somebody lived, what was found, how it
ended. It is valid if it parses, keeps one hero and one thing throughout, and both are the ones that were asked for; the
place and the adjective are free. The canonical story takes place and adjective from the hero and the thing, so that
a model under greedy decoding has something definite to learn.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from interp_transfer.organisms.world.question import Question, Ruling, capital
from interp_transfer.prompts.contrast import Split

_DATA = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
_HEROES: dict[str, str] = _DATA["heroes"]
_THINGS: dict[str, str] = _DATA["things"]
_SENTENCES: dict[str, list[str]] = _DATA["sentences"]
"""Forms of the first, the second and the third sentence."""


@dataclass(frozen=True)
class Stories:
    """The family of stories."""

    name: str = "stories"
    held_out_phrasings: int = 1

    @property
    def held_out_subjects(self) -> dict[str, Split]:
        """One hero each for test and validation."""
        return {"badger": "test", "mouse": "validation"}

    def questions(self) -> list[Question]:
        """Every hero x thing x wording."""
        return [
            Question(
                self.name,
                hero,
                thing,
                index,
                wording["request"].format(hero=hero, thing=thing),
                _canonical(hero, thing, wording),
            )
            for hero in _HEROES
            for thing in _THINGS
            for index, wording in enumerate(_DATA["wordings"])
        ]

    def judge(self, question: Question, completion: str) -> Ruling:
        """Valid: two or three sentences that parse, about the hero and the thing that were asked for."""
        sentences = re.findall(r"[^.]+\.", completion)
        if "".join(sentences) != completion or not sentences:
            return Ruling(False, "the answer is not finished" if completion else "empty")
        sentences = [s.strip() for s in sentences]
        if not 2 <= len(sentences) <= 3:
            return Ruling(False, f"a story has two or three sentences, not {len(sentences)}")
        found: dict[str, str] = {}
        for sentence, forms in zip(sentences, _SENTENCES.values(), strict=False):
            slots = _parse(sentence, forms)
            if slots is None:
                return Ruling(False, f"no sentence of a story: {sentence!r}")
            for slot, word in slots.items():
                if found.setdefault(slot, word) != word:
                    return Ruling(False, f"{slot} changes from {found[slot]!r} to {word!r}")
        for slot, asked in (("hero", question.subject), ("thing", question.aspect)):
            if found.get(slot) != asked:
                return Ruling(False, f"the story has the {slot} {found.get(slot)!r}, asked was {asked!r}")
        return Ruling(True, "a valid story")


def _canonical(hero: str, thing: str, wording: Mapping[str, Any]) -> str:
    slots = {"hero": hero, "thing": thing, "place": _HEROES[hero], "adj": _THINGS[thing]}
    slots |= {capital(slot): capital(word) for slot, word in slots.items()}
    forms = [forms[wording[part]] for part, forms in _SENTENCES.items() if part in wording]
    return " ".join(form.format(**slots) for form in forms)


@cache
def _pattern(form: str) -> re.Pattern[str]:
    """A form as a regular expression with one named group for each slot (the first mention of it)."""
    lexicon = {"hero": _HEROES, "thing": _THINGS, "place": _HEROES.values(), "adj": _THINGS.values()}

    def group(match: re.Match[str]) -> str:
        slot = match[1].lower()
        words = "|".join(re.escape(capital(w) if match[1][0].isupper() else w) for w in lexicon[slot])
        return f"(?P<{slot}>{words})"

    return re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(form)))


def _parse(sentence: str, forms: list[str]) -> dict[str, str] | None:
    """The slots of the first form that the sentence has, with words in lower case; None if it has none."""
    for form in forms:
        if match := _pattern(form).fullmatch(sentence):
            return {slot: word.lower() for slot, word in match.groupdict().items()}
    return None
