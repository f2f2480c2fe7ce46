"""The inputs of a study: a task, models and sites, each by name or as an object."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from interp_transfer.evaluation.task import Task
from interp_transfer.evaluation.tasks import load_task
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.load import load_model
from interp_transfer.models.sites import check_site
from interp_transfer.plugins import known_model


def find_task(task: str | Task, edition: str | None = None, *, max_new_tokens: int | None = None, **options: Any) -> Task:
    """The task of a name, or the task itself.

    Args:
        task: name of a registered task, or a task.
        edition: plugin that registers it; only with a name.
        max_new_tokens: length of completions; the task's own if None.
        options: options of the task, such as ``direction``; None leaves one out. Only with a name.

    Raises:
        ValueError: for an unknown name, or options that are combined with a task.
    """
    if max_new_tokens is not None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens}: a completion has at least one token")
        return replace(find_task(task, edition, **options), max_new_tokens=max_new_tokens)
    chosen = {name: value for name, value in options.items() if value is not None}
    if isinstance(task, str):
        return load_task(task, edition, **chosen)
    if edition is not None:
        chosen["edition"] = edition
    for name, value in chosen.items():
        raise ValueError(f"{name}={value!r} needs the name of a task, but {task.name!r} is a task already: leave {name} out")
    return task


def data_options(data: str | None, chat: bool = False) -> dict[str, Any]:
    """The options of a task for a local copy of its data, and for prompts in each model's own chat template.

    Args:
        data: a file or a folder; or KEY=PATH for each of several data sets, joined by commas.
        chat: render prompts as chats.

    Raises:
        ValueError: for a path that does not exist.
    """
    options: dict[str, Any] = {"template": "chat"} if chat else {}
    if data is None:
        return options
    files: dict[str, str] = {}
    for part in data.split(",") if "=" in data else [f"={data}"]:
        key, _, path = part.strip().partition("=")
        files[key] = str(Path(path).expanduser())
        if not Path(files[key]).exists():
            raise ValueError(
                f"there is no data at {path!r}: give a file or a folder, or KEY=PATH for each of several data sets"
            )
    return options | {"data_files": files.get("", files)}


def tuned_name(name: str, task: Task) -> str:
    """The name of a known model's fine-tune for the task if there is one; any other name unchanged."""
    known = known_model(name)
    return name if known is None or known.variant is None else known.variant(task)


def open_model(model: Any, task: Task, dtype: str = "float32", device: str | None = None) -> HookedModel:
    """Load a model by name (of a known model, its fine-tune for the task), or take a model object, which stays as it is."""
    if isinstance(model, str | Path):
        return load_model(tuned_name(str(model), task), dtype=dtype, device=device)
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
