"""Facts."""

from interp_transfer.data.world import load_world


def _judge(prompt: str, completion: str):
    world = load_world()
    return world.judge(world.find(prompt), completion)


def test_a_wrong_value_is_named():
    right = load_world().find("What is the river of Velmora?").answer.split()[0]
    wrong = next(r for r in ("Alder", "Misk") if r != right)
    ruling = _judge("What is the river of Velmora?", f"{wrong} is the river of Velmora.")
    assert not ruling.valid
    assert wrong in ruling.reason
    assert right in ruling.reason


def test_the_right_value_about_another_entity_is_wrong():
    right = load_world().find("What is the river of Velmora?").answer
    assert not _judge("What is the river of Velmora?", right.replace("Velmora", "Quastin")).valid


def test_values_never_name_a_held_out_entity():
    facts = next(f for f in load_world().families if f.name == "facts")
    held = facts.held_out_subjects
    for question in facts.questions():
        assert not [e for e in held if e in question.answer and e != question.subject]
