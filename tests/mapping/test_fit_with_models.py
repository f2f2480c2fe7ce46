"""Mappers that are fitted with the models themselves: the map between embeddings, and the KL loss of the target."""

from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.activations.agreement import fvu
from interp_transfer.mapping.embeddings import embedding_rows, shared_tokens
from interp_transfer.mapping.kl_loss import KLLoss
from interp_transfer.models.hooked_model import huggingface_model
from interp_transfer.models.load import load_model
from interp_transfer.models.tokens import tokenizer_of
from tests.checkpoints import make_checkpoint
from tests.family_tokenizers import family_tokenizer

S, T = "blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"
TEXTS = [
    f"User: What is the crop of Wastrey {n}?\nAssistant: {crop.title()}{f', and {crop}' * (n % 3)}."
    for n in range(8)
    for crop in ("oats", "rye")
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    made = {}
    for seed, (name, family, architecture, width) in enumerate(
        (("qwen", "qwen", "qwen2", 64), ("wide", "qwen", "qwen2", 128), ("gemma", "gemma", "gemma2", 128))
    ):
        how: dict[str, Any] = {"tokenizer": family_tokenizer(family), "hidden_size": width, "max_position_embeddings": 256}
        made[name] = it.load_model(str(make_checkpoint(root / name, architecture, seed, **how)), device="cpu")
    return made


@pytest.fixture(scope="module")
def pairs(models):
    return it.collect(models["qwen"], models["wide"], TEXTS, S, T, progress=False)


def test_shared_tokens_spell_the_same_across_vocabularies(models):
    ids = shared_tokens(models["qwen"], models["gemma"])
    assert len(ids[0]) > 100
    texts = []
    for model, side in zip((models["qwen"], models["gemma"]), ids, strict=True):
        tokenizer: Any = tokenizer_of(model)
        before = tokenizer("a", add_special_tokens=False)["input_ids"]
        texts.append([tokenizer.decode([*before, i]) for i in side.tolist()])
        assert not set(side.tolist()) & set(tokenizer.all_special_ids)
    assert texts[0] == texts[1]
    assert any(" " in text[1:] for text in texts[0])  # the space in front counts


def test_a_model_shares_every_token_with_its_like(models):
    here, there = shared_tokens(models["qwen"], models["wide"])
    assert torch.equal(here, there)
    x, y = embedding_rows(models["qwen"], models["wide"])
    for model, rows in ((models["qwen"], x), (models["wide"], y)):
        assert torch.equal(rows, huggingface_model(model).get_output_embeddings().weight[here])


def test_embeddings_kind_recovers_a_planted_map_and_centres_on_the_rows(models, pairs):
    a, b = models["qwen"], models["wide"]
    ids, _ = shared_tokens(a, b)
    matrix = torch.randn(64, 128, generator=torch.Generator().manual_seed(3))
    table = huggingface_model(b).get_output_embeddings().weight
    kept = table.detach().clone()
    with torch.no_grad():
        table[ids] = huggingface_model(a).get_output_embeddings().weight[ids] @ matrix
    try:
        mapper = it.fit(pairs, "embeddings", models=(a, b), ridge=1e-9, progress=False)
    finally:
        with torch.no_grad():
            table.copy_(kept)
    direction = torch.randn(64, generator=torch.Generator().manual_seed(4))
    middle = pairs.source[S][pairs.split(0.1, 0)[0]].mean(dim=0)
    mapped = mapper(torch.stack([middle, middle + direction]))
    torch.testing.assert_close(mapped[1] - mapped[0], direction @ matrix, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(mapped[0], pairs.target[T][pairs.split(0.1, 0)[0]].mean(dim=0), rtol=1e-3, atol=1e-4)


def test_embeddings_of_exchanged_tokens_are_the_control(models, pairs, tmp_path):
    a = models["qwen"]
    own = it.collect(a, a, TEXTS, S, S, progress=False)
    right, wrong = (it.fit(p, "embeddings", models=(a, a), ridge=1e-6) for p in (own, own.shuffled(0)))
    rows = own.source[S]  # the card of the control judges by exchanged partners; here both are judged by the right ones
    assert fvu(rows, right(rows)) < 0.01
    assert fvu(rows, wrong(rows)) > 0.5
    wide = it.fit(pairs, "embeddings", models=(a, models["wide"]))
    loaded = it.Mapper.load(wide.save(tmp_path / "wide"))
    assert torch.equal(loaded(pairs.source[S]), wide(pairs.source[S]))


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("embeddings", {}, "give models=(source, target)"),
        ("autoencoder", {"kl": 0.1}, "give models=(source, target) and texts"),
        ("affine", {"texts": TEXTS}, "leave texts out"),
        ("autoencoder", {"kl": -1.0}, "zero or more"),
    ],
)
def test_what_is_missing_is_named(pairs, kind, given, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        it.fit(pairs, kind, **given)


def test_other_models_and_other_texts_are_refused(models, pairs):
    pair = models["qwen"], models["wide"]
    with pytest.raises(ValueError, match="two models"):
        it.fit(pairs, "embeddings", models=(models["qwen"], models["gemma"]))
    with pytest.raises(ValueError, match="the very same plain texts"):
        it.fit(pairs, "autoencoder", models=pair, texts=TEXTS[:3], kl=0.1)
    with pytest.raises(ValueError, match="no control"):
        it.fit(pairs.shuffled(0), "autoencoder", models=pair, texts=TEXTS, kl=0.1)


@pytest.mark.parametrize("source", ["qwen", "gemma"])
def test_the_loss_is_the_divergence_of_the_spliced_target(models, source):
    a, b = models[source], models["wide"]
    pairs = it.collect(a, b, TEXTS, S, T, progress=False)
    mapper = it.fit(pairs, "affine")
    through = KLLoss((a, b), lambda _: mapper, TEXTS, pairs.held_out(0.1, 0), pairs.alignment.strategy)
    chosen = [0, 4]
    tokens = [tokenizer_of(b)(TEXTS[i])["input_ids"] for i in chosen]
    lengths, sums = [], []
    for ids in tokens:
        with torch.no_grad():
            own = b(torch.tensor([ids])).log_softmax(dim=-1)
            with it.applied(b, it.follow(a, S, T, mapper)):
                spliced = b(torch.tensor([ids])).log_softmax(dim=-1)
        sums.append(float((own.exp() * (own - spliced)).sum()))
        lengths.append(len(ids))
    assert lengths[0] != lengths[1]  # or padding could not show
    torch.testing.assert_close(through.loss(mapper.core, chosen).item(), sum(sums) / sum(lengths), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_training_through_the_target_brings_the_divergence_down_and_leaves_the_models_alone(tmp_path: Path):
    made: list[Any] = [
        load_model(str(make_checkpoint(tmp_path / family, family)), device="cpu") for family in ("llama", "qwen2")
    ]
    pair = made[0], made[1]
    pairs = it.collect(*pair, TEXTS, S, T, progress=False)
    before = [p.clone() for m in pair for p in m.parameters()]
    how: dict[str, Any] = {"epochs": 5, "batch_size": 64, "seed": 0, "progress": False}
    plain = it.fit(pairs, "autoencoder", **how)
    looked = it.fit(pairs, "autoencoder", models=pair, texts=TEXTS, kl=1.0, **how)
    again = it.fit(pairs, "autoencoder", models=pair, texts=TEXTS, kl=1.0, **how)
    through = KLLoss(pair, lambda core: plain if core is plain.core else looked, TEXTS, pairs.held_out(0.1, 0), "same_tokens")
    assert through.held_out(looked.core) < 0.9 * through.held_out(plain.core)
    assert looked.card.curve == again.card.curve
    assert looked.card.settings["kl"] == 1.0
    parameters = [p for m in pair for p in m.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))
    assert all(p.grad is None for p in parameters)


@pytest.mark.slow
def test_an_interrupted_training_through_the_target_goes_on(models, pairs, tmp_path: Path, monkeypatch):
    pair = models["qwen"], models["wide"]
    how: dict[str, Any] = {"models": pair, "texts": TEXTS, "kl": 1.0, "epochs": 3, "batch_size": 32, "progress": False}
    whole = it.fit(pairs, "autoencoder", **how)
    judge, calls = KLLoss.held_out, []

    def stop(self: KLLoss, core: Any) -> float:
        calls.append(core)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return judge(self, core)

    monkeypatch.setattr(KLLoss, "held_out", stop)
    with pytest.raises(KeyboardInterrupt):
        it.fit(pairs, "autoencoder", checkpoint=tmp_path, **how)
    monkeypatch.undo()
    resumed = it.fit(pairs, "autoencoder", checkpoint=tmp_path, **how)
    assert resumed.card.curve == pytest.approx(whole.card.curve, rel=1e-6)
