"""Sparse autoencoders of dictionary_learning (saprmarks/dictionary_learning), as modules of sae-lens.

A folder holds ``ae.pt``, the weights, and ``config.json``, whose "trainer" names the class, k and where the SAE was trained:
``submodule_name`` "resid_post_layer_8" is what block 8 returns, blocks counted from 0, ``blocks.8.hook_resid_post``. Where it
is missing or of another kind, the caller gives the site.

The modules compute what the classes of dictionary_learning 0.1 do: ``AutoEncoder`` is scaled to decoder rows of length 1, as
its ``from_pretrained`` does; the BatchTopK ones fire above the threshold that is stored with them.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_transfer.io import parse_json, typed
from interp_transfer.vectors.exchange.pt import read_pt

WEIGHTS, CONFIG = "ae.pt", "config.json"
CLASSES = {
    "AutoEncoder": "standard",
    "AutoEncoderNew": "standard",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "jumprelu",
    "GatedAutoEncoder": "gated",
    "JumpReluAutoEncoder": "jumprelu",
    "MatryoshkaBatchTopKSAE": "jumprelu",
}
"""Architecture in sae-lens of each class."""
NOT_CENTRED = ("AutoEncoderNew", "JumpReluAutoEncoder")
"""Classes that encode an activation without subtracting the decoder's bias."""
SITES = {"resid_post": "hook_resid_post", "attn_out": "hook_attn_out", "mlp_out": "hook_mlp_out"}
NAMES = {
    "encoder.bias": "b_enc",
    "bias": "b_dec",
    "decoder.bias": "b_dec",
    "decoder_bias": "b_dec",
    "gate_bias": "b_gate",
    "mag_bias": "b_mag",
}
"""Names in sae-lens of parameters that it has by another name; "encoder.weight" and "decoder.weight" are transposed."""

_SUBMODULE = re.compile(r"(resid_post|attn_out|mlp_out)_layer_(\d{1,4})")
_MOST_TEXT = 1 << 22


def is_dictionary(folder: Path) -> bool:
    """Whether a folder has the files of an SAE of dictionary_learning."""
    return (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file()


def read_dictionary(folder: Path, device: str) -> Any:
    """A module of sae-lens that computes what the SAE of a folder does.

    Raises:
        Exception: of many kinds, for damaged files, and a ValueError for a class that is not known.
    """
    from sae_lens import SAE, SAEConfig
    from sae_lens.saes.sae import SAEMetadata

    if (folder / CONFIG).stat().st_size > _MOST_TEXT:
        raise ValueError(f"its {CONFIG} is larger than {_MOST_TEXT} bytes")
    config = typed(parse_json((folder / CONFIG).read_text(encoding="utf-8")), dict[str, Any])
    trainer = typed(config["trainer"], dict[str, Any])
    kind = typed(trainer["dict_class"], str)
    if kind not in CLASSES:
        raise ValueError(f"its class {kind!r} is not known, only {', '.join(CLASSES)}")
    state = typed(read_pt(folder / WEIGHTS), Mapping[str, Tensor])
    weights = _weights(state, kind)
    options: dict[str, Any] = {"apply_b_dec_to_input": kind not in NOT_CENTRED}
    if CLASSES[kind] == "topk":
        options |= {"k": typed(trainer["k"], int), "rescale_acts_by_decoder_norm": False}
        if "k" in state and int(state["k"]) != options["k"]:
            raise ValueError(f"its {CONFIG} has k {options['k']}, its {WEIGHTS} {int(state['k'])}")
    known: Any = SAEConfig.from_dict(
        {
            "architecture": CLASSES[kind],
            "d_in": weights["W_dec"].shape[1],
            "d_sae": weights["W_dec"].shape[0],
            "dtype": "float32",
            "device": device,
            "metadata": {},
            **options,
        }
    )
    known.metadata = SAEMetadata(hook_name=_site(config, trainer), model_name=str(trainer.get("lm_name", "")))
    kind_of_module: Any = SAE.get_sae_class_for_architecture(CLASSES[kind])
    module = kind_of_module(known)
    module.load_state_dict(weights)
    return module


def _weights(state: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The state of a module of sae-lens, in float32."""
    weights: dict[str, Tensor] = {}
    for name, values in state.items():
        if name in ("k", "group_sizes") or (name == "threshold" and CLASSES[kind] != "jumprelu"):
            continue
        if not values.isfinite().all():
            raise ValueError(f"its {name} holds numbers that are not finite")
        if name in ("encoder.weight", "decoder.weight"):
            weights["W_enc" if name.startswith("encoder") else "W_dec"] = values.float().T.contiguous()
        else:
            weights[NAMES.get(name, name)] = values.float()
    if kind == "AutoEncoder":
        norms = weights["W_dec"].norm(dim=1)
        weights |= {"W_enc": weights["W_enc"] * norms, "b_enc": weights["b_enc"] * norms}
        weights["W_dec"] = weights["W_dec"] / norms[:, None]
    if CLASSES[kind] == "jumprelu":
        weights["threshold"] = torch.as_tensor(weights["threshold"]).expand(len(weights["W_dec"])).clone()
    return weights


def _site(config: Mapping[str, Any], trainer: Mapping[str, Any]) -> str | None:
    """The site that a configuration names, or None."""
    read = typed(config.get("buffer", {}), dict[str, Any]).get("io", "out")
    match = _SUBMODULE.fullmatch(str(trainer.get("submodule_name")))
    if read not in ("in", "out"):
        raise ValueError("it is a transcoder, which reads one tensor and writes another: only SAEs are taken")
    return f"blocks.{int(match[2])}.{SITES[match[1]]}" if match and read == "out" else None
