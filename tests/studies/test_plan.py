"""What a run will take: the work that is counted is the work that is done, and only large models are planned."""

from dataclasses import replace
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.evaluation.evaluator import Evaluator
from interp_transfer.evaluation.kept import Kept
from interp_transfer.evaluation.speed import ANSWERED, COSTED, SETTINGS, Speed, duration
from interp_transfer.models.tokens import tokenize
from interp_transfer.studies import plan as module
from interp_transfer.studies.options import DEFAULT_N, QUICK, RunOptions
from interp_transfer.studies.plan import Plan, Step, plan_comparison, plan_features, plan_run, plan_sweep, vectors_of
from interp_transfer.studies.sweep import sweep_study
from interp_transfer.studies.trial import Trial
from tests.registered import SITE
from tests.studies import conftest

GIVEN = {"source": SITE, "target": SITE}
OPTIONS = {**conftest.QUICK, "n": 6, "seeds": 2, "directions": 3, "variants": True}


@pytest.fixture(scope="module")
def done(models, cats):
    """The number of completions by stage of a real run: of the search, and of everything after it."""
    made: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        real = Evaluator.completions

        def counted(self: Any, settings: Any, progress: bool = True) -> Any:
            made.append(len(settings) * len(self.prompts))
            return real(self, settings, progress)

        patch.setattr(Evaluator, "completions", counted)
        result = it.run(cats, *models, **OPTIONS, source_site=SITE, target_site=SITE)
    return made, result


@pytest.fixture(scope="module")
def planned(models, cats) -> Plan:
    how = RunOptions.from_dict({k: v for k, v in OPTIONS.items() if k != "progress"})
    return plan_run(cats, models, how, GIVEN)


def test_the_plan_counts_what_a_run_does(planned, done):
    made, result = done
    amounts = {step.name: step.amount for step in planned.steps}
    assert list(amounts) == ["vectors", "pairs", "mappers", "strengths", "held-out prompts", "other modes and mappers"]
    searched = made[0]
    assert amounts["strengths"].startswith(f"{searched} completions of 6 validation prompts for ")
    variants = sum(made[-2:])
    held_out = sum(made[1:-2]) + 6  # and the prompts whose first token is forced
    assert amounts["held-out prompts"] == f"{held_out} completions of 6 prompts"
    assert variants == 7 * (5 * 6 + 6) and amounts["other modes and mappers"] == "7 vectors"
    assert amounts["pairs"] == f"{result.details['texts']['tokens']} tokens read by both models"
    draws = {name: max(1, len(c.draws)) for name, c in result.conditions.items() if c.strength}
    assert draws == vectors_of(RunOptions(**{k: v for k, v in OPTIONS.items() if k != "progress"}))


def test_what_a_run_leaves_out_is_not_planned(planned, models, cats):
    how = RunOptions.from_dict({k: v for k, v in OPTIONS.items() if k not in ("progress", "mapper")} | {"mapper": "procrustes"})
    amounts = {step.name: step.amount for step in plan_run(replace(cats, answers=None), models, how, GIVEN).steps}
    assert amounts["other modes and mappers"] == "11 vectors", "the run's own mapper is one of three"
    before = next(step.amount for step in planned.steps if step.name == "held-out prompts")
    assert int(amounts["held-out prompts"].split()[0]) == int(before.split()[0]) - 6, "no first token is forced"


def test_side_effects_are_planned_where_they_are_measured(models, cats):
    how = RunOptions(n=6, directions=1, seeds=1, mapper="affine", variants=False)
    step = next(step for step in plan_run(cats, models, how, GIVEN).steps if step.name == "side effects")
    assert step.seconds > 0 and step.amount.endswith("texts read")


def test_features_are_planned(models, cats):
    sizes = {"candidates": 2, "n": 5, "n_validation": 3}
    one = plan_features([cats], models, [], **sizes)
    assert [step.name for step in one.steps] == ["pairs", "features", "held-out prompts"]
    both = plan_features([cats, cats], models, [models[0]], **sizes)
    assert [step.name for step in both.steps][1].startswith("SAE of ")
    assert all(step.seconds > 0 for step in both.steps)
    completions = [int(plan.steps[-1].amount.split()[0]) for plan in (one, both)]
    assert completions[1] == 2 * completions[0]


@pytest.mark.parametrize("count", [4, 60])
def test_a_comparison_is_planned(models, count):
    [step] = plan_comparison(models, [f"the cat {k} sat" for k in range(count)]).steps
    assert step.seconds > 0 and step.amount == f"{count} prompts, 4 x 4 blocks"


def test_every_stage_has_a_time_and_the_sum_is_theirs(planned):
    assert all(step.seconds > 0 for step in planned.steps)
    assert planned.seconds == pytest.approx(sum(step.seconds for step in planned.steps))
    assert str(planned).splitlines()[-1] == f"About {duration(planned.seconds)} on this machine"


def test_sites_are_planned_where_they_are_searched(models, cats):
    plain = RunOptions(n=2, directions=1, seeds=1, mapper="affine", variants=False)
    for sites, expected in ((GIVEN, []), ({"source": None, "target": "auto"}, ["site of the source", "site of the target"])):
        names = [step.name for step in plan_run(cats, models, plain, sites).steps]
        assert [name for name in names if name.startswith("site")] == expected


def test_texts_that_the_target_answers_are_counted(models, cats):
    how = RunOptions(n=2, directions=1, seeds=1, mapper="affine", texts="generated")
    [pairs] = [step for step in plan_run(cats, models, how, GIVEN).steps if step.name == "pairs"]
    assert "of the texts answered by the target" in pairs.amount


