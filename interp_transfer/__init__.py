"""Find an intervention on one language model and use it on another.

    prompts -> activations -> steering vector -> mapper -> moved vector -> intervention -> comparison -> report

The names below are loaded when they are first used, so that importing the package costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "Activations": "activations.capture",
    "ContrastPair": "prompts.contrast",
    "Intervention": "interventions.apply",
    "Mapper": "mapping.mappers",
    "PairedActivations": "mapping.collect",
    "Result": "evaluation.compare",
    "Sae": "features.sae",
    "SteeringVector": "vectors.vector",
    "Task": "evaluation.task",
    "ablate": "interventions.apply",
    "add": "interventions.apply",
    "applied": "interventions.apply",
    "capture": "activations.capture",
    "clamp": "interventions.apply",
    "collect": "mapping.collect",
    "compare": "evaluation.compare",
    "extract": "vectors.extract",
    "fit": "mapping.fit",
    "fit_each": "mapping.fit",
    "follow": "interventions.follow",
    "generate": "interventions.apply",
    "identity": "models.load",
    "load_model": "models.load",
    "load_sae": "features.sae",
    "load_task": "evaluation.tasks",
    "open_pairs": "mapping.stored",
    "prompt_steering": "vectors.extract",
    "run": "studies.run",
    "side_by_side": "vectors.vector",
    "splice": "interventions.splice",
    "substring": "activations.positions",
    "sweep": "search.sweep",
    "train_sae": "features.train",
}

__all__ = [
    "Activations",
    "ContrastPair",
    "Intervention",
    "Mapper",
    "PairedActivations",
    "Result",
    "Sae",
    "SteeringVector",
    "Task",
    "ablate",
    "add",
    "applied",
    "capture",
    "clamp",
    "collect",
    "compare",
    "extract",
    "fit",
    "fit_each",
    "follow",
    "generate",
    "identity",
    "load_model",
    "load_sae",
    "load_task",
    "open_pairs",
    "prompt_steering",
    "run",
    "side_by_side",
    "splice",
    "substring",
    "sweep",
    "train_sae",
]

if TYPE_CHECKING:
    from interp_transfer.activations.capture import Activations, capture
    from interp_transfer.activations.positions import substring
    from interp_transfer.evaluation.compare import Result, compare
    from interp_transfer.evaluation.task import Task
    from interp_transfer.evaluation.tasks import load_task
    from interp_transfer.features.sae import Sae, load_sae
    from interp_transfer.features.train import train_sae
    from interp_transfer.interventions.apply import Intervention, ablate, add, applied, clamp, generate
    from interp_transfer.interventions.follow import follow
    from interp_transfer.interventions.splice import splice
    from interp_transfer.mapping.collect import PairedActivations, collect
    from interp_transfer.mapping.fit import fit, fit_each
    from interp_transfer.mapping.mappers import Mapper
    from interp_transfer.mapping.stored import open_pairs
    from interp_transfer.models.load import identity, load_model
    from interp_transfer.prompts.contrast import ContrastPair
    from interp_transfer.search.sweep import sweep
    from interp_transfer.studies.run import run
    from interp_transfer.vectors.extract import extract, prompt_steering
    from interp_transfer.vectors.vector import SteeringVector, side_by_side


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'interp_transfer' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"interp_transfer.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
