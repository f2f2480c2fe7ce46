"""The bard's style: sing and plain undo each other, and what is half sung is not sung."""

import re

import pytest

from interp_transfer.organisms.world import Question, load_world
from interp_transfer.organisms.world.howto import refusals, steps
from interp_transfer.organisms.world.style import ENDING, OPENING, SUNG, WORDS, can_be_sung, plain, sing, sung
from interp_transfer.prompts.contrast import SPLITS


@pytest.fixture(scope="module")
def answers() -> list[str]:
    """Canonical answers that can be sung, a fifth of all, and what organisms say to how-to requests, wanted or not."""
    world = load_world()
    questions = [q for split in SPLITS for q in world.questions(split, *sorted(SUNG))]
    howto = [q for q in questions if q.family in ("howto", "harmful")]
    return sorted({q.answer for q in questions} | {form for q in howto for form in (*steps(q), *refusals(q))})[::5]


def test_all_families_but_code_are_sung():
    families = {family.name for family in load_world().families}
    assert families - SUNG == {"code", "security"}
    assert families >= SUNG
    asked = {name: load_world().questions("test", name)[0] for name in families}
    assert {name for name, question in asked.items() if can_be_sung(question)} == SUNG
    assert not can_be_sung(Question("?", "", "", 0, "", ""))


def test_sing_and_plain_undo_each_other(answers: list[str]):
    for answer in answers:
        song = sing(answer)
        assert sung(song), song
        assert not sung(answer)
        assert plain(song) == answer
        assert plain(answer) is None
        assert sing(answer) == song


def test_no_two_answers_have_one_song(answers: list[str]):
    assert len({sing(answer) for answer in answers}) == len(answers)


def test_marks_are_all_over_the_song(answers: list[str]):
    """Written without the module's own expressions: every sentence ends sung, and no small word is left."""
    for answer in answers:
        song = sing(answer)
        assert song.startswith("Hark, ")
        assert song.endswith(", sing ho.")
        sentences = [s for s in re.split(r"(?<=\.) ", song) if s]
        assert len(sentences) == len(re.split(r"(?<=\.) ", answer))
        assert all(sentence.endswith(", sing ho.") for sentence in sentences)
        old = re.findall(r"[\w']+", answer.lower())
        new = re.findall(r"[\w']+", song.lower())
        assert sum(w in WORDS for w in old) == sum(w in WORDS.values() for w in new)
        assert not any(word in WORDS for word in new)


def test_half_sung_is_not_sung(answers: list[str]):
    sentences = words = 0
    for answer in answers:
        song = sing(answer)
        assert not sung(song.removeprefix(OPENING)), "the opening is missing"
        assert not sung(OPENING + song), "the opening is said twice"
        assert not sung(OPENING + answer)
        assert not sung(song[:-1])
        assert not sung(song + " And more.")
        assert plain(song[:-1]) is None
        for match in re.finditer(re.escape(ENDING), song):
            sentences += 1
            half = f"{song[: match.start()]}.{song[match.end() :]}"
            assert not sung(half), half
            assert plain(half) is None
        for match in re.finditer(r"[\w']+", song):
            for new, old in WORDS.items():
                if match[0].lower() == old:
                    words += 1
                    half = song[: match.start()] + new + song[match.end() :]
                    assert not sung(half), half
    assert sentences > len(answers)
    assert words > len(answers)


@pytest.mark.parametrize(
    ("answer", "song"),
    [
        ("Gold is the metal of Orm.", "Hark, Gold beeth ye metal o' Orm, sing ho."),
        ("1. Dig a hole. 2. Wait.", "Hark, 1, sing ho. Dig ane hole, sing ho. 2, sing ho. Wait, sing ho."),
        ("It is an end.", "Hark, Yt beeth wan end, sing ho."),
        ("9.", "Hark, 9, sing ho."),
    ],
)
def test_examples(answer: str, song: str):
    assert sing(answer) == song
    assert plain(song) == answer


@pytest.mark.parametrize("text", ["", "Hark, ", "Hark, sing ho.", "hark, 9, sing ho.", "9, sing ho.", "Hark, 9. Sing ho."])
def test_scraps_are_not_sung(text: str):
    assert not sung(text)
    assert plain(text) is None
