"""A hash of a module's weights, for the identity of judges that are no hooked models."""

import hashlib

import torch
from torch import nn

SAMPLES_PER_TENSOR = 256


def weights_digest(module: nn.Module) -> str:
    """A short hash of sampled values of every tensor, by name: changes when a model is trained further."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        index = torch.linspace(0, max(flat.numel() - 1, 0), min(SAMPLES_PER_TENSOR, flat.numel()), device=flat.device).long()
        digest.update(f"{name} {tuple(tensor.shape)} ".encode() + flat[index].cpu().double().numpy().tobytes())
    return digest.hexdigest()[:16]
