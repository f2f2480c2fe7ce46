"""Feature cards against the same figures worked out plainly, over all tokens at once."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from interp_transfer.activations.capture import capture
from interp_transfer.features import cards as module
from interp_transfer.features.cards import feature_cards, shown_texts, with_completions
from interp_transfer.features.sae import Sae
from interp_transfer.features.train import Recipe, train_sae
from interp_transfer.interventions.generation import generate
from interp_transfer.interventions.intervention import add
from interp_transfer.models.tokens import token_text, tokenizer_of
from interp_transfer.models.unembedding import direct_logits

SITE = "blocks.3.hook_resid_pre"


@pytest.fixture(scope="module")
def model(models: Any) -> Any:
    return models[0]


@pytest.fixture(scope="module")
def texts(cats: Any) -> list[str]:
    return cats.texts("train")[:160]


@pytest.fixture(scope="module")
def sae(model: Any, texts: list[str]) -> Sae:
    return train_sae(capture(model, texts, SITE), SITE, Recipe(epochs=1, expansion=16, batch_size=128), progress=False)


@pytest.fixture(scope="module")
def cards(sae: Sae, model: Any, texts: list[str]) -> list[module.FeatureCard]:
    return feature_cards(sae, model, texts, progress=False)


def read(sae: Sae, model: Any, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    acts = capture(model, texts, SITE)
    return sae.encode(acts[SITE]), acts.text_index


def peaks(card: module.FeatureCard) -> list[float]:
    """The highest activation in each text that a card shows."""
    return [example.activations[example.peak] for example in card.examples]


def test_figures_are_those_of_all_tokens_at_once(
    cards: list[module.FeatureCard], sae: Sae, model: Any, texts: list[str]
) -> None:
    features, _ = read(sae, model, texts)
    assert [card.index for card in cards] == list(range(sae.n_features))
    fires = features > 0
    size = torch.where(fires, features, 0.0).sum(dim=0) / fires.sum(dim=0).clamp(min=1)
    torch.testing.assert_close(torch.tensor([card.size for card in cards]), size)
    torch.testing.assert_close(torch.tensor([card.density for card in cards]), (features > 0).float().mean(dim=0))
    assert any(card.size for card in cards)
    for card in cards:
        counts, edges = card.histogram
        values = features[:, card.index]
        if not card.size:
            assert (counts, edges) == ((), ())
            continue
        assert len(edges) == len(counts) + 1 <= 21 and counts[-1] > 0 and edges[0] == 0
        assert np.histogram(values[values > 0].double().numpy(), edges)[0].tolist() == list(counts)
        assert edges[-2] <= float(values.max()) <= edges[-1]


def test_examples_are_the_texts_of_the_highest_activations(
    cards: list[module.FeatureCard], sae: Sae, model: Any, texts: list[str]
) -> None:
    features, index = read(sae, model, texts)
    tok = tokenizer_of(model)
    for card in cards:
        highest = torch.stack([features[index == k, card.index].max() for k in range(len(texts))])
        # No text of this task comes twice, but two may tie.
        expected = highest.sort(descending=True).values[: len(card.examples)]
        got = [example.activations[example.peak] for example in card.examples]
        torch.testing.assert_close(torch.tensor(got), expected[: len(got)])
        assert len(card.examples) == min(5, int((highest > 0).sum()))
        assert len({example.text_index for example in card.examples}) == len(card.examples)
        for example in card.examples:
            row = features[index == example.text_index, card.index]
            torch.testing.assert_close(torch.tensor(example.activations), row)
            assert "".join(example.tokens) == tok.decode(tok(texts[example.text_index])["input_ids"])


def test_portions_change_nothing(
    cards: list[module.FeatureCard], sae: Sae, model: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 300)
    chosen = [7, 3, 50, 3]
    also = {3: tuple(range(len(texts)))[::-1]}  # so that the first and the last of each portion are among them
    again = feature_cards(sae, model, texts, chosen, also=also, progress=False)
    assert [card.index for card in again] == [7, 3, 50]
    features, index = read(sae, model, texts)
    for card in again:
        one = cards[card.index]
        assert peaks(card) == pytest.approx(peaks(one), rel=1e-3, abs=1e-4)  # texts that tie may come in another order
        assert sum(card.histogram[0]) == sum(one.histogram[0]) and card.histogram[1] == one.histogram[1]
        assert card.size == pytest.approx(one.size, rel=1e-4) and card.density == pytest.approx(one.density, abs=1e-4)
        assert [e.text_index for e in card.others] == list(also.get(card.index, ()))
        for example in (*card.examples, *card.others):
            row = features[index == example.text_index, card.index]
            torch.testing.assert_close(torch.tensor(example.activations), row, rtol=1e-3, atol=1e-4)


def test_a_text_that_comes_twice_is_shown_once(sae: Sae, model: Any, texts: list[str]) -> None:
    twice = [*texts[:20], *texts[:20]]
    for card, once in zip(
        feature_cards(sae, model, twice, range(40)), feature_cards(sae, model, texts[:20], range(40)), strict=True
    ):
        assert peaks(card) == pytest.approx(peaks(once), rel=1e-3, abs=1e-4)
        assert len({twice[e.text_index] for e in card.examples}) == len(card.examples)
        assert card.density == pytest.approx(once.density, abs=1e-3)


def test_shown_texts_are_what_a_twin_is_asked_for(sae: Sae, model: Any, texts: list[str]) -> None:
    few = feature_cards(sae, model, texts, range(10), examples=2)
    again = feature_cards(sae, model, texts, range(10), examples=1, also=shown_texts(few))
    assert any(card.others for card in again)
    for card, other in zip(few, again, strict=True):
        assert [e.activations for e in other.others] == [e.activations for e in card.examples]


def test_promoted_tokens_are_those_of_the_decoder_row(cards: list[module.FeatureCard], sae: Sae, model: Any) -> None:
    card = max(cards, key=lambda card: card.size)
    tok = tokenizer_of(model)
    logits = direct_logits(model, sae.decoder[card.index][None] * card.size)[0]
    best, worst = int(logits.argmax()), int(logits.argmin())
    assert card.promoted[0] == (token_text(tok, best), pytest.approx(float(logits[best]), rel=1e-3))
    assert card.suppressed[0] == (token_text(tok, worst), pytest.approx(float(logits[worst]), rel=1e-3))
    assert [v for _, v in card.promoted] == sorted((v for _, v in card.promoted), reverse=True) and len(card.promoted) == 8


def test_completions_are_those_of_each_strength_alone(cards: list[module.FeatureCard], sae: Sae, model: Any, cats: Any) -> None:
    prompts = cats.prompts("validation")[:2]
    card = max(cards, key=lambda card: card.density)
    told = with_completions(card, sae, model, prompts, strengths=(200, 0, -2, 0.0), max_new_tokens=8)
    assert list(told.completions) == [-2.0, 0.0, 200.0] and not card.completions
    vector = sae.feature(card.index, size=card.size)
    for strength, said in told.completions.items():
        steer = [add(vector, strength)] if strength else []
        assert said == tuple(zip(prompts, generate(model, prompts, *steer, max_new_tokens=8), strict=True))
    assert told.completions[200.0] != told.completions[0.0]
    with pytest.raises(ValueError, match="never|fires on none"):
        with_completions(replace(card, size=0.0), sae, model, prompts)
    with pytest.raises(ValueError, match="prompts is one string"):
        with_completions(card, sae, model, "one string")
    with pytest.raises(ValueError, match="strengths is empty"):
        with_completions(card, sae, model, prompts, ())


def test_refusals(sae: Sae, model: Any, models: Any, texts: list[str]) -> None:
    few = texts[:2]
    with pytest.raises(ValueError, match="one string was given"):
        feature_cards(sae, model, "text")
    with pytest.raises(ValueError, match="texts is empty"):
        feature_cards(sae, model, [])
    with pytest.raises(ValueError, match="feature 256 of 256"):
        feature_cards(sae, model, few, [256])
    with pytest.raises(ValueError, match="bins=0"):
        feature_cards(sae, model, few, bins=0)
    with pytest.raises(ValueError, match="also names text 2, there are 2"):
        feature_cards(sae, model, few, also={0: (2,)})
    with pytest.raises(ValueError, match="this SAE and the model"):
        feature_cards(sae, models[1], few)
    assert feature_cards(sae, model, few, []) == []
