"""Steering in llama.cpp: what a GGUF control vector can do of an intervention, written as one.

llama.cpp adds one constant to the output of a block, at every token. That is an addition at ``positions="all"``; every other
intervention is refused with the reason.

The addition is in each architecture's own graph: ``build_cvec`` in the files of llama.cpp's ``src/models``, read at b11434. A
graph without it ignores control vectors and says nothing. Names here are transformers' model types.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from interp_transfer.interventions.intervention import Intervention, check_intervention
from interp_transfer.interventions.transforms import Add, When
from interp_transfer.models.hooked_model import HookedModel, huggingface_model
from interp_transfer.models.identity import identity
from interp_transfer.models.sites import expand_sites
from interp_transfer.models.supported import language_config
from interp_transfer.vectors.exchange import to_gguf
from interp_transfer.vectors.vector import SteeringVector

_TRIED = """
bloom cohere cohere2 deepseek_v2 deepseek_v3 ernie4_5 exaone4 falcon falcon_h1 gemma gemma2 gemma3_text gemma4_text glm4
glm4_moe gpt2 gpt_neox gpt_oss granite granitemoe hunyuan_v1_dense llama ministral3 mistral mixtral nemotron olmo olmo2
olmo3 olmoe phi phi3 qwen2 qwen2_moe qwen3 qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next seed_oss smollm3 starcoder2
"""
TRIED = frozenset(_TRIED.split())
"""Architectures of which a tiny model, converted by llama.cpp's converter, was steered in llama.cpp as our hooks steer it."""

UNUSABLE = {
    **dict.fromkeys(("hy_v4", "mamba2", "plamo2"), "ignored"),
    **dict.fromkeys(("deepseek_v4", "gemma3n_text"), "added to each of several residual streams"),
    **dict.fromkeys(
        ("codegen", "flex_olmo", "gpt_neo", "gptj", "nanochat", "olmo_hybrid", "opt", "vaultgemma", "xglm"), "no such model"
    ),
}
"""Architectures for which no control vector is written, and what llama.cpp does with one."""


def outcome(kind: str) -> str:
    """What llama.cpp does with a control vector for a model type of transformers: "added", see ``UNUSABLE``, or "not tried"."""
    return "added" if kind in TRIED else UNUSABLE.get(kind, "not tried")


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
            interventions of one block; an architecture of ``UNUSABLE``; without gguf.
    """
    _check_architecture(model)
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


def _check_architecture(model: HookedModel) -> None:
    """Refuse an architecture in ``UNUSABLE``, and warn of one that was not tried."""
    hf = huggingface_model(model)
    if hf is None:
        return
    kind = language_config(hf.config).model_type
    if kind in UNUSABLE:
        raise ValueError(
            f"no control vector can be written for the architecture {kind!r} (llama.cpp: {outcome(kind)}): steer this model "
            "here, or bake the vector into its weights"
        )
    if kind not in TRIED:
        warnings.warn(
            f"control vectors were not tried in llama.cpp with the architecture {kind!r}: check that the file has an effect",
            UserWarning,
            stacklevel=3,
        )
