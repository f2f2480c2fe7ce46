"""Weights that change after a model was loaded make it another model."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import interp_transfer as it
from interp_transfer.models.identity import _config_json
from interp_transfer.models.tokens import tokenizer_of
from tests.checkpoints import WIDTH, make_checkpoint

SITE = "blocks.2.hook_resid_pre"


def test_weights_changed_in_place_are_another_model_and_changed_back_the_same(tmp_path: Path) -> None:
    model: Any = it.load_model(make_checkpoint(tmp_path / "m", "llama"), device="cpu")
    before = it.identity(model)
    vector = it.SteeringVector(torch.ones(WIDTH), SITE, before)
    kept = {name: weight.clone() for name, weight in model.original_model.named_parameters()}
    with torch.no_grad():
        for weight in model.original_model.parameters():
            weight.mul_(1.01)
    after = it.identity(model)
    assert after.name == before.name and after.fingerprint != before.fingerprint
    assert it.identity(model) is after, "it is computed once"
    with pytest.raises(ValueError, match="this intervention was made for"):
        it.generate(model, ["a"], it.add(vector, 1.0))
    assert it.capture(model, ["a"], SITE).model == after
    with torch.no_grad():
        for name, weight in model.original_model.named_parameters():
            weight.copy_(kept[name])
    assert it.identity(model) == before


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("phi", {"partial_rotary_factor": 0.5}),  # 5.4 writes what 5.23 has in rope_parameters alone
        ("falcon_h1", {"time_step_min": 0.001}),  # 5.23 does not know it any more
        ("gemma3_text", {"rope_parameters": {"rope_theta": None, "rope_type": "default"}}),  # 5.9 adds these to those by kind
        ("llama", {"mlp_bias": False}),  # a default
    ],
)
def test_defaults_that_a_version_of_transformers_writes_make_no_other_model(kind: str, written: dict[str, Any]) -> None:
    plain, other = (transformers.AutoConfig.for_model(kind) for _ in range(2))
    assert "rope_parameters" not in written or any(isinstance(own, dict) for own in plain.rope_parameters.values())
    for name, value in written.items():
        setattr(other, name, {**plain.rope_parameters, **value} if isinstance(value, dict) else value)
    assert _config_json(plain) == _config_json(other)


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("llama", {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}),
        ("llama", {"rms_norm_eps": 1e-4}),
        ("gpt2", {"scale_attn_weights": False}),
        ("gemma2", {"sliding_window": 17}),
    ],
)
def test_settings_that_change_what_a_model_computes_make_another_model(kind: str, changed: dict[str, Any]) -> None:
    assert _config_json(transformers.AutoConfig.for_model(kind)) != _config_json(
        transformers.AutoConfig.for_model(kind, **changed)
    )


def test_models_of_two_kinds_with_all_defaults_differ() -> None:
    assert _config_json(transformers.LlamaConfig()) != _config_json(transformers.MistralConfig())


def test_a_model_passed_as_an_object_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    model: Any = it.load_model(make_checkpoint(tmp_path / "m", "llama"), device="cpu")
    texts, before, tokenizer = ["the cat sat", "dogs run far", "the dog sat"], it.identity(model), tokenizer_of(model)
    it.collect(model, model, texts[:2], SITE, SITE, store=tmp_path / "store", progress=False)
    assert it.load_model(model) is model
    assert vars(it.identity(model)) == vars(before) and tokenizer_of(model) is tokenizer
    it.collect(model, model, texts, SITE, SITE, store=tmp_path / "store", progress=False)
    with torch.no_grad():
        for weight in model.original_model.parameters():
            weight.mul_(1.01)
    assert it.identity(it.load_model(model)).fingerprint != before.fingerprint


def test_what_loading_adds_to_a_configuration_makes_another_model() -> None:
    plain, other = transformers.LlamaConfig(), transformers.LlamaConfig()
    other.gguf_sha256 = "0a1b"
    assert _config_json(plain) != _config_json(other)


def test_what_transformers_logs_of_default_configurations_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    """The defaults of a class can contradict each other (the end token of Starcoder2 is past its vocabulary)."""
    log, level = transformers.logging.get_logger("transformers.loud"), transformers.logging.get_verbosity()

    class Loud(transformers.LlamaConfig):
        def __init__(self, **changes: Any) -> None:
            log.warning("of the defaults" if not changes else "of the model")
            super().__init__(**changes)

    transformers.logging.set_verbosity_warning()
    try:
        _config_json(Loud(hidden_size=64))
        assert transformers.logging.get_verbosity() == logging.WARNING
    finally:
        transformers.logging.set_verbosity(level)
    assert "of the model" in caplog.text and "of the defaults" not in caplog.text
