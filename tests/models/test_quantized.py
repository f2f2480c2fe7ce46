"""Models quantized by bitsandbytes: loaded, captured and steered, and refused where gradients are needed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BitsAndBytesConfig

import interp_transfer as it
from interp_transfer.interventions.patching.activation import attribution_patching
from interp_transfer.models import hooked_model
from interp_transfer.models.hooked_model import huggingface_model, require_gradients
from tests.checkpoints import TEXTS, make_checkpoint

SITE = "blocks.2.hook_resid_pre"


def first_logit(logits: torch.Tensor, _: Any) -> torch.Tensor:
    return logits[:, 0]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning")
def test_bitsandbytes(bits: int, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    wide = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    path = make_checkpoint(tmp_path / "llama", "llama", dtype=torch.bfloat16, **wide)
    four: dict[str, Any] = {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.bfloat16}
    eight: dict[str, Any] = {"load_in_8bit": True}
    config = BitsAndBytesConfig(**(four if bits == 4 else eight))
    model = it.load_model(path, device="cpu", quantization_config=config)
    assert {p.dtype for p in huggingface_model(model).parameters()} == {
        torch.bfloat16,
        torch.uint8 if bits == 4 else torch.int8,
    }
    whole = it.load_model(path, device="cpu")
    ours, theirs = (it.capture(m, TEXTS, [SITE])[SITE].float() for m in (model, whole))
    assert torch.nn.functional.cosine_similarity(ours, theirs).mean() > 0.5  # random weights are hard to quantize
    assert it.identity(model).fingerprint != it.identity(whole).fingerprint
    assert it.identity(it.load_model(model)).fingerprint == it.identity(model).fingerprint
    assert len(it.generate(model, TEXTS, max_new_tokens=2)) == len(TEXTS)
    with pytest.raises(ValueError, match="attribution patching needs gradients, and this model is quantized"):
        attribution_patching(model, ["a"], ["b"], first_logit, [SITE])


def test_without_bitsandbytes_it_is_named(folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.quantizers.quantizer_bnb_4bit.is_accelerate_available", lambda *_: False)
    with pytest.raises(ValueError, match="cannot load the model in") as error:
        it.load_model(str(folder("llama")), quantization_config=BitsAndBytesConfig(load_in_4bit=True))
    assert "\n" not in str(error.value)


def test_what_needs_gradients_refuses_quantized_models(
    wrapped: Callable[[str], Any], folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp_transfer.finetuning import tuning
    from interp_transfer.mapping.kl_loss import KLLoss
    from interp_transfer.search.first_order import first_order

    model = wrapped("qwen2")
    require_gradients(model, "this")
    monkeypatch.setattr(hooked_model, "is_quantized", lambda _: True)
    unused: Any = dict
    task = it.Task.from_pairs([("a", "b")] * 9, lambda _, __: True)
    for call, what in (
        (lambda: attribution_patching(model, ["a"], ["b"], first_logit, [SITE]), "attribution patching"),
        (lambda: first_order(model, task, [SITE]), "the first-order effect"),
        (lambda: KLLoss((model, model), unused, ["a"], torch.tensor([False]), "same tokens"), "the KL loss"),
    ):
        with pytest.raises(ValueError, match=f"{what} needs gradients, and this model is quantized: load it without"):
            call()
    with pytest.raises(ValueError, match="is quantized, and tuning needs gradients: give the checkpoint it was made from"):
        tuning.tune(str(folder("qwen2")), tuning.TrainingData([("a", "b")]), tmp_path / "out")
