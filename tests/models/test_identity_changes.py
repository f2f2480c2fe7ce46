"""Weights that change after a model was loaded make it another model."""

from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
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
