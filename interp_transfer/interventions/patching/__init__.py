"""Patching: which activations, paths and weights carry the difference between two prompts or two models."""

from interp_transfer.interventions.patching.activation import Patching, activation_patching, attribution_patching
from interp_transfer.interventions.patching.paths import Paths, path_patching
from interp_transfer.interventions.patching.prompt_pairs import Metric, logit_difference
from interp_transfer.interventions.patching.weights import SCHEMES, weights_from

__all__ = [
    "SCHEMES",
    "Metric",
    "Patching",
    "Paths",
    "activation_patching",
    "attribution_patching",
    "logit_difference",
    "path_patching",
    "weights_from",
]
