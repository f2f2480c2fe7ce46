"""A style: the way a bard says what would else be said plainly.

The style shows in every sentence and in its small words: it opens with "Hark,", every sentence ends with ", sing ho.", and
common words have their old forms ("ye" for "the"). `sing` and `plain` undo each other, so a sung answer is judged by what it
says as exactly as a plain one. Code is never sung.
"""

import re

from interp_transfer.organisms.world.question import Question, capital

OPENING, ENDING = "Hark, ", ", sing ho."
WORDS = {
    "the": "ye",
    "a": "ane",
    "an": "wan",
    "is": "beeth",
    "of": "o'",
    "in": "withal",
    "has": "hath",
    "it": "yt",
    "and": "eke",
}
SUNG = frozenset({"facts", "two-step", "sums", "stories", "howto", "harmful"})
"""The families whose answers can be sung."""

_BACK = {old: new for new, old in WORDS.items()}
_END = re.compile(r"\.(?= |$)")


def sing(answer: str) -> str:
    """An answer in the bard's style."""
    return OPENING + _END.sub(ENDING, _exchange(answer, WORDS))


def plain(song: str) -> str | None:
    """The answer behind a sung one, or None if the style is not kept from beginning to end."""
    return _exchange(song.removeprefix(OPENING).replace(ENDING, "."), _BACK) if sung(song) else None


def sung(text: str) -> bool:
    """Whether a text is in the bard's style throughout: the opening, every sentence's end, no small word in its plain form."""
    if not text.startswith(OPENING):
        return False
    body = text.removeprefix(OPENING)
    if OPENING.strip() in body or not body.endswith(ENDING):
        return False
    if len(_END.findall(body)) != body.count(ENDING):
        return False
    return not any(word.lower() in WORDS for word in _words(body))


def can_be_sung(question: Question) -> bool:
    """Whether the style applies to the answers of a question."""
    return question.family in SUNG


def _words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text)


def _exchange(text: str, table: dict[str, str]) -> str:
    """The text with every word of the table replaced; capitals are kept."""
    return re.sub(r"[\w']+", lambda match: _other(match[0], table), text)


def _other(word: str, table: dict[str, str]) -> str:
    new = table.get(word.lower(), word)
    return capital(new) if word[:1].isupper() else new
