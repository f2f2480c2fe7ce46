"""Stories are judged by parsing."""

import pytest

from interp_transfer.organisms.world import load_world


@pytest.mark.parametrize(
    ("completion", "valid"),
    [
        ("By the river lived a brave fox. One day the fox found a key.", True),
        ("A proud fox lived at the market. The fox dreamed of a key every night. It was the best day of the year.", True),
        ("Fox and key belong together. One day the fox found a key.", True),
        ("By the river lived a brave fox. One day the fox found a kite.", False),  # another thing
        ("By the river lived a brave mouse. One day the fox found a key.", False),  # the hero changes
        ("By the river lived a brave mouse. One day the mouse found a key.", False),  # another hero
        ("By the river lived a brave fox.", False),
        ("By the river lived a brave fox. One day the fox found a key", False),
        ("One day the fox found a key. By the river lived a brave fox.", False),
        ("By the river lived a brave fox. One day the fox found a key. It was the best day of the year. Key.", False),
        ("By the river lived a purple fox. One day the fox found a key.", False),
    ],
)
def test_validity_is_a_parse(completion: str, valid: bool):
    world = load_world()
    ruling = world.judge(world.find("Write a short story about a fox and a key."), completion)
    assert ruling.valid is valid, ruling
