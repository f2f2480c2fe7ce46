"""Whether a model is fast enough to be explored by hand."""

import time

import torch

from interp_transfer.models.bypass import bypassed
from interp_transfer.models.exclusive import exclusive
from interp_transfer.models.hooked_model import HookedModel, device_of, huggingface_model, parameter_count
from interp_transfer.models.identity import identity

LIVE_SECONDS = 1.0
"""Longest time for a token of a model that is explored live."""
PARAMETERS_PER_SECOND = {"cpu": 2e10, "cuda": 2e12, "mps": 2e11}
"""More than what a device reads: a model that needs too long even so is not timed, which could take minutes."""


@torch.no_grad()
def seconds_per_token(model: HookedModel) -> float:
    """Return how long a token takes here: estimated from the parameters if that is too long, else timed."""
    device = device_of(model)
    least = parameter_count(model) / PARAMETERS_PER_SECOND.get(device.type, 2e10)
    if least > LIVE_SECONDS:
        return least
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    seconds = least
    with exclusive(model), bypassed(model):
        for _ in range(2):  # the first pass warms up
            began = time.perf_counter()
            float(huggingface_model(model)(token).logits[0, 0, 0])  # waits for the device
            seconds = time.perf_counter() - began
    return seconds


def too_slow(model: HookedModel) -> str:
    """Return why a model is not explored live, and the remedy; empty if it is."""
    seconds = seconds_per_token(model)
    if seconds <= LIVE_SECONDS:
        return ""
    return (
        f"{identity(model).name} is too large for live use here: a token takes about {seconds:.2g} s, and the explorer waits "
        f"for {LIVE_SECONDS:g} s at most. Take a smaller model or a GPU, or pass live=True to wait"
    )
