"""Put interventions into the weights: an ordinary Hugging Face folder that transformers loads without this package.

Directional ablation everywhere becomes a projection of all weights that write to the residual stream, an addition at all tokens
a bias of the projection that writes last before its site. A model whose class has no such bias is written as it is with biases
switched on in its configuration, or as a Llama where it computes the same; otherwise the folder is an adapter of peft, a bias
alone, for the unchanged model. Before the folder gets its name it is loaded by transformers, and its logits are compared with
those of the model under the interventions.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import forward
from interp_transfer.deployment.changes import Addition, Change, Removal, changes_of
from interp_transfer.deployment.plain import plain_model, stored_tensors
from interp_transfer.deployment.rewrite import biases_for, changed_model, check_projectable, options_for, save_biases
from interp_transfer.deployment.writes import residual_writes, tolerance
from interp_transfer.escape import markdown
from interp_transfer.interventions.hooks import applied
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.io import atomic_folder, tensors_digest, with_digest, write_json
from interp_transfer.models.adapters import quiet_peft
from interp_transfer.models.checkpoints import no_progress_bars
from interp_transfer.models.hooked_model import HookedModel, context_length, device_of, huggingface_model, is_quantized
from interp_transfer.models.identity import identity
from interp_transfer.models.probe import TEXTS
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.studies.folders import fresh_folder

RECORD = "interp_transfer.json"
"""File in the folder that records what was baked into it."""
FORMAT = "interp_transfer.baked"
_CHECKED = (*TEXTS, "Once upon a time there was a king who had three daughters, and in 1984 the youngest of them said: ")
"""Texts on which the folder is compared with the intervention."""


@dataclass(frozen=True)
class Baked:
    """A folder that holds an intervened model.

    Attributes:
        folder: the folder.
        form: "weights" for a whole checkpoint, or "adapter" for an adapter of peft, which needs its base.
        architecture: class of transformers that loads it.
        difference: largest difference of its logits from those under the interventions, as a share of their size, over texts;
            in 16 bits, if it is large, with both computed in float32.
        bound: difference that rounding in the model's dtype explains, and up to which a folder is written.
        dtype: dtype of the weights.
    """

    folder: Path
    form: str
    architecture: str
    difference: float
    bound: float
    dtype: str


def bake(model: HookedModel, interventions: Intervention | Iterable[Intervention], out: str | Path) -> Baked:
    """Write a model under interventions as a Hugging Face folder, in the dtype in which it is in memory.

    The model is not changed. While the folder is checked, memory holds both.

    Args:
        model: a bridge, such as ``load_model`` returns.
        interventions: ``vector.add(strength)``, ``vector.ablate(everywhere=True)``, or several, as ``applied`` takes them.
        out: the folder, missing or empty.

    Raises:
        ValueError: for interventions that weights cannot express, architectures in which a norm or a router stands between
            the projections and the residual stream, quantized models, and a result whose logits differ, with the reason.
    """
    hf = _checked(model)
    folder = fresh_folder(out)
    assert folder is not None
    steps = [interventions] if isinstance(interventions, Intervention) else list(interventions)
    changes = changes_of(model, steps)
    tensors = stored_tensors(hf)
    writes = residual_writes(model, tensors)
    options = {k: options_for(model, change, writes) for k, change in enumerate(changes) if isinstance(change, Addition)}
    if len(options) < len(changes):
        check_projectable(model, writes)
    expected = _logits(model, steps)
    with atomic_folder(folder) as part, no_progress_bars():
        whole = changed_model(hf, tensors, changes, options, writes)
        if whole is not None:
            form = "weights"
            whole.generation_config = deepcopy(hf.generation_config)
            whole.save_pretrained(part)
        else:
            form = "adapter"
            whole = plain_model(type(hf), hf.config, tensors, hf.dtype)
            save_biases(whole, biases_for(changes, options), hf.name_or_path, part)
        architecture = hf.config.architectures[0] if form == "adapter" else type(whole).__name__
        del whole
        tokenizer_of(model).save_pretrained(part)
        bound, difference = tolerance(model), _difference(model, part, expected)
        if not difference <= bound and hf.dtype in (torch.float16, torch.bfloat16):
            with _in_float32(hf):  # of both, so that the rounding of the new weights is what is left of 16 bits
                difference = _difference(model, part, _logits(model, steps))
        if not difference <= bound:
            raise ValueError(
                f"{identity(model)} cannot be baked exactly: the logits of the baked model differ from the intervention's by "
                f"{difference:.2%} of their size, where rounding explains {bound:.2%}, so {type(hf).__name__} computes "
                "something else of its projections; steer with hooks"
            )
        result = Baked(folder, form, architecture, difference, bound, str(hf.dtype).removeprefix("torch."))
        _write_record(part, model, changes, result)
    return result


def _checked(model: HookedModel) -> Any:
    """The transformers model inside a wrapped one, if its weights can be baked."""
    hf = huggingface_model(model)
    if hf is None:
        raise ValueError(
            f"a {type(model).__name__} has no transformers model inside, whose weights could be written: load it with "
            "wrapper='bridge'"
        )
    if is_quantized(hf):
        raise ValueError("quantized weights cannot be changed exactly: load the model without quantization_config=")
    if any(p.is_meta for p in hf.parameters()) or len({p.device for p in hf.parameters()}) > 1:
        raise ValueError("the weights are offloaded or spread over devices: load the model on one device, without device_map=")
    if identity(model).processing != "none":
        raise ValueError("the weights were processed by transformer-lens, such as by folding norms: load the model again")
    if hasattr(hf.config, "auto_map"):
        raise ValueError(f"{type(hf).__name__} is code that came with the checkpoint, which plain transformers does not have")
    return hf


@contextmanager
def _in_float32(hf: Any) -> Iterator[None]:
    """Let a model compute in float32 with the weights that it has, and put them back as they were."""
    kept = [(tensor, tensor.data) for tensor in (*hf.parameters(), *hf.buffers()) if tensor.is_floating_point()]
    try:
        for tensor, own in kept:
            tensor.data = own.float()
        yield
    finally:
        for tensor, own in kept:
            tensor.data = own


@torch.no_grad()
def _logits(model: HookedModel, interventions: list[Intervention]) -> list[Float[Tensor, "token vocabulary"]]:
    """The logits of a model under interventions at each token of some texts, each alone."""
    found = []
    for text in _CHECKED:
        with applied(model, *interventions):
            found.append(forward(model, _tokens(model, text))[0].float())
    return found


def _tokens(model: HookedModel, text: str) -> Tensor:
    ids = tokenizer_of(model)(text)["input_ids"][: context_length(model)]
    return torch.tensor([ids], device=device_of(model))


@torch.no_grad()
def _difference(model: HookedModel, folder: Path, expected: list[Tensor]) -> float:
    """The largest difference of a folder's logits from others, as a share of their spread over the vocabulary, over texts."""
    from transformers import AutoModelForCausalLM

    with quiet_peft():
        baked: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=huggingface_model(model).dtype, local_files_only=True, trust_remote_code=False
        )
    baked = baked.to(device_of(model)).eval()
    shares = []
    for text, wanted in zip(_CHECKED, expected, strict=True):
        apart = baked(_tokens(model, text), use_cache=False).logits[0].float() - wanted
        spread = wanted - wanted.mean(dim=-1, keepdim=True)
        shares.append(float(apart.norm() / spread.norm()))
    return float(torch.tensor(shares).max())  # NaN if one is


