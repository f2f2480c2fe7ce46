"""Find an intervention on one language model and use it on another.

    prompts -> activations -> vector -> pairs -> mapper -> moved vector -> intervention -> comparison -> report

The names below are loaded when they are first used, so that importing the package costs next to nothing. The package of an
installed plugin is reachable under the plugin's name (see ``interp_transfer.plugins``).
"""

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_WHERE = {
    "Activations": "activations.capture",
    "ContrastPair": "prompts.contrast",
    "Intervention": "interventions.intervention",
    "Mapper": "mapping.mappers",
    "PairedActivations": "mapping.collect",
    "Result": "evaluation.compare",
    "SteeringVector": "vectors.vector",
    "Task": "evaluation.task",
    "ablate": "interventions.intervention",
    "add": "interventions.intervention",
    "applied": "interventions.hooks",
    "bake": "deployment.bake",
    "capture": "activations.capture",
    "clamp": "interventions.intervention",
    "collect": "mapping.collect",
    "compare": "evaluation.compare",
    "explore": "explorer.widget",
    "extract": "vectors.extract",
    "fit": "mapping.fit",
    "follow": "interventions.follow",
    "generate": "interventions.generation",
    "identity": "models.identity",
    "list_tasks": "evaluation.tasks",
    "load_model": "models.load",
    "load_task": "evaluation.tasks",
    "open_pairs": "mapping.stored",
    "run": "studies.run",
    "splice": "interventions.splice",
    "substring": "activations.positions",
    "sweep": "search.sweep",
    "trait_pairs": "prompts.traits",
    "trait_task": "evaluation.ready",
}
_NAMESPACES = {"features": "features", "judges": "evaluation.judges", "patching": "interventions.patching"}

__all__ = sorted([*_WHERE, *_NAMESPACES])  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from interp_transfer import features as features
    from interp_transfer.activations.capture import Activations as Activations
    from interp_transfer.activations.capture import capture as capture
    from interp_transfer.activations.positions import substring as substring
    from interp_transfer.deployment.bake import bake as bake
    from interp_transfer.evaluation import judges as judges
    from interp_transfer.evaluation.compare import Result as Result
    from interp_transfer.evaluation.compare import compare as compare
    from interp_transfer.evaluation.ready import trait_task as trait_task
    from interp_transfer.evaluation.task import Task as Task
    from interp_transfer.evaluation.tasks import list_tasks as list_tasks
    from interp_transfer.evaluation.tasks import load_task as load_task
    from interp_transfer.explorer.widget import explore as explore
    from interp_transfer.interventions import patching as patching
    from interp_transfer.interventions.follow import follow as follow
    from interp_transfer.interventions.generation import generate as generate
    from interp_transfer.interventions.hooks import applied as applied
    from interp_transfer.interventions.intervention import Intervention as Intervention
    from interp_transfer.interventions.intervention import ablate as ablate
    from interp_transfer.interventions.intervention import add as add
    from interp_transfer.interventions.intervention import clamp as clamp
    from interp_transfer.interventions.splice import splice as splice
    from interp_transfer.mapping.collect import PairedActivations as PairedActivations
    from interp_transfer.mapping.collect import collect as collect
    from interp_transfer.mapping.fit import fit as fit
    from interp_transfer.mapping.mappers import Mapper as Mapper
    from interp_transfer.mapping.stored import open_pairs as open_pairs
    from interp_transfer.models.identity import identity as identity
    from interp_transfer.models.load import load_model as load_model
    from interp_transfer.prompts.contrast import ContrastPair as ContrastPair
    from interp_transfer.prompts.traits import trait_pairs as trait_pairs
    from interp_transfer.search.sweep import sweep as sweep
    from interp_transfer.studies.run import run as run
    from interp_transfer.vectors.extract import extract as extract
    from interp_transfer.vectors.vector import SteeringVector as SteeringVector


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    elif name in _NAMESPACES:
        value = importlib.import_module(f"{__name__}.{_NAMESPACES[name]}")
    elif (package := _plugin_packages().get(name)) is not None:
        value = importlib.import_module(package)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_plugin_packages()])


def _plugin_packages() -> dict[str, str]:
    """The package that each plugin's entry point lies in, by the name of the entry point."""
    return {point.name: point.module.rpartition(".")[0] for point in entry_points(group=__name__)}
