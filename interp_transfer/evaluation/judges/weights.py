"""Hash a module's weights, for the identity of judges whose models are not hooked."""

import hashlib

from torch import nn

from interp_transfer.models.identity import sampled_values


def weights_digest(module: nn.Module) -> str:
    """Return a short hash of the names, shapes and sampled values of all tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode() + sampled_values(tensor).numpy().tobytes())
    return digest.hexdigest()[:16]
