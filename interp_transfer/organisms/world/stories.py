"""Short stories: many right answers to one request, so validity is a parse and not a string.

A story has two or three sentences from three sets of sentence forms: where somebody lived, what was found, how it
ended. It is valid if it parses, keeps one hero and one thing throughout, and both are the ones that were asked for; the
place and the adjective are free. The canonical story takes place and adjective from the hero and the thing, so that
a model under greedy decoding has something definite to learn.
"""

import re
from dataclasses import dataclass
from functools import cache

from interp_transfer.organisms.world.question import Question, Ruling, capital
from interp_transfer.prompts.contrast import Split

# The hero and the place where the canonical story has it live.
_HEROES = {
    "fox": "by the river",
    "miller": "near the mill",
    "knight": "behind the castle",
    "robin": "under the roof",
    "giant": "beyond the hills",
    "baker": "at the market",
    "mouse": "below the stairs",
    "sailor": "along the shore",
    "wizard": "inside the tower",
    "badger": "among the oaks",
}
# The thing and the adjective that it lends the canonical hero.
_THINGS = {
    "lantern": "brave",
    "key": "lonely",
    "kite": "cheerful",
    "drum": "tired",
    "ring": "clever",
    "map": "curious",
    "boat": "patient",
    "bell": "gentle",
    "feather": "proud",
    "mirror": "shy",
}
_BEGIN = (
    "{Place} lived a {adj} {hero}.",
    "A {adj} {hero} lived {place}.",
    "{Adj} was the {hero} that lived {place}.",
    "There was a {hero} {place}, {adj} and kind.",
    "{Hero} and {thing} belong together.",
    "Long ago a {hero} lived {place}.",
)
_MIDDLE = (
    "One day the {hero} found a {thing}.",
    "A {thing} lay in the grass, and the {hero} took it.",
    "The {hero} dreamed of a {thing} every night.",
)
_END = (
    "The {thing} made everybody smile.",
    "It was the best day of the year.",
    "From then on the {hero} was never sad.",
)
# For each wording: the request, and which forms its canonical story is made of (None: no third sentence).
_WORDINGS: tuple[tuple[str, int, int, int | None], ...] = (
    ("Write a short story about a {hero} and a {thing}.", 0, 0, 0),
    ("Tell me a tale of a {hero} with a {thing}.", 1, 1, 1),
    ("A story, please: {hero}, {thing}.", 2, 2, None),
    ("Can you invent a story in which a {hero} finds a {thing}?", 3, 0, 2),
    ("Make up something about the {hero} and the {thing}.", 4, 1, None),
    ("My child wants to hear about a {thing} and a {hero}.", 5, 2, 0),
)


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
            Question(self.name, hero, thing, index, request.format(hero=hero, thing=thing), _canonical(hero, thing, index))
            for hero in _HEROES
            for thing in _THINGS
            for index, (request, *_) in enumerate(_WORDINGS)
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
        for sentence, forms in zip(sentences, (_BEGIN, _MIDDLE, _END), strict=False):
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


def _canonical(hero: str, thing: str, wording: int) -> str:
    _, begin, middle, end = _WORDINGS[wording]
    place, adj = _HEROES[hero], _THINGS[thing]
    slots = {"hero": hero, "thing": thing, "place": place, "adj": adj}
    slots |= {capital(slot): capital(word) for slot, word in slots.items()}
    parts = [_BEGIN[begin], _MIDDLE[middle]] + ([] if end is None else [_END[end]])
    return " ".join(part.format(**slots) for part in parts)


@cache
def _pattern(form: str) -> re.Pattern[str]:
    """A form as a regular expression with one named group for each slot (the first mention of it)."""
    lexicon = {"hero": _HEROES, "thing": _THINGS, "place": _HEROES.values(), "adj": _THINGS.values()}

    def group(match: re.Match[str]) -> str:
        slot = match[1].lower()
        words = "|".join(re.escape(capital(w) if match[1][0].isupper() else w) for w in lexicon[slot])
        return f"(?P<{slot}>{words})"

    return re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(form)))


def _parse(sentence: str, forms: tuple[str, ...]) -> dict[str, str] | None:
    """The slots of the first form that the sentence has, with words in lower case; None if it has none."""
    for form in forms:
        if match := _pattern(form).fullmatch(sentence):
            return {slot: word.lower() for slot, word in match.groupdict().items()}
    return None
