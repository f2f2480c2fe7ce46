"""Where strengths come from: validation prompts alone. And each draw of a condition is judged at its own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.evaluation import evaluator as evaluation
from interp_transfer.evaluation.clean_kl import CleanKL
from interp_transfer.evaluation.evaluator import Evaluator, evaluator
from interp_transfer.evaluation.kept import Kept
from interp_transfer.features.contrast import feature_contrast
from interp_transfer.interventions.follow import follow
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.search.feature_ranking import rank_features
from interp_transfer.search.predictors import find_sites
from interp_transfer.search.sweep import sweep
from interp_transfer.studies import features as features_module
from interp_transfer.studies.options import RunOptions
from interp_transfer.studies.switch import switch
from interp_transfer.studies.switch_result import DIRECT
from interp_transfer.studies.trial import POOLED, Trial
from interp_transfer.vectors.controls import random_vectors
from interp_transfer.vectors.extract import extract
from tests.checkpoints import make_checkpoint
from tests.registered import SITE, make_cats
from tests.studies.conftest import QUICK
from tests.tiny_sae import sae

__all__ = ["sae"]

BUDGET = 0.05
DRAWS = {"native": 1, "moved": 2, "random": 3, "random_in_span": 2, "shuffled": 2}


@pytest.fixture(scope="session")
def cats(pairs_file) -> it.Task:
    """The task of the pairs, with a judge whose verdict changes whenever a completion does, about half of the times."""
    return make_cats(pairs_file, lambda _, completion: sum(map(ord, completion)) % 2 == 0)


def sealed(task: it.Task) -> it.Task:
    """A task that refuses to show anything of its test split."""

    def refuses(of: Callable[[str], Any]) -> Callable[[str], Any]:
        def read(split: str) -> Any:
            if split == "test":
                raise AssertionError("test data were read before strengths were chosen")
            return of(split)

        return read

    return replace(
        task,
        prompts=refuses(task.prompts),
        clean=refuses(task.clean),
        contrast=refuses(task.contrast),
        texts=refuses(task.texts),
    )


@pytest.fixture(scope="module")
def vectors(models: tuple[HookedModel, HookedModel], cats: it.Task) -> dict[str, list[it.SteeringVector]]:
    native = extract(models[1], cats.contrast("train"), SITE)
    drawn = iter(random_vectors(native, sum(DRAWS.values()), seed=1))
    return {name: [next(drawn) for _ in range(n)] for name, n in DRAWS.items()} | {"native": [native]}


def trial_of(model: HookedModel, task: it.Task) -> Trial:
    return Trial(model, task, RunOptions(n=6, budget=BUDGET, directions=3, seeds=2), Kept(), progress=False)


def test_strengths_are_chosen_without_any_test_prompt(models, cats, vectors):
    trial = trial_of(models[1], sealed(cats))
    searches = trial.search(vectors)
    assert {name: len(each) for name, each in searches.items()} == DRAWS
    alone = trial_of(models[1], cats).search({"moved": vectors["moved"]})["moved"]
    assert [s.strength for s in alone] == pytest.approx([s.strength for s in searches["moved"]], rel=1e-3)
    with pytest.raises(AssertionError, match="test data were read"):
        trial.judge(vectors, {name: [1.0] * n for name, n in DRAWS.items()})


def test_at_equal_cost_every_vector_has_the_largest_strength_within_the_budget_and_no_answer_has_a_say(
    models, cats, vectors, monkeypatch
):
    trial = replace(trial_of(models[1], cats), options=RunOptions(n=6, budget=BUDGET, equal_cost=True))
    found = trial.search(vectors)
    for draws in found.values():
        for search in draws:
            [point] = search.curve
            assert search.saturated or 0.94 * BUDGET < point.clean_kl <= BUDGET

    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("answers were read")

    monkeypatch.setattr(evaluation.Evaluator, "completions", read)
    alone = trial.strengths(vectors)
    for name, draws in found.items():
        assert alone[name] == pytest.approx([search.strength for search in draws], rel=1e-6)


def test_sites_and_settings_are_chosen_without_any_test_prompt(models, cats):
    task = sealed(cats)
    where: dict[str, Any] = {"source_sites": [SITE], "target_sites": [SITE, "blocks.3.hook_resid_pre"]}
    assert len(sweep(models[1], task, sites=SITE, positions=["all"], n=6, progress=False).points) == 5
    assert find_sites(models[0], models[1], task, few=1, n=6, progress=False, **where).tried


def test_features_are_ranked_without_any_test_prompt(models, cats, sae):  # noqa: F811
    validation = evaluator(models[0], cats, "validation", n=6, clean_prompts=6)
    nothing = replace(validation, prompts=(), clean_kl=CleanKL((), ()))
    trial = features_module._Trial(validation, nothing, (1.0,), BUDGET, 0, False)
    seen = feature_contrast(sae, models[0], cats.contrast("train"))
    chosen = rank_features(sae, models[0], cats, seen=seen)["feature"].head(2).tolist()
    ranked = trial.rank(sae, seen, chosen)
    assert set(ranked["feature"]) == set(chosen) and (ranked["n"] == 6).all()


def test_sites_of_a_switch_are_chosen_on_validation_prompts(models, cats, tmp_path):
    host, donor = models[0], it.load_model(str(make_checkpoint(tmp_path / "donor", "llama", 3)), device="cpu")
    sites = ["blocks.2.hook_resid_pre", "blocks.3.hook_resid_pre"]
    result = switch(host, donor, cats, sites=sites, share=0.05, n=4, validation=4, progress=False)
    validation = evaluator(host, cats, "validation", n=4)
    for site, way, judged in result.layers:
        if way == DIRECT:
            assert judged.completions == validation.judge((follow(donor, site, site),), progress=False).completions


def test_a_run_turns_to_test_prompts_once_all_strengths_are_chosen(models, cats, monkeypatch):
    splits = {prompt: split for split in ("validation", "test") for prompt in cats.prompts(split)}
    real, seen = Evaluator.completions, []

    def spy(self: Evaluator, settings: Any, progress: bool = True) -> list[list[str]]:
        seen.append({splits[prompt] for prompt in self.prompts})
        return real(self, settings, progress)

    monkeypatch.setattr(evaluation.Evaluator, "completions", spy)
    it.run(cats, *models, source_site=SITE, target_site=SITE, **{**QUICK, "n": 2, "seeds": 1})
    first = seen.index({"test"})
    assert first > 0 and seen == [{"validation"}] * first + [{"test"}] * (len(seen) - first)


def test_every_draw_is_judged_at_its_own_strength_and_costs_are_over_all_of_them(models, cats, vectors):
    trial = trial_of(models[1], cats)
    strengths = {name: [0.1 * 3.0**k + 0.01 * j for k in range(n)] for j, (name, n) in enumerate(DRAWS.items())}
    judged = trial.judge(vectors, strengths)
    assert list(judged) == list(vectors)
    for name, condition in judged.items():
        draws = condition.draws or (condition,)
        for vector, strength, c in zip(vectors[name], strengths[name], draws, strict=True):
            alone = trial.test.judge((it.add(vector, strength, cats.positions),), progress=False)
            assert c.strength == strength
            assert c.completions == alone.completions
            assert c.kl == pytest.approx(alone.kl, rel=1e-2, abs=1e-6)
        if name in POOLED:
            costs = [c.clean_kl for c in draws]
            assert condition.clean_kl == pytest.approx(sum(costs) / len(costs))
            assert max(costs) > 2 * min(costs), "draws that all cost the same show nothing"
            assert condition.success.n == 6 * DRAWS[name]
    effects = trial.side_effects(vectors, strengths)
    for name in ("native", "moved", "random"):
        own = (judged[name].draws or (judged[name],))[0]
        assert effects[name].clean.kl.value == pytest.approx(own.clean_kl, rel=1e-2)


def test_a_system_prompt_is_a_condition_without_a_vector(models, cats, vectors):
    """It is the unsteered model that reads the instruction, judged on the same prompts."""
    strengths = {name: [1.0] * len(draws) for name, draws in vectors.items()}
    trial = trial_of(models[1], replace(cats, instruction="Say mat."))
    conditions = trial.compare(vectors, strengths)
    asked = [f"Say mat.\n\n{prompt}" for prompt in trial.test.prompts]
    expected = it.generate(models[1], asked, max_new_tokens=cats.max_new_tokens, progress=False)
    assert list(conditions["system_prompt"].completions) == expected != list(conditions["unsteered"].completions)
    assert conditions["system_prompt"].clean_kl == 0.0
    assert "system_prompt" not in trial_of(models[1], cats).compare(vectors, strengths)
