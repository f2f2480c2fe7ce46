"""Direct logit attribution: the effect of residual-stream directions on the logits, by the final norm and the unembedding.

The final norm divides by the size of the residual stream, which differs from token to token. That division is left out here, so
the order and the proportions of logits are right, but not their size (Elhage et al. 2021). A cap on the logits (Gemma 2) is
left out as well. The norm's gain is measured by running it, because architectures store it differently: Gemma's is 1 + weight.
"""

import re
from typing import Any

import torch
from accelerate.utils import align_module_device
from jaxtyping import Float
from torch import Tensor

from interp_transfer.models.hooked_model import HookedModel, device_of, huggingface_model
from interp_transfer.models.identity import identity

_RESIDUAL = re.compile(r"^(blocks\.\d+\.hook_(resid_(pre|mid|post)|attn_out|mlp_out|in|out)|hook_embed|ln_final\.hook_in)$")


def writes_to_residual(site: str) -> bool:
    """Whether a vector that is added at a site is added to the residual stream unchanged."""
    return bool(_RESIDUAL.match(site))


def unembedding(model: HookedModel) -> Float[Tensor, "vocabulary d_model"]:
    """The unembedding: one direction of the normed residual stream for each token, in float32 on the CPU."""
    hf: Any = huggingface_model(model)
    if hf is None:
        wrapped: Any = model
        return wrapped.W_U.detach().T.float().cpu()
    layer = hf.get_output_embeddings()
    with align_module_device(layer):  # loads weights that accelerate offloaded
        return layer.weight.detach().float().cpu()


@torch.no_grad()
def final_norm(model: HookedModel) -> tuple[Float[Tensor, " d_model"], bool]:
    """The gain of the final norm in each dimension, and whether it subtracts the mean first (LayerNorm).

    Raises:
        ValueError: for a model without a final norm.
    """
    norm: Any = getattr(model, "ln_final", None)
    if norm is None:
        raise ValueError(f"{identity(model)} has no ln_final: its logits cannot be read off the residual stream")
    probe = _probe(int(model.cfg.d_model))
    weight = next(norm.parameters(), None)
    dtype = torch.float32 if weight is None else weight.dtype
    device = device_of(model) if weight is None or weight.is_meta else weight.device
    # The norm of the probe is gain * probe + bias, that of its opposite -gain * probe + bias.
    inputs = torch.stack([probe, -probe, probe + 1.0]).to(device, dtype)[:, None]
    with align_module_device(norm):
        plus, minus, shifted = norm(inputs)[:, 0].float().cpu()
    return (plus - minus) / (2 * probe), bool(torch.allclose(shifted, plus, rtol=1e-2, atol=1e-3))


def direct_logits(model: HookedModel, directions: Float[Tensor, "n d_model"]) -> Float[Tensor, "n vocabulary"]:
    """The change of the logits when each direction is added to the final residual stream.

    In units of one over the root mean square of that stream, because the norm's division is left out.

    Raises:
        ValueError: for directions of another width, or a model without a final norm.
    """
    if directions.shape[1] != int(model.cfg.d_model):
        raise ValueError(f"directions of width {directions.shape[1]}: the residual stream has {int(model.cfg.d_model)}")
    gain, centres = final_norm(model)
    rows = directions.float().cpu()
    if centres:
        rows = rows - rows.mean(dim=1, keepdim=True)
    return (rows * gain) @ unembedding(model).T


def _probe(d: int) -> Float[Tensor, " d_model"]:
    """A vector without zeros, with mean 0 and mean square 1."""
    probe = torch.ones(d)
    probe[1::2] = -1.0
    if d % 2 and d > 1:
        probe[-1] = -2.0
        probe[-2] = probe[-3] = 1.0
        probe[: d - 3] = torch.ones(d - 3) * torch.tensor([1.0, -1.0]).repeat((d - 3) // 2)
    return probe / probe.square().mean().sqrt()
