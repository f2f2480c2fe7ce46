"""Steering in llama.cpp: what a GGUF control vector can do of an intervention, written as one.

llama.cpp adds one constant to the output of a block, at every token. That is an addition at ``positions="all"``; every other
intervention is refused with the reason. The addition is in each architecture's own graph (``build_cvec`` in its sources), and a
graph without it ignores control vectors and says nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from interp_transfer.interventions.intervention import Intervention, check_intervention
from interp_transfer.interventions.transforms import Add, When
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.sites import expand_sites
from interp_transfer.vectors.exchange import to_gguf
from interp_transfer.vectors.vector import SteeringVector


def write_control_vector(interventions: Intervention | Sequence[Intervention], path: str | Path, model: HookedModel) -> Path:
    """Write additions as a GGUF control vector that does the same in llama.cpp.

    The strengths are in the file, so llama.cpp runs it with ``--control-vector FILE``. ``to_gguf`` writes vectors at strength
    1.0 for ``--control-vector-scaled FILE:STRENGTH``.

    Args:
        interventions: one ``vector.add(strength)`` or several, at most one for the output of each block.
        path: the file, written atomically.
        model: the model that they are applied to.

    Returns:
        The path.

    Raises:
        ValueError: for an intervention that a control vector cannot express, with the reason; a site of block 0; two
            interventions of one block; without gguf.
    """
    vectors = []
    for intervention in interventions if isinstance(interventions, Sequence) else [interventions]:
        added = _addition(check_intervention(model, intervention))
        scaled = float(added.strength) * added.direction.float()
        if not scaled.isfinite().all():
            raise ValueError(
                f"{intervention}, strength {float(added.strength):g}, adds numbers that are not finite: give another strength"
            )
        history = (f"added at strength {float(added.strength):g}",)
        vectors += [
            SteeringVector(scaled, site, identity(model), method="intervention", history=history)
            for site in expand_sites(model, intervention.site)
        ]
    return to_gguf(vectors, path, model)


def _addition(intervention: Intervention) -> Add:
    """The transform of an intervention that adds one vector at every token.

    Raises:
        ValueError: for any other, with the reason.
    """
    transform = intervention.transform
    if isinstance(transform, When):
        reason = "has a condition, and llama.cpp adds a control vector whatever the token is"
    elif not isinstance(transform, Add):
        reason = (
            f"is a {type(transform).__name__}, whose change depends on the activation, and a control vector is a constant: "
            "directional ablation can be baked into the weights"
        )
    elif intervention.positions != "all":
        reason = "is at some positions only, and llama.cpp adds a control vector at every token: use .at('all')"
    elif isinstance(transform.strength, Tensor) and transform.strength.ndim or transform.direction.ndim > 1:
        reason = "has a direction or strength for each text, and a control vector has one for all: write a file for each"
    else:
        return transform
    raise ValueError(f"{intervention} cannot be a control vector: it {reason}")
