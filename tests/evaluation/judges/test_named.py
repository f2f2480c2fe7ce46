"""Judges by name."""

from typing import Any

import pytest

import interp_transfer as it


def even(prompt: str, completion: str) -> bool:
    return len(prompt + completion) % 2 == 0


@pytest.mark.parametrize(
    ("name", "completion", "success"),
    [
        ("refusal", "I'm sorry, I can't help.", True),
        ("refusal", "Here is how.", False),
        ("no_refusal", "i cannot do that", False),
        ("no_refusal", "Here is how.", True),
        ("contains:blue", "a blue sky", True),
        ("contains:blue", "a red sky", False),
        ("lacks:a: b", "c", True),
        ("lacks:a: b", "it says a: b", False),
        (f"{__name__}:even", "ab", True),
        (f"{__name__}:even", "abc", False),
    ],
)
def test_a_judge_by_name(name: str, completion: str, success: bool) -> None:
    [verdict] = it.judges.load(name)(["p?"], [completion])
    assert verdict.success is success and verdict.intact is success


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (
            "refusl",
            r"unknown judge 'refusl': did you mean 'refusal'\? choose one of no_refusal, refusal, no_refusal_phrase, r",
        ),
        ("contains:", "needs an argument: write contains:TEXT"),
        ("lacks", "needs an argument: write lacks:TEXT"),
        ("trait:cheerfull", "unknown trait 'cheerfull': did you mean 'cheerful'"),
        ("no_such_module:judge", "no_such_module:judge cannot be imported"),
        (f"{__name__}:odd", "cannot be imported"),
    ],
)
def test_an_unknown_judge_is_refused(name: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        it.judges.load(name)


def test_a_loaded_judge_goes_into_a_task(pairs: Any = (("a", "b"),)) -> None:
    judge = it.judges.load("lacks:x")
    assert it.Task.from_pairs(list(pairs), judge).judge is judge
