"""NaN and infinity are refused where they arise, and no completion is made of them."""

from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.judges.rules import OneByOne, SubstringJudge, Verdict
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.models.tokens import tokenize
from tests.checkpoints import WIDTH, byte_tokenizer, make_checkpoint, raw_model

SITE = "blocks.2.hook_resid_pre"
PROMPTS = ["the cat sat on", "a dog"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "m", "llama")


@pytest.fixture
def model(checkpoint: Path) -> Any:
    return it.load_model(checkpoint, device="cpu")


def vector(model: Any, value: float = 1.0) -> it.SteeringVector:
    return it.SteeringVector(torch.full((WIDTH,), value), SITE, it.identity(model))


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), torch.tensor([1.0, float("nan")])])
def test_a_transform_that_gives_no_numbers_names_site_text_and_token(model: Any, strength: Any) -> None:
    text = 1 if isinstance(strength, torch.Tensor) else 0
    with pytest.raises(ValueError, match=f"'{SITE}' gives NaN or infinity at text {text}, token 0: check the vector"):
        it.generate(model, PROMPTS, it.add(vector(model), strength))


def test_an_activation_without_numbers_is_no_fault_of_the_vector(model: Any) -> None:
    with torch.no_grad():
        model.original_model.model.embed_tokens.weight[tokenize(model, ["a dog"])[0][0]] = torch.inf
    with pytest.raises(ValueError, match=r"activation at .* is NaN or infinite at text 1, token 0: load .*float32"):
        it.generate(model, PROMPTS, it.add(vector(model), 1.0))


def test_logits_without_numbers_make_no_completion(model: Any) -> None:
    with torch.no_grad():
        model.original_model.model.embed_tokens.weight[tokenize(model, ["a dog"])[0][0]] = torch.nan
    assert it.generate(model, PROMPTS[:1], max_new_tokens=3)
    for prompts in (PROMPTS, PROMPTS * 3):
        with pytest.raises(ValueError, match="logits are NaN or infinite at prompt 1: load it with dtype='float32'"):
            it.generate(model, prompts, max_new_tokens=3)


def test_divergences_without_numbers_name_text_and_setting(model: Any) -> None:
    rows = tokenize(model, PROMPTS)
    with torch.no_grad():
        model.original_model.model.embed_tokens.weight[rows[1][0]] = torch.nan
    plain = it.Intervention(SITE, lambda rows: rows.nan_to_num(0.0))
    with pytest.raises(ValueError, match="predictions for text 1 are NaN or infinite under setting 0"):
        teacher_forced_each(model, rows, [[5, 6], [7, 8]], [(plain,)])


def test_a_model_that_overflows_in_its_dtype_is_refused_at_load(checkpoint: Path) -> None:
    hf = raw_model(checkpoint).half()
    with torch.no_grad():
        for weight in hf.parameters():
            weight.mul_(300)
    with pytest.raises(ValueError, match="computes NaN or infinity in float16: load it with dtype='float32' or 'bfloat16'"):
        it.load_model(hf, tokenizer=byte_tokenizer())


def test_an_empty_completion_is_no_success_unless_a_judge_says_so() -> None:
    assert not SubstringJudge(("dog",))(["p"], [" \n"])[0].success
    for judge in (lambda p, c: "dog" not in c, lambda p, c: ("dog" not in c, True)):  # noqa: ARG005 - a judge takes both
        one = OneByOne(judge, "task")
        assert [v.success for v in one(["p", "p"], ["", "cat"])] == [False, True]
    said = OneByOne(lambda p, c: Verdict(not c, not c, "silent"), "task")  # noqa: ARG005 - a judge takes both
    assert said(["p"], [""])[0].success
