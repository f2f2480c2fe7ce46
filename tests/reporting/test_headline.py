from typing import Any

import pytest

from interp_transfer.reporting.headline import headline
from interp_transfer.stats import paired_difference, rate, share_to_dict

N = 200


def result(n: int = N, /, **intact: float) -> dict[str, Any]:
    """Conditions with these shares of intact answers of n prompts; `NAME_success` gives more successes than that."""
    shares = {
        "unsteered": 0.0, "native": 0.95, "moved": 0.93, "random": 0.02, "shuffled": 0.01, "mean_ablated": 0.0,
        "forced_first_token": 0.04, **intact,
    }  # fmt: skip
    conditions = {}
    for name, share in shares.items():
        if not name.endswith("_success"):
            valid, gone = (
                share_to_dict(rate([i < round(x * n) for i in range(n)])) for x in (share, shares.get(f"{name}_success", share))
            )
            conditions[name] = {"strength": 1.0, "success": gone, "intact": valid, "clean_kl": 0.05}
    return {"source": {"name": "A"}, "target": {"name": "B"}, "conditions": conditions}


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ({}, "A vector found on A works on B about as well as the one found there."),
        ({"moved": 0.6}, "A vector found on A works on B less well than the one found there."),
        ({"moved": 0.93, "moved_success": 0.93, "native": 0.99}, "less well than"),  # success below 0.95 of native's
        ({"native": 0.6, "moved": 0.9}, "works on B better than the one found there."),
        ({"moved": 0.0}, "A vector found on A does not work on B: it does no better than no steering at all."),
        ({"moved": 0.05}, "does not work on B: it does no better than a random vector at the same cost."),
        ({"native": 0.01}, "although the vector found on B itself does not work there."),
        ({"native": 0.01, "moved": 0.0}, "No verdict on the move: the vector found on B itself does not work there."),
        ({"native": 0.0, "native_success": 0.9, "moved": 0.0}, "itself gets its effect there only by breaking the answers."),
        ({"unsteered": 0.93}, "No verdict: B gives the wanted answers without any steering"),
        ({"random": 0.8}, "This run says little: a random vector at the same cost does about as well as the native"),
        ({"random": 0.8, "moved": 0.0}, "as well as the native vector (the moved vector does not work)."),
        ({"mean_ablated": 0.9}, "says little: replacing the site's activation by its mean does about as well"),
        ({"forced_first_token": 0.85}, "says little: giving the first token of the right answer, without steering, does"),
        ({"shuffled": 0.9}, "works on B, but so does one moved by a mapper that was fitted on pairs shuffled across texts"),
    ],
)
def test_every_outcome_is_said(shares: dict[str, float], says: str) -> None:
    assert says in headline(result(**shares))


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        # A model that does the wanted thing half of the time anyway.
        ({"random": 0.78}, "A vector found on A works on B about as well as the one found there."),
        ({"random": 0.86}, "This run says little: a random vector at the same cost does about as well as the native"),
        ({"random": 0.72, "moved": 0.74}, "does not work on B: it does no better than a random vector at the same cost."),
        ({"shuffled": 0.78}, "A vector found on A works on B about as well as the one found there."),
        ({"shuffled": 0.84}, "works on B, but so does one moved by a mapper that was fitted on pairs shuffled across texts"),
        ({"moved": 0.88}, "A vector found on A works on B less well than the one found there."),
        ({"shuffled_within_text": 0.85}, "it is enough to know which texts belong together"),
        ({"moved": 0.5}, "does not work on B: it does no better than no steering at all."),
    ],
)
def test_what_the_unsteered_model_does_too_is_no_merit(shares: dict[str, float], says: str) -> None:
    said = headline(result(**{"unsteered": 0.55, "native": 0.92, "moved": 0.91, "random": 0.6, "shuffled": 0.5} | shares))
    assert says in said
    assert ("it is enough" in said) is ("shuffled_within_text" in shares)


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        (
            {"native": 0.5, "moved": 0.5, "unsteered": 0.125},
            "16 prompts do not tell the native vector (50%, 24.7% to 75.3%) from no",
        ),
        (
            {"native": 1.0, "moved": 0.5, "unsteered": 0.125},
            "do not tell the moved vector (50%, 24.7% to 75.3%) from no steering",
        ),
        (
            {"native": 0.8, "moved": 1.0, "random": 0.4},
            "the native vector (81.2%, 54.4% to 96%) from a random vector at the same cost",
        ),
        ({"native": 0.8, "moved": 1.0, "random": 0.4}, "15.2% to 64.6%); take more prompts or directions."),
        (
            {"native": 1.0, "moved": 0.8, "shuffled": 0.4},
            "works on B less well than the one found there, but 16 prompts do not tell it",
        ),
    ],
)
def test_what_few_prompts_do_not_decide_is_said(shares: dict[str, float], says: str) -> None:
    said = headline(result(16, **shares))
    assert says in said
    assert said.startswith("Cannot tell whether a vector found on A works on B: ") or "shuffled" in shares


