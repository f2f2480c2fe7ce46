"""Objects of the package steering-vectors, and files that torch.save writes of them.

A ``SteeringVector`` of that package has ``layer_activations``, a tensor for each layer, and ``layer_type``. It adds each tensor
to what a module of the block returns: the block itself ("decoder_block", ``blocks.N.hook_resid_post``), its attention
("self_attn", ``blocks.N.hook_attn_out``) or its MLP ("mlp", ``blocks.N.hook_mlp_out``), blocks counted from 0, at every token
unless told otherwise.

A file of torch.save names the package's class. It is read with ``weights_only=True`` and a class of ours, which only takes
attributes, in the place of that one, so no code of the file's choice runs and the package need not be installed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from interp_transfer.io import named_errors, typed
from interp_transfer.models.hooked_model import HookedModel, huggingface_model
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.vectors.exchange.layers import block_output, by_block, vectors_of
from interp_transfer.vectors.exchange.pt import read_pt
from interp_transfer.vectors.vector import SteeringVector

CLASS = "steering_vectors.steering_vector.SteeringVector"
SITES = {
    "decoder_block": "blocks.{layer}.hook_resid_post",
    "self_attn": "blocks.{layer}.hook_attn_out",
    "mlp": "blocks.{layer}.hook_mlp_out",
}
"""By type of layer: the site whose activation a module of that type returns."""


class _Attributes:
    """Takes the attributes of an object of another class."""


def from_steering_vectors(source: Any, model: HookedModel | ModelIdentity) -> list[SteeringVector]:
    """Read a steering vector of the package steering-vectors, by layer.

    Args:
        source: an object with ``layer_activations`` and ``layer_type``, or the path of a file that torch.save wrote of one.
        model: the model that it belongs to.

    Returns:
        A list, also for one layer.

    Raises:
        ValueError: for a file that is missing, damaged or holds anything else, a type of layer that no site stands for, and a
            model that it does not fit.
    """
    name = str(source) if isinstance(source, str | Path) else f"the {type(source).__name__}"
    held = read_pt(Path(source), {CLASS: _Attributes}) if isinstance(source, str | Path) else source
    with named_errors(f"{name!r} is no steering vector of steering-vectors"):
        layers = typed(held.layer_activations, Mapping[int, Tensor])
        kind = typed(held.layer_type, str)
    if kind not in SITES:
        raise ValueError(f"{name!r} has layer_type {kind!r}, for which there is no site: only {', '.join(SITES)} are read")
    if not layers or min(layers) < 0:
        raise ValueError(f"{name!r} has layers {list(layers)}: they are counted from 0, and there is at least one")
    if kind != "decoder_block" and not isinstance(model, ModelIdentity) and _norms_after(model):
        raise ValueError(
            f"{name!r} was added to what the {kind} module returns, which this model normalises before it adds it to the "
            "residual stream: there is no such site; take a vector of layer_type 'decoder_block'"
        )
    return vectors_of(layers, model, name, SITES[kind], f", layer_type {kind!r}")


def to_steering_vectors(vectors: SteeringVector | Sequence[SteeringVector]) -> dict[str, Any]:
    """The arguments of steering-vectors' class: ``steering_vectors.SteeringVector(**to_steering_vectors(vectors))``.

    Its ``multiplier`` 1.0 is strength 1.0 here.

    Raises:
        ValueError: for vectors of several models, two of one block, or at a site other than the output of a block.
    """
    blocks = by_block(vectors, lambda site: block_output(site, "a SteeringVector of steering-vectors"))
    layers = {block: vector.direction.detach().float().cpu() for block, vector in blocks.items()}
    return {"layer_activations": layers, "layer_type": "decoder_block"}


def _norms_after(model: HookedModel) -> bool:
    """Whether blocks normalise what attention and MLP return before it is added, as Gemma 2 and OLMo 2 do."""
    hf = huggingface_model(model)
    return hf is not None and any("post_feedforward_layernorm" in name for name, _ in hf.named_modules())
