"""Steering vectors for vllm-lens, a plugin of vLLM: the JSON of its ``SteeringVector``, which its HTTP API takes.

Layer N is the output of block N, blocks counted from 0: ``blocks.N.hook_resid_post``. vllm-lens adds ``scale`` times the vector
there, at every token if ``position_indices`` is null. Numbers are written as float32, uncompressed, which it reads as well as
its own compressed form.
"""

import base64
from collections.abc import Sequence
from pathlib import Path

import torch

from interp_transfer.io import write_json
from interp_transfer.vectors.exchange.layers import block_output, by_block
from interp_transfer.vectors.vector import SteeringVector


def to_vllm_lens(vectors: SteeringVector | Sequence[SteeringVector], path: str | Path, scale: float | int = 1.0) -> Path:
    """Write steering vectors as JSON for vllm-lens: a list of one of its vectors, which has a row for each layer.

    The text of the file is what ``extra_args={"apply_steering_vectors": text}`` of vLLM's sampling parameters takes, and the
    field of that name in ``vllm_xargs`` of a request over HTTP. Lengths are kept, so ``scale`` is the strength.

    Args:
        vectors: one vector, or several of one model, at most one for the output of each block.
        path: the file, written atomically.
        scale: the strength.

    Returns:
        The path.

    Raises:
        ValueError: for vectors of several models, two of one block, a site that is not the output of a block, or a scale of
            NaN.
    """
    blocks = by_block(vectors, lambda site: block_output(site, "a file for vllm-lens"))
    rows = torch.stack([vector.direction.detach().float().cpu() for vector in blocks.values()]).contiguous()
    activations = {
        "data": base64.b64encode(rows.numpy().astype("<f4").tobytes()).decode(),
        "dtype": "float32",
        "original_dtype": "torch.float32",
        "shape": list(rows.shape),
    }
    document = {
        "activations": activations,
        "layer_indices": list(blocks),
        "scale": float(scale),
        "norm_match": False,
        "position_indices": None,
    }
    write_json(path, [document])
    return Path(path)