def test_more_prompts_decide() -> None:
    assert "Cannot tell" in headline(result(16, native=0.8, moved=0.8, random=0.4))
    assert headline(result(200, native=0.8, moved=0.8, random=0.4)).startswith(
        "A vector found on A works on B about as well as"
    )


def test_numbers_n_intervals_and_baselines_are_there() -> None:
    said = headline(result(random_success=0.35))
    for part in ("On 200 held-out prompts", "93% (95% interval 88.5% to 96.1%)", "0% without steering", "random 35%", "0.05"):
        assert part in said


@pytest.mark.parametrize(
    ("moved", "says"),
    [
        ([True] * 480 + [False] * 20, "as good as the native one, to within 5 points"),
        ([True] * 300 + [False] * 200, "further apart than 5 points"),
        ([True] * 465 + [False] * 35, "not shown to be as good to within 5 points, nor to be worse"),
    ],
)
def test_as_good_as_native_has_to_be_shown(moved: list[bool], says: str) -> None:
    native = [True] * 485 + [False] * 15
    differences = {name: paired_difference(moved, native).to_dict() for name in ("success", "intact")}
    said = headline({**result(), "moved_against_native": differences})
    assert says in said
    assert "Moved less native, prompt by prompt: success \u2212" in said


@pytest.mark.parametrize(("after", "said"), [(0.91, False), (0.89, True), (0.4, True)])
def test_an_ability_that_the_moved_vector_costs_is_said(after: float, said: bool) -> None:
    def effects(refuses: float) -> dict[str, Any]:
        fine, less = (share_to_dict(rate([i < 100 * share for i in range(100)])) for share in (0.95, refuses))
        return {"clean_valid": fine, "skills": {"refuses harmful": less, "juggles": fine}}

    given = result() | {"side_effects": {"unsteered": effects(1.0), "moved": effects(after), "native": effects(0.97)}}
    sentence = f"harmful requests refused 100% without it, {100 * after:.0f}% with it, native 97% (n = 100)."
    assert (f"But the moved vector costs other abilities: {sentence}" in headline(given)) is said
    assert ("other abilities" in headline(given)) is said
    del given["side_effects"]["unsteered"]
    assert "other abilities" not in headline(given)


def test_pairs_shuffled_within_texts_do_not_refute_but_are_reported() -> None:
    given = result(shuffled_within_text=0.9)
    assert "works on B about as well as the one found there" in headline(given)
    assert "fitted on pairs shuffled within each text does about as well" in headline(given)
    assert "does about as well" not in headline(result(shuffled_within_text=0.1))
    assert "does about as well" not in headline(result(shuffled_within_text=0.0, moved=0.0))


def test_seeds_of_the_mapper_are_reported() -> None:
    given = result()
    draws = [{"strength": 1.0, "success": x, "intact": x, "clean_kl": 0.01} for x in (0.93, 0.71, 0.95)]
    given["conditions"]["moved"]["draws"] = draws
    assert "Over 3 seeds of the mapper the share is 71% to 95%." in headline(given)
    assert "seeds" not in headline(result())


def test_a_result_without_a_moved_vector_is_only_described() -> None:
    given = result()
    del given["conditions"]["moved"]
    assert headline(given).startswith("6 conditions compared on B. Prompts on which each")


def test_missing_controls_are_not_invented() -> None:
    given = result()
    for name in ("random", "shuffled", "mean_ablated", "forced_first_token"):
        del given["conditions"][name]
    assert "Baselines: 0% without steering." in headline(given)