def _write_record(folder: Path, model: HookedModel, changes: Sequence[Change], result: Baked) -> None:
    """Write what was baked, as JSON and as a model card."""
    source = identity(model)
    name = Path(source.name).name if Path(source.name).exists() else source.name
    baked = [
        {"what": "ablation everywhere", "direction": tensors_digest({"direction": change.unit})}
        if isinstance(change, Removal)
        else {
            "what": "addition",
            "site": change.site,
            "strength": change.strength,
            "norm": float(change.vector.norm()),
            "vector": tensors_digest({"vector": change.vector}),
        }
        for change in changes
    ]
    record = {
        "format": FORMAT,
        "model": {"name": name, "fingerprint": source.fingerprint},
        "form": result.form,
        "architecture": result.architecture,
        "dtype": result.dtype,
        "interventions": baked,
        "logits": {"difference": result.difference, "bound": result.bound},
        "versions": {package: version(package) for package in ("interp-transfer", "torch", "transformers")},
    }
    write_json(folder / RECORD, with_digest(record))
    lines = [
        f"- {each['what']}" + (f" at `{each['site']}`, x {each['strength']:g}" if "site" in each else "") for each in baked
    ]
    needs = "; it needs its base and peft" if result.form == "adapter" else ""
    (folder / "README.md").write_text(
        f"# {markdown(name)}, steered\n\nA model with interventions in its weights, at every token:\n\n"
        + "\n".join(lines)
        + f"\n\nIt loads with `AutoModelForCausalLM.from_pretrained`{needs}. Its logits differ from those of the model under "
        f"the same interventions by at most {result.difference:.1g} of their size. `{RECORD}` has the details.\n",
        encoding="utf-8",
    )
