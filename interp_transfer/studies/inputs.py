"""The inputs of a study: a task, models and sites, each by name or as an object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interp_transfer.evaluation.ready import ready_tasks
from interp_transfer.evaluation.task import Task, check_task
from interp_transfer.evaluation.tasks import READY, load_task
from interp_transfer.io import cache_folder, file_hash
from interp_transfer.models.chat_templates import has_chat_template
from interp_transfer.models.checkpoints import number_of_blocks
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.load import load_model, with_template
from interp_transfer.models.sites import check_block, check_site
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.plugins import known_model, plugin_of_model
from interp_transfer.search.site_search import SiteSearch, find_site
from interp_transfer.studies.options import DEFAULTS, TaskOptions

DIGEST = "sha256"
"""The entry of a task's file that holds the hash of its content."""


def find_task(
    task: str | Task | Mapping[str, Any], how: TaskOptions = DEFAULTS, *, models: Sequence[Any] = (), **options: Any
) -> Task:
    """The task of a name or of a file, or the task itself.

    Args:
        task: name of a registered task; or the arguments of `Task.from_jsonl` (path, judge, chat, system), with the file's hash
            as "sha256" if it must not have changed; or a task.
        how: its edition, data and template, only with a name, and the length of completions.
        models: models, or their names, that the task is for: they decide the edition where ``how`` leaves it open.
        options: options of the task, such as ``direction``; None leaves one out. Only with a name.

    Raises:
        ValueError: for an unknown name, a file that has changed, or options that are combined with a task.
    """
    if isinstance(task, Mapping):
        made = {name: value for name, value in task.items() if name != DIGEST}
        file = Path(made["path"]).expanduser()
        if DIGEST in task and file.is_file() and task[DIGEST] != file_hash(file):
            raise ValueError(f"{file} has changed since the run: restore it, or do the run anew")
        task = Task.from_jsonl(**made)
    if how.max_new_tokens is not None and how.max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={how.max_new_tokens}: a completion has at least one token")
    edition, options = how.edition, _data_options(how.data, how.chat) | options
    chosen = {name: value for name, value in options.items() if value is not None}
    if isinstance(task, str):
        if edition is None and models and "data_files" not in chosen:  # ready tasks need no data
            edition = _edition_of(task, models)
        if edition == READY:
            chosen.pop("template", None)  # they are chats already
        task = load_task(task, edition, **chosen)
    else:
        check_task(task)
        for name, value in (chosen if edition is None else {**chosen, "edition": edition}).items():
            raise ValueError(
                f"{name}={value!r} needs the name of a task, but {task.name!r} is a task already: leave {name} out"
            )
    return task if how.max_new_tokens is None else replace(task, max_new_tokens=how.max_new_tokens)


def _edition_of(name: str, models: Sequence[Any]) -> str | None:
    """The edition of a task that suits models: "ready", unless a plugin made one of them for a task of this name.

    None where "ready" has no such task: then the first plugin that knows the name has it.
    """
    if name not in ready_tasks():
        return None
    makers = [plugin_of_model(_name(model)) for model in models]
    return None if any(maker is not None and name in maker.tasks() for maker in makers) else READY


def _name(model: Any) -> str:
    """The name of a model, which need not be loaded."""
    if isinstance(model, HookedModel):
        return identity(model).name
    return str(model) if isinstance(model, str | Path) else str(getattr(model, "name_or_path", ""))


def _data_options(data: str | None, chat: bool) -> dict[str, Any]:
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


def open_model(model: Any, task: Task, how: TaskOptions = DEFAULTS) -> HookedModel:
    """Load a model by name (of a known model, its fine-tune for the task), or take a model object, which stays as it is."""
    name = tuned_name(str(model), task) if isinstance(model, str | Path) else model
    return open_exactly(name, how)


def open_exactly(model: Any, how: TaskOptions = DEFAULTS) -> HookedModel:
    """Load the model of a name, or take a model object; a model that has no chat template gets that of ``how``."""
    by_name = {"dtype": how.dtype, "device": how.device} if isinstance(model, str | Path) else {}
    loaded = load_model(model, **by_name)
    if how.chat_template is not None and not has_chat_template(tokenizer_of(loaded)):
        with_template(loaded, how.chat_template)
    return loaded


AUTO = "auto"
"""The site that stands for a search, even where a card names one."""


@dataclass(frozen=True)
class ChosenSite:
    """Where to steer.

    Attributes:
        name: hook-point name.
        chosen: "given" by the user, named by the model's "card", or "found" by a search.
        search: the search, if there was one.
    """

    name: str
    chosen: str
    search: SiteSearch | None = None

    def to_dict(self) -> dict[str, Any]:
        """As result.json stores it."""
        return {"site": self.name, "chosen": self.chosen} | ({"search": self.search.to_dict()} if self.search else {})


def choose_site(
    model: HookedModel, task: Task, site: str | int | None = None, *, seed: int = 0, progress: bool = True
) -> ChosenSite:
    """The user's site, or else the one that the card of a known model names for the task, or else the one that a search finds.

    A site that was found is kept in the user's cache folder.

    Args:
        model: the model that is steered, or that the vector comes from.
        task: the task.
        site: name of a hook point, number of a block for its input, or "auto" for a search in any case.
        seed: of the search.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: for a site that the model does not have.
    """
    if site is not None and site != AUTO:
        return ChosenSite(check_site(model, site), "given")
    named = _on_card(model, task) if site is None else None
    if named is not None:
        return ChosenSite(check_site(model, named), "card")
    search = find_site(model, task, seed=seed, cache=cache_folder("sites"), progress=progress)
    return ChosenSite(search.site, "found", search)


def needs_search(model: HookedModel, task: Task, site: str | int | None) -> bool:
    """Return whether ``choose_site`` would search, or read a search from the cache."""
    return site == AUTO or (site is None and _on_card(model, task) is None)


def _on_card(model: HookedModel, task: Task) -> str | None:
    known = known_model(identity(model).name)
    return None if known is None else known.site(task)


def choose_sites(
    models: Mapping[str, HookedModel],
    task: Task,
    sites: Mapping[str, str | int | None],
    *,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, ChosenSite]:
    """Choose a site for each of several models, as ``choose_site`` does; given ones are checked before any is searched."""
    for side, model in models.items():
        given = sites[side]
        if given is not None and given != AUTO:
            check_site(model, given)
    return {side: choose_site(model, task, sites[side], seed=seed, progress=progress) for side, model in models.items()}


def check_before_loading(model: Any, task: Task | None, *sites: str | int | None) -> None:
    """Refuse an unknown model, or blocks that it does not have, before the weights of any are loaded.

    Raises:
        ValueError: with the closest name, or naming the blocks that there are.
    """
    if not isinstance(model, str | Path):
        return
    blocks = number_of_blocks(str(model) if task is None else tuned_name(str(model), task))
    for site in sites:
        if site is not None and site != AUTO and blocks is not None:
            check_block(site, blocks)
