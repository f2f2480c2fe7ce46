"""What the paper's edition adds to the toolkit.

Its tasks on its own data, fine-tunes of pretrained models by name, and the command that reproduces its experiments.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from interp_transfer.paper.command import reproduce
from interp_transfer.paper.fine_tunes import fine_tunes
from interp_transfer.plugins import Plugin


@cache
def _tasks() -> dict[str, Callable[..., Any]]:
    from interp_transfer.paper.tasks import PAPER_TASKS

    return {name: _as_task(make) for name, make in PAPER_TASKS.items()}


def _as_task(make: Callable[..., Any]) -> Callable[..., Any]:
    from interp_transfer.evaluation.task import Task

    @wraps(make)  # load_task reads the options off the signature
    def made(**options: Any) -> Task:
        source = make(**options)
        return Task.from_object(source, description=source.describe(), recipe=_recipe(source))

    return made


def _recipe(source: Any) -> dict[str, Any]:
    tuning = source.finetuning
    return {} if tuning is None else {name: value for name, value in vars(tuning).items() if value is not None}


def _build(name: str, out: Any, **options: Any) -> dict[str, Any]:
    from interp_transfer.paper.fine_tunes import build

    return build(name, out, **options)


PLUGIN = Plugin(models=fine_tunes, tasks=_tasks, commands={"reproduce": reproduce}, build=_build)
