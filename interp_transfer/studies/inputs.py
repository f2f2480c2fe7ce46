"""The inputs of a study: a task, models and sites, each by name or as an object."""

from pathlib import Path
from typing import Any

from interp_transfer.evaluation.task import Task
from interp_transfer.evaluation.tasks import load_task
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.load import load_model
from interp_transfer.models.sites import check_site
from interp_transfer.plugins import known_model


def find_task(task: str | Task, edition: str | None = None, **options: Any) -> Task:
    """The task of a name, or the task itself.

    Args:
        task: name of a registered task, or a task.
        edition: plugin that registers it; only with a name.
        options: options of the task, such as ``direction``; None leaves one out. Only with a name.

    Raises:
        ValueError: for an unknown name, or options that are combined with a task.
    """
    chosen = {name: value for name, value in options.items() if value is not None}
    if isinstance(task, str):
        return load_task(task, edition, **chosen)
    if edition is not None:
        chosen["edition"] = edition
    for name, value in chosen.items():
        raise ValueError(f"{name}={value!r} needs the name of a task, but {task.name!r} is a task already: leave {name} out")
    return task


def tuned_name(name: str, task: Task) -> str:
    """The name of a known model's fine-tune for the task if there is one; any other name unchanged."""
    known = known_model(name)
    return name if known is None or known.variant is None else known.variant(task)


def open_model(model: Any, task: Task, dtype: str = "float32") -> HookedModel:
    """Load a model by name (of a known model, its fine-tune for the task), or take a model object, which keeps its dtype."""
    if isinstance(model, str | Path):
        return load_model(tuned_name(str(model), task), dtype=dtype)
    return load_model(model)


def site_of(model: HookedModel, task: Task, site: str | None, option: str) -> str:
    """The user's site, or else the one that the card of a known model names for the task.

    Raises:
        ValueError: for a site that the model does not have; if no card names one, with the ``option`` that sets it.
    """
    name = identity(model).name
    known = known_model(name)
    if site is None and known is not None:
        site = known.site(task)
    if site is None:
        raise ValueError(f"no card says where to steer {name!r} for {task.name!r}: name a site with {option}=")
    return check_site(model, site)
