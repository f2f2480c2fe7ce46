"""JSON for vllm-lens: a row for each block, with the effect that it has here."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp_transfer as it
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.vectors.exchange import to_vllm_lens
from tests.peer_files import check_effect, steered_by_hooks, vector


def test_a_file_for_vllm_lens(tmp_path: Path, wrapped: Callable[[str], Any], folder: Callable[[str], Path]) -> None:
    model = wrapped("llama")
    sites = ("blocks.3.hook_resid_post", "blocks.2.hook_resid_pre", "blocks.0.hook_resid_post")
    written = [vector(site, seed, model=it.identity(model)) for seed, site in enumerate(sites)]
    [entry] = json.loads(to_vllm_lens(written, tmp_path / "v.json", -0.5).read_text())
    assert (entry["norm_match"], entry["position_indices"], entry["scale"]) == (False, None, -0.5)
    # as vllm-lens reads it: numbers of dtype in shape, a row for each layer
    stored = entry["activations"]
    rows = np.frombuffer(base64.b64decode(stored["data"]), np.dtype(stored["dtype"])).reshape(stored["shape"])
    layers = {layer: torch.from_numpy(row.copy()) for layer, row in zip(entry["layer_indices"], rows, strict=True)}
    assert list(layers) == [0, 1, 3] and stored["original_dtype"] == "torch.float32" and "compression" not in stored
    check_effect(model, written, steered_by_hooks(folder("llama"), "llama", layers, "resid_post", -0.5), -0.5)


def test_what_a_file_for_vllm_lens_cannot_hold(tmp_path: Path) -> None:
    other = ModelIdentity("other", "2" * 16)
    for vectors, says in (
        ([], "no vector given"),
        ([vector("blocks.1.hook_resid_post"), vector("blocks.2.hook_resid_pre")], "two vectors at the output of one block"),
        ([vector("blocks.1.hook_resid_post"), vector("blocks.1.hook_resid_post", model=other)], "of two models"),
        ([vector("blocks.1.hook_mlp_out")], "'blocks.1.hook_mlp_out' cannot be written to a file for vllm-lens"),
        ([vector("blocks.0.hook_resid_pre")], "the embeddings are the output of no block; take .* blocks.0.hook_resid_post"),
    ):
        with pytest.raises(ValueError, match=says):
            to_vllm_lens(vectors, tmp_path / "v.json")
    with pytest.raises(ValueError, match="Out of range float"):
        to_vllm_lens(vector("blocks.1.hook_resid_post"), tmp_path / "v.json", float("nan"))
    assert not list(tmp_path.iterdir())
