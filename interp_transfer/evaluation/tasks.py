"""Tasks by name: what the installed plugins register, and those that need no data (``evaluation.ready``)."""

import inspect
from collections.abc import Hashable
from dataclasses import replace
from functools import cache
from typing import Any

from interp_transfer.evaluation.ready import ready_tasks
from interp_transfer.evaluation.task import Task
from interp_transfer.names import did_you_mean
from interp_transfer.plugins import Plugin, plugins

READY = "ready"
"""Edition of the tasks that need no data."""


def list_tasks(edition: str | None = None) -> list[str]:
    """The names of the registered tasks, of one edition (the name of a plugin) or of all."""
    return sorted({name for _, plugin in _editions(edition) for name in plugin.tasks()})


def load_task(name: str, edition: str | None = None, **options: Any) -> Task:
    """The task of this name.

    Args:
        name: for example "refusal".
        edition: the plugin that registers it, or "ready" (``evaluation.ready``); unless given, the first plugin in
            alphabetical order that knows the name, and "ready" after all plugins.
        options: what the task leaves open, such as ``direction="induce"``.

    Raises:
        ValueError: for an unknown name, edition or option, with the closest one.
    """
    check_registered(name, edition)
    make = next(there[name] for _, plugin in _editions(edition) if name in (there := plugin.tasks()))
    known = inspect.signature(make).parameters
    if unknown := sorted(set(options) - set(known)):
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f"the task {name!r} has no option {unknown[0]!r}: {there}")
    if "data_files" in options or not all(isinstance(value, Hashable) for value in options.values()):
        return _made(make, options)  # files may change, so a task that reads them is not kept
    return _kept(make, tuple(sorted(options.items())))


def check_registered(name: str, edition: str | None = None) -> None:
    """Refuse a name that no task has; torch is not imported.

    Raises:
        ValueError: for an unknown name or edition, with the closest one.
    """
    there = list_tasks(edition)
    if name not in there:
        which = f"the tasks of the edition {edition!r} are" if edition else "the registered tasks are"
        raise ValueError(f"unknown task {name!r}: {did_you_mean(name, there)}{which} {', '.join(there) or 'none'}")


def _editions(edition: str | None) -> list[tuple[str, Plugin]]:
    there = {**plugins(), READY: Plugin(tasks=ready_tasks)}
    if edition is not None and edition not in there:
        raise ValueError(f"unknown edition {edition!r}: {did_you_mean(edition, there)}choose one of {', '.join(there)}")
    return [(name, plugin) for name, plugin in there.items() if edition in (None, name)]


@cache
def _kept(make: Any, options: tuple[tuple[str, Any], ...]) -> Task:
    return _made(make, dict(options))


def _made(make: Any, options: dict[str, Any]) -> Task:
    defaults = {k: p.default for k, p in inspect.signature(make).parameters.items() if p.default is not p.empty}
    return replace(make(**options), options=defaults | options)
