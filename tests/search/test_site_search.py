"""The block to steer at: which blocks are tried, which one is chosen, and that a choice is kept."""

import importlib
import json
from dataclasses import replace

import pytest

import interp_transfer as it
from interp_transfer.evaluation.evaluator import evaluator
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.search import site_search as module
from interp_transfer.search.first_order import NothingToPredict, first_order
from interp_transfer.search.site_search import _apart, find_site
from interp_transfer.search.strengths import search_strength

gradients = importlib.import_module("interp_transfer.search.first_order")
ALL = [f"blocks.{k}.hook_resid_pre" for k in range(1, 4)]


@pytest.fixture(scope="module")
def found(models, cats):
    return find_site(models[1], cats, few=2, n=8, progress=False)


def test_the_blocks_of_largest_effect_are_tried_and_the_best_is_chosen(found, models, cats):
    vectors = {site: it.extract(models[1], cats.contrast("train"), site) for site in ALL}
    gradient = first_order(models[1], cats, ALL, n=8)
    effect = {site: float(vectors[site].direction @ gradient[site]) for site in ALL}
    assert found.predicted == pytest.approx(effect, rel=1e-4)
    assert list(found.tried) == sorted(ALL, key=lambda site: -effect[site])[:2]
    validation = evaluator(models[1], cats, "validation", n=8, clean_prompts=8)
    for site, outcome in found.tried.items():
        search = search_strength(validation, vectors[site], progress=False)
        assert outcome["strength"] == pytest.approx(search.strength, rel=1e-3)
        assert outcome["intact"] == search.chosen.intact.value and outcome["clean_kl"] <= cats.budget
    best = max(outcome["intact"] for outcome in found.tried.values())
    assert found.tried[found.site]["intact"] == best
    assert found.site in str(found) and "best of 2 blocks that first-order effect preselects" in str(found)


def test_without_answers_the_positive_prompts_say_what_is_wanted(models, cats, monkeypatch):
    sites, wanted = ALL[:1], {p.negative: p.positive for p in cats.contrast("validation")}
    gradient = first_order(models[1], replace(cats, answers=None), sites, n=8)[sites[0]]

    def first(model, _task, prompts):
        return generate_tokens(model, [wanted[p] for p in prompts], max_new_tokens=1, progress=False)

    monkeypatch.setattr(gradients, "answer_tokens", first)
    told = replace(cats, prompts=lambda _: list(wanted))
    assert gradient.tolist() == pytest.approx(first_order(models[1], told, sites, n=8)[sites[0]].tolist(), rel=1e-3, abs=1e-6)


def test_depth_makes_the_list_of_a_quantized_model_which_has_no_gradients(models, cats, monkeypatch):
    monkeypatch.setattr(module, "is_quantized", lambda hf: hf is models[1].original_model)
    search = find_site(models[1], cats, few=1, n=4, progress=False)
    assert (search.predicted, list(search.tried)) == ({}, ["blocks.2.hook_resid_pre"])


def test_depth_makes_the_list_where_nothing_can_be_predicted(models, cats, monkeypatch):
    def nothing(*_args, **_kwargs):
        raise NothingToPredict("none")

    monkeypatch.setattr(module, "first_order", nothing)
    search = find_site(models[1], cats, few=1, n=4, progress=False)
    assert (search.predicted, list(search.tried)) == ({}, ["blocks.2.hook_resid_pre"])
    assert module._spread([str(k) for k in range(1, 24)], 3) == ["8", "12", "16"]


def test_a_choice_is_kept_by_model_task_and_arguments(models, cats, tmp_path, monkeypatch):
    named = replace(cats, judge=it.judges.load("lacks:a"))
    first = find_site(models[1], named, few=1, n=4, cache=tmp_path, progress=False)
    monkeypatch.setattr(module, "extract_each", None)
    assert find_site(models[1], named, few=1, n=4, cache=tmp_path, progress=False) == first
    for changed in ({"n": 5}, {"few": 2}, {"seed": 1}):
        with pytest.raises(TypeError, match="not callable"):
            find_site(models[1], named, **{"few": 1, "n": 4, "cache": tmp_path, "progress": False, **changed})
    for other in (
        replace(named, judge=it.judges.load("lacks:e")),
        replace(named, budget=1.0),
        replace(named, clean=lambda _: ["x"]),
    ):
        with pytest.raises(TypeError, match="not callable"):
            find_site(models[1], other, few=1, n=4, cache=tmp_path, progress=False)
    (file,) = tmp_path.iterdir()
    file.write_text(json.dumps({**json.loads(file.read_text()), "tried": 3}))
    with pytest.raises(ValueError, match=r"\.json is damaged .*tried.*: remove it"):
        find_site(models[1], named, few=1, n=4, cache=tmp_path, progress=False)


def test_a_search_that_was_stopped_resumes(models, cats, tmp_path, monkeypatch):
    named = replace(cats, judge=it.judges.load("lacks:a"))
    options = {"few": 1, "n": 4, "cache": tmp_path, "progress": False}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "write_json", interrupted)
        find_site(models[1], named, **options)
    [work] = tmp_path.iterdir()
    assert list(work.glob("completions-*.json")), "what was computed is there"
    with monkeypatch.context() as patch:
        patch.setattr("interp_transfer.evaluation.evaluator.completions_each", None)
        found = find_site(models[1], named, **options)
    assert [file.suffix for file in tmp_path.iterdir()] == [".json"], "and goes when the choice is written"
    assert found == find_site(models[1], named, few=1, n=4, progress=False)
    work.mkdir()
    assert find_site(models[1], named, **options) == found and not work.exists(), "killed between the two"


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_judge_that_cannot_be_told_from_others_is_not_kept(models, cats, tmp_path):
    without_source = eval("lambda prompts, completions: judge(prompts, completions)", {"judge": it.judges.load("lacks:a")})
    word = "a"
    enclosing = it.Task.from_pairs([("x", "y")], lambda _, completion: word in completion).judge
    for judge in (without_source, enclosing):
        find_site(models[1], replace(cats, judge=judge), few=1, n=4, cache=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_no_block_to_try(models, cats):
    with pytest.raises(ValueError, match="few=0: try at least one block"):
        find_site(models[1], cats, few=0)


def test_blocks_that_are_tried_are_apart() -> None:
    sites = [f"blocks.{k}.hook_resid_pre" for k in range(12)]
    predicted = dict(zip(sites, map(float, [0, 0, 3, 0, 4, 0, 0, 0, 8, 9, 7, 0]), strict=True))
    assert _apart(sites, predicted, 3) == [sites[9], sites[4], sites[2]]
    assert _apart(sites, predicted, 8)[6:] == [sites[8], sites[10]], "when no more are apart, the best of the others"
    assert _apart(sites[:2], predicted, 3) == [sites[0], sites[1]]


def test_the_blocks_that_are_apart_are_those_that_are_tried(models, cats, monkeypatch) -> None:
    monkeypatch.setattr(module, "_apart", lambda sites, predicted, few: sites[:few])
    assert list(find_site(models[1], cats, few=2, n=4, progress=False).tried) == ALL[:2]
