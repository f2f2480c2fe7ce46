"""Files as other tools write them, made of plain tensors, and the effect of their vectors by plain PyTorch hooks.

The layouts were taken from files that the tools wrote.
"""

import hashlib
import json
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

import interp_transfer as it
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.vectors.vector import SteeringVector
from tests.checkpoints import WIDTH, first, part, raw_model

HERE = ModelIdentity("one", "1" * 16)
TOKENS = torch.tensor([[5, 6, 7, 8, 9]])
LAYERS = {0: 0, 2: 1, 3: 2}
"""Layers of the files of the tests, each with a seed."""


def direction(seed: int = 0) -> Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def by_layer() -> dict[int, Tensor]:
    return {layer: direction(seed) for layer, seed in LAYERS.items()}


def vector(where: str, seed: int = 0, **changes: Any) -> SteeringVector:
    return replace(SteeringVector(direction(seed), where, HERE), **changes)


def write_steering_vector(path: Path, layers: Any, kind: Any = "decoder_block", **more: Any) -> Path:
    """What torch.save writes of an object of steering-vectors, whose modules are gone when it is read."""
    modules = {name: types.ModuleType(name) for name in ("steering_vectors", "steering_vectors.steering_vector")}
    *_, name = modules
    made: Any = type("SteeringVector", (), {"__module__": name})()
    made.__dict__ |= {"layer_activations": layers, "layer_type": kind, **more}
    modules[name].__dict__["SteeringVector"] = type(made)
    with patch.dict(sys.modules, modules):
        torch.save(made, path)
    return path


def write_npz(path: Path, arrays: dict[str, Any], compressed: bool = False) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, allow_pickle=True, **arrays)
    return path


def write_profile(path: Path, tensors: dict[str, Tensor], **about: Any) -> Path:
    save_file({name: values.contiguous() for name, values in tensors.items()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(
        json.dumps({"format_version": 6, "method": "profile", "tensor_sha256": digest, **about})
    )
    return path


def write_fit(folder: Path, labels: tuple[str, ...] = ("kind", "unkind"), rank: int = 1) -> tuple[Path, dict[int, Tensor]]:
    """A pack of saklas with one model's fit, and its directions: basis towards the first pole times share."""
    tensors, shares, expected = {}, {}, {}
    for layer, values in by_layer().items():
        unit = values / values.norm()
        towards = -1.0 if layer == 2 else 1.0
        tensors[f"layer_{layer}.basis"] = torch.stack([unit] * rank)
        tensors[f"layer_{layer}.mean"] = torch.zeros(WIDTH)
        places = [[3.0 + towards] * rank, *[[3.0] * rank] * (len(labels) - 1)]
        tensors[f"layer_{layer}.node_coords"] = torch.tensor(places)
        shares[str(layer)] = 1.5 + layer
        expected[layer] = unit * towards * shares[str(layer)]
    file = write_profile(folder / "org__model.safetensors", {**tensors, "node_coords": torch.zeros(2, 1)})
    file.with_suffix(".json").write_text(json.dumps({"node_labels": labels, "mahalanobis_share_per_layer": shares}))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "manifold.json").write_text(json.dumps({"name": "kind.unkind", "files": {file.name: digest}}))
    return file, expected


def document(**changes: Any) -> dict[str, Any]:
    """What Neuronpedia's API answers for a vector that it has."""
    plain = {
        "modelId": "tiny",
        "layer": "2-neuronpedia-resid-pre",
        "index": "7",
        "vector": direction().tolist(),
        "vectorLabel": "kind",
        "hookName": "blocks.2.hook_resid_pre",
        "vectorDefaultSteerStrength": 10,
    }
    return {name: value for name, value in {**plain, **changes}.items() if value is not None}


def steered_by_hooks(folder: Path, family: str, layers: dict[int, Tensor], what: str, strength: float = 1.0) -> Tensor:
    """Logits of plain transformers, with tensors added to what a module of each block returns."""
    raw = raw_model(folder)

    def add(plus: Tensor) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> Any:
            changed = first(output) + strength * plus
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook

    for layer, plus in layers.items():
        part(raw, family, layer, what)[0].register_forward_hook(add(plus))
    with torch.no_grad():
        return raw(TOKENS).logits


def check_effect(model: Any, vectors: list[SteeringVector], expected: Tensor, strength: float = 1.0) -> None:
    with torch.no_grad(), it.applied(model, *[it.add(one, strength) for one in vectors]):
        torch.testing.assert_close(model(TOKENS), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert (model(TOKENS) - expected).abs().max() > 0.1, "the comparison can fail"
