"""Models, tasks and judges that other packages add by name.

A package names a `Plugin` in an entry point of the group ``interp_transfer``::

    [project.entry-points.interp_transfer]
    mine = "my_package.plugin:PLUGIN"

It is imported when something is looked up by name. Where several plugins know a name, the first in alphabetical order of
their entry points is taken, unless an edition (the name of the entry point) says which.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

GROUP = "interp_transfer"


@dataclass(frozen=True)
class KnownModel:
    """A model that is loaded by a registered name.

    Attributes:
        name: the name.
        path: folder of a Hugging Face model, or a GGUF file. It may be missing, if it can be built or fetched.
        card: facts about it; at least ``architecture``, ``parameters`` and ``tasks``.
        site: the hook point at which a task is steered best, or None if that is not known.
        variant: name of the model that was fine-tuned from this one for a task; its own name if there is none.
        sae: folder of a sparse autoencoder of this model, or None.
        skills: ``skills(model, settings, n=, progress=)`` measures under each of several lists of interventions what the
            model can do besides its task: a list of rates by name. None if nothing is known.
        checks: further measurements by name, ``check(model, *interventions, n=)``, which returns rates by name.
        harness: folder of task files for the lm-evaluation-harness that suit the model, or None.
        fetched: whether ``models get`` fetches it; otherwise ``models build`` makes it.
    """

    name: str
    path: Path
    card: Mapping[str, Any] = field(default_factory=dict, hash=False)
    site: Callable[[Any], str | None] = lambda _task: None
    variant: Callable[[Any], str] | None = None
    sae: Path | None = None
    skills: Callable[..., Sequence[Mapping[str, Any]]] | None = None
    checks: Mapping[str, Callable[..., Mapping[str, Any]]] = field(default_factory=dict, hash=False)
    harness: Path | None = None
    fetched: bool = False

    @property
    def remedy(self) -> str:
        """How to get the model when ``path`` is missing, for errors."""
        verb, command = ("fetch", "get") if self.fetched else ("build", "build")
        return f"{verb} it with `interp-transfer models {command} {self.name}`"


@dataclass(frozen=True)
class Plugin:
    """Additions of a package. All are functions or tables of functions, so that nothing is made before it is used.

    Attributes:
        models: makes the known models, by name.
        tasks: makes functions by name that make a task; their parameters are the task's options.
        judges: by name, a function that makes a judge; its one optional parameter is what follows the colon in
            ``name:argument``.
        build: ``build(name, out, base=, device=, dtype=)`` builds a known model again and returns its card, or None; it gets
            ``data=``, a folder, where one is given.
        commands: further commands of the command line, by name; functions as typer takes them.
        measure: ``measure(model, card)`` measures the figures of a known model's card again, or None.
    """

    models: Callable[[], Mapping[str, KnownModel]] = dict
    tasks: Callable[[], Mapping[str, Callable[..., Any]]] = dict
    judges: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    commands: Mapping[str, Callable[..., None]] = field(default_factory=dict)
    build: Callable[..., dict[str, Any]] | None = None
    measure: Callable[..., dict[str, Any]] | None = None


@cache
def plugins() -> Mapping[str, Plugin]:
    """Return the plugins of all installed packages, by the name of their entry point.

    Raises:
        ValueError: for an entry point that does not lead to a `Plugin`, naming it.
    """
    by_name: dict[str, Plugin] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        try:
            plugin = point.load()
        except ModuleNotFoundError as error:
            if error.name is not None and point.value.startswith(error.name):
                continue  # the package was removed, its metadata were not
            raise ValueError(f"the entry point {point.name} = {point.value!r} cannot be imported: {error}") from error
        if not isinstance(plugin, Plugin):
            raise ValueError(f"the entry point {point.name} = {point.value!r} is a {type(plugin).__name__}, not a Plugin")
        by_name.setdefault(point.name, plugin)
    return by_name


def known_models() -> dict[str, KnownModel]:
    """Return all registered models by name."""
    models: dict[str, KnownModel] = {}
    for plugin in plugins().values():
        models = {**plugin.models(), **models}  # the first plugin takes precedence
    return models


def known_model(name: str) -> KnownModel | None:
    """Return the registered model of a name, or None."""
    return known_models().get(name)


def plugin_of_model(name: str) -> Plugin | None:
    """Return the first plugin that registers a model of a name, or None."""
    return next((plugin for plugin in plugins().values() if name in plugin.models()), None)