def test_a_system_prompt_is_planned_as_one_more_condition(models, cats):
    how = RunOptions(n=6, directions=1, seeds=1, mapper="affine", variants=False)
    counts = []
    for task in (cats, replace(cats, instruction="Say mat.")):
        [held_out] = [step for step in plan_run(task, models, how, GIVEN).steps if step.name == "held-out prompts"]
        counts.append(int(held_out.amount.split()[0]))
    assert counts[1] - counts[0] == 6


def test_the_plan_of_a_sweep_counts_what_it_does(models, cats, monkeypatch, capsys):
    made: list[int] = []
    real = Evaluator.completions

    def counted(self: Any, settings: Any, progress: bool = True) -> Any:
        made.append(len(settings) * len(self.prompts))
        return real(self, settings, progress)

    options: dict[str, Any] = {"sites": [SITE, "blocks.3.hook_resid_pre"], "positions": ["all", "last"], "n": 4}
    planned = plan_sweep(cats, models[1], **options)
    assert [step.name for step in planned.steps] == ["strengths", "settings"] and planned.seconds > 0
    assert [step.name for step in plan_sweep(cats, models[1], **options, strengths=[1.0]).steps] == ["settings"]
    monkeypatch.setattr(Evaluator, "completions", counted)
    monkeypatch.setattr(module, "LARGE", 1000)
    sweep_study(cats, models[1], **options)
    assert planned.steps[1].amount == f"{sum(made)} completions"
    assert "Planned: sweep of cats, " in capsys.readouterr().err
    sweep_study(cats, models[1], **options, progress=False)
    assert "Planned" not in capsys.readouterr().err


def test_a_run_of_large_models_says_what_it_plans(models, cats, monkeypatch, capsys):
    options: dict[str, Any] = {**conftest.QUICK, "source_site": SITE, "target_site": SITE, "n": 2, "directions": 1, "seeds": 1}
    it.run(cats, *models, **{**options, "progress": True})
    assert "Planned" not in capsys.readouterr().err
    monkeypatch.setattr(module, "LARGE", 1000)
    it.run(cats, *models, **{**options, "progress": True})
    error = capsys.readouterr().err
    assert "Planned: cats" in error and " on this machine" in error
    it.run(cats, *models, **options)
    assert "Planned" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.2, "4 s"), (89.0, "89 s"), (150.0, "2 min"), (5399.0, "90 min"), (7200.0, "2.0 h")]
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert duration(seconds) == text
    assert text in str(Plan("a to b", (Step("strengths", "many", seconds),)))


def test_quick_is_less_of_everything_and_keeps_what_was_asked_for():
    plain = RunOptions.from_dict({"quick": True})
    assert {name: getattr(plain, name) for name in QUICK} == QUICK
    asked = RunOptions.from_dict({"quick": True, "n": 24, "mapper": "affine", "seeds": 2})
    assert (asked.n, asked.seeds, asked.directions, asked.mapper) == (24, 2, QUICK["directions"], "affine")
    assert RunOptions.from_dict({"quick": True, "n": DEFAULT_N}).n == DEFAULT_N, "also what is the default otherwise"
    assert RunOptions.from_dict(plain.to_dict()) == plain
    assert RunOptions.from_dict({}).n == 200


def test_seconds_are_those_of_one_completion_one_cost_and_one_token(models, cats, monkeypatch):
    done: list[Any] = []
    real = Speed._read
    monkeypatch.setattr("interp_transfer.evaluation.speed.timed", lambda work: (done.append("timed"), work(), 12.0)[2])
    monkeypatch.setattr(Speed, "_read", lambda self, prompts: (done.append(len(prompts)), real(self, prompts))[1])
    one = Speed(models[1], cats)
    assert one.completion == 12.0 / (ANSWERED * SETTINGS)
    assert done == [1, "timed"], "the first pass is not timed"
    assert one.cost == 12.0 / (COSTED * SETTINGS)
    assert one.token == 12.0 / sum(map(len, tokenize(models[1], one._prompts)))
    assert done == [1, "timed", "timed", "timed", ANSWERED], "each is timed once"


def test_strengths_are_chosen_on_as_many_prompts_as_was_asked_for(models, cats):
    how = RunOptions(n=6, n_validation=2, directions=1, seeds=1, mapper="affine", variants=False, side_effects=False)
    [strengths] = [step for step in plan_run(cats, models, how, GIVEN).steps if step.name == "strengths"]
    assert " completions of 2 validation prompts for " in strengths.amount
    trial = Trial(models[1], cats, how, Kept())
    assert (len(trial.validation.prompts), len(trial.validation.clean_kl.prompts), len(trial.test.prompts)) == (2, 2, 6)


def test_where_a_vector_is_read_is_the_tasks_or_the_runs(models, cats):
    options: dict[str, Any] = {**conftest.QUICK, "source_site": SITE, "target_site": SITE, "n": 2, "directions": 1, "seeds": 1}

    def norm(task: it.Task, **more: Any) -> float:
        return it.run(task, *models, **options, **more).details["vector"]["norm"]

    pairs = cats.contrast("train")
    expected = {read: it.extract(models[0], pairs, SITE, read).norm for read in ("last", "all", -2)}
    assert norm(cats) == pytest.approx(expected["last"], rel=1e-4)
    assert norm(replace(cats, read="all")) == pytest.approx(expected["all"], rel=1e-4) == norm(cats, read="all")
    assert norm(replace(cats, read="all"), read="-2") == pytest.approx(expected[-2], rel=1e-4)
    with pytest.raises(ValueError, match="did you mean 'last'"):
        it.run(cats, *models, **options, read="lst")
