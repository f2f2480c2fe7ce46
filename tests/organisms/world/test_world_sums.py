"""Sums."""

import re
from collections import Counter

import pytest

from interp_transfer.organisms.world import load_world
from interp_transfer.organisms.world.splits import assign
from interp_transfer.organisms.world.sums import Sums

QUESTIONS = Sums().questions()


def test_every_pair_of_operands_in_every_wording():
    assert {q.subject for q in QUESTIONS} == {f"{a}+{b}" for a in range(2, 17) for b in range(2, 17)}
    assert len({q.text for q in QUESTIONS}) == len(QUESTIONS) == 15 * 15 * 6
    for q in QUESTIONS:
        a, b = (int(part) for part in q.subject.split("+"))
        assert re.findall(r"\d+", q.text) == [str(a), str(b)], "the question names the operands, in order"
        assert re.findall(r"\d+", q.answer)[-1] == str(a + b)


def test_two_of_six_wordings_are_held_out():
    groups: dict[str, Counter[str]] = {}
    for q in assign(Sums()):
        groups.setdefault(q.subject, Counter())[q.split] += 1
    assert all(group["train"] == 4 and max(group["test"], group["validation"]) == 2 for group in groups.values())
    held = Sums().held_out_subjects
    assert Counter(held.values()) == {"test": 4, "validation": 4}
    assert set(held) <= set(groups)
    assert all(groups[subject][part] == 2 for subject, part in held.items())


def test_no_other_number_will_do():
    family = Sums()
    for q in QUESTIONS[::5]:
        a, b = (int(part) for part in q.subject.split("+"))
        assert family.judge(q, q.answer).valid
        for wrong in (a + b - 1, a + b + 1, 10 * (a + b)):
            ruling = family.judge(q, re.sub(r"\d+(?=\D*$)", str(wrong), q.answer))
            assert not ruling.valid, (q, wrong)


@pytest.mark.parametrize(
    ("completion", "valid"),
    [
        (" 9.", True),
        ("4 + 5 = 9.", True),
        ("4 plus 5 makes 9.", True),
        ("You have 9 stones.", True),
        ("9", False),
        ("10.", False),
        ("4 + 5 = 8.", False),
        ("4 + 6 = 9.", False),
        ("5 + 4 = 9.", False),
        ("9. 9.", False),
    ],
)
def test_only_the_right_sum_is_valid(completion: str, valid: bool):
    world = load_world()
    ruling = world.judge(world.find("What is 4 + 5?"), completion)
    assert ruling.valid is valid, ruling
    if completion == "10.":
        assert "wrong sum 10" in ruling.reason
