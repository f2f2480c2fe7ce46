"""A hash of a module's weights, for the identity of judges that are no hooked models."""

import hashlib

from torch import nn

from interp_transfer.models.identity import sampled_values


def weights_digest(module: nn.Module) -> str:
    """A short hash of sampled values of every tensor, by name: changes when a model is trained further."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode() + sampled_values(tensor).numpy().tobytes())
    return digest.hexdigest()[:16]
