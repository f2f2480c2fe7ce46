"""Sums."""

import pytest

from interp_transfer.data.world import load_world


@pytest.mark.parametrize(
    ("completion", "valid"),
    [
        (" 9.", True),
        ("4 + 5 = 9.", True),
        ("4 plus 5 makes 9.", True),
        ("9", False),
        ("10.", False),
        ("4 + 5 = 8.", False),
        ("4 + 6 = 9.", False),
        ("9. 9.", False),
    ],
)
def test_only_the_right_sum_is_valid(completion: str, valid: bool):
    world = load_world()
    ruling = world.judge(world.find("What is 4 + 5?"), completion)
    assert ruling.valid is valid, ruling
    if completion == "10.":
        assert "wrong sum 10" in ruling.reason
