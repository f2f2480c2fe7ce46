"""Searching: what is tried, what is told of it, what is recommended, and what happens when it is cut short."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation import evaluator as evaluation
from interp_transfer.evaluation.clean_kl import CleanKL
from interp_transfer.evaluation.evaluator import evaluator
from interp_transfer.io import locked_folder
from interp_transfer.search import sweep as module
from interp_transfer.search.strengths import FRACTIONS
from interp_transfer.search.sweep import sweep
from interp_transfer.search.sweep_result import Sweep, SweepPoint
from interp_transfer.stats import Estimate, rate

SITES = ["blocks.1.hook_resid_pre", "blocks.3.hook_resid_pre"]
SMALL = {"sites": SITES, "positions": ["last", "all"], "strengths": (0.0, 1.0, 2.0), "n": 12, "progress": False}


@pytest.fixture(scope="module")
def model(models):
    return models[0]


@pytest.fixture(scope="module")
def found(model, cats) -> Sweep:
    return sweep(model, cats, **SMALL)


def test_every_setting_is_what_it_is_alone(found, model, cats):
    validation = evaluator(model, cats, "validation", n=12)
    assert [(t.site, t.positions, t.strength) for t in found.points] == [
        (site, rule, x) for site in SITES for rule in ("last", "all") for x in (0.0, 1.0, 2.0)
    ]
    vectors = {site: it.extract(model, cats.contrast("train"), site) for site in SITES}
    for t in found.points:
        vector = vectors[t.site]
        alone = validation.judge((it.add(vector, t.strength, t.positions),), t.strength, progress=False)
        assert (t.success, t.intact) == (alone.success, alone.intact)
        assert t.clean_kl == pytest.approx(alone.clean_kl, rel=1e-3, abs=1e-6)
        assert t.norm == pytest.approx(t.strength * vector.norm)
        assert t.complete
    assert len({t.success.value for t in found.points}) > 1, "settings that all do the same show nothing"


def test_strengths_are_searched_at_each_site_unless_given(model, cats, tmp_path):
    options = {**SMALL, "strengths": None, "positions": ["all"], "budget": 0.01}
    found = sweep(model, cats, **options, folder=tmp_path)
    assert len(found.points) == 2 * len(FRACTIONS)
    for point in found.points[len(FRACTIONS) - 1 :: len(FRACTIONS)]:
        assert point.clean_kl is not None and 0.009 <= point.clean_kl <= 0.01001, "each site is taken to the budget"
    assert sweep(model, cats, **options, folder=tmp_path) == found
    half = replace(found, points=found.points[:3])
    half.save(tmp_path)
    assert sweep(model, cats, **options, folder=tmp_path) == found, "a part is not taken for the whole"


def test_what_was_found_survives_the_disk(found, tmp_path: Path):
    path = found.save(tmp_path)
    again = Sweep.load(tmp_path)
    assert again.points == found.points
    assert again.recommendation() == found.recommendation()
    path.write_text(path.read_text()[:200])
    with pytest.raises(ValueError, match="sweep.json.*damaged"):
        Sweep.load(tmp_path)
    with pytest.raises(ValueError, match="no sweep in"):
        Sweep.load(tmp_path / "nowhere")


def test_a_killed_sweep_goes_on_and_another_is_refused(found, model, cats, tmp_path: Path, monkeypatch):
    real, asked = evaluation.completions_each, []

    def dies(model, prompts, settings, *options):
        asked.append(len(settings))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(model, prompts, settings, *options)

    monkeypatch.setattr(evaluation, "completions_each", dies)
    with pytest.raises(KeyboardInterrupt):
        sweep(model, cats, **SMALL, folder=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.resume"], "nothing is taken for a whole sweep"
    again = sweep(model, cats, **SMALL, folder=tmp_path)
    assert asked == [6, 6, 6], "the second site alone was done again"
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.json"]
    assert [(t.site, t.intact) for t in again.points] == [(t.site, t.intact) for t in found.points]
    monkeypatch.setattr(module, "evaluator", None)  # nothing is left to do
    monkeypatch.setattr(module, "extract_each", None)
    assert sweep(model, cats, **SMALL, folder=tmp_path).points == again.points
    with pytest.raises(ValueError, match="holds another sweep"):
        sweep(model, cats, **{**SMALL, "n": 10}, folder=tmp_path)


def test_what_a_sweep_left_that_was_killed_at_its_end_is_removed(found, model, cats, tmp_path: Path):
    found.save(tmp_path)
    (tmp_path / "sweep.resume").mkdir()
    (tmp_path / "sweep.resume" / "costs.json").write_text("[]")
    assert sweep(model, cats, **SMALL, folder=tmp_path).points == found.points
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.json"]


def test_a_folder_takes_one_sweep_at_a_time(model, cats, tmp_path: Path):
    with locked_folder(tmp_path / "sweep.resume"), pytest.raises(ValueError, match="another writer is at work in"):
        sweep(model, cats, **SMALL, folder=tmp_path)


def test_a_killed_search_for_strengths_resumes(model, cats, tmp_path: Path, monkeypatch):
    options = {**SMALL, "strengths": None, "positions": ["all"], "early": True}
    real, measured = CleanKL.__call__, []

    def counted(self, model, settings, *others):
        measured.append(len(settings))
        return real(self, model, settings, *others)

    monkeypatch.setattr(CleanKL, "__call__", counted)
    whole = sweep(model, cats, **options, folder=tmp_path / "whole")
    expected, measured[:] = sum(measured), []
    with monkeypatch.context() as patch, pytest.raises(TypeError, match="not callable"):
        patch.setattr(evaluation, "completions_each", None)
        sweep(model, cats, **options, folder=tmp_path / "killed")
    assert measured, "the largest strengths were searched"
    assert sweep(model, cats, **options, folder=tmp_path / "killed") == whole
    assert sum(measured) == expected, "and not again"


def made(
    site: int, strength: float, intact: float, kl: float | None, success: float | None = None, whole: bool = True
) -> SweepPoint:
    def share(x: float) -> Estimate:
        return rate([k < round(100 * x) for k in range(100)])

    name = f"blocks.{site}.hook_resid_pre"
    return SweepPoint(
        name, "all", float(strength), float(strength), share(intact if success is None else success), share(intact), kl, whole
    )


def of(found: Sweep, *points: SweepPoint, budget: float = 0.01) -> Sweep:
    return replace(found, points=points, budget=budget)


def test_the_pareto_rule_takes_the_gentlest_that_is_nearly_as_good(found):
    tries = [
        made(1, 1, 0.90, 0.001),
        made(1, 2, 0.95, 0.003),
        made(2, 1, 0.96, 0.008),
        made(3, 1, 1.0, 0.5),
        made(3, 2, 0.2, 0.002),
    ]
    chosen = of(found, *tries)
    assert chosen.recommended() == tries[1]
    assert chosen.front() == [tries[0], tries[1], tries[2], tries[3]]
    assert of(found, *tries, budget=1.0).recommended() == tries[3]
    assert "strength 2" in chosen.recommendation()


def test_nothing_within_the_budget_is_said_so(found):
    nothing = of(found, made(1, 1, 0.9, 0.5), made(1, 2, 0.0, 0.001))
    assert nothing.recommended() is None
    assert "None of 2 settings" in nothing.recommendation()


def test_the_papers_rule_takes_the_last_strong_layer(found):
    tries = [made(1, 1, 0.9, 0.1), made(1, 2, 0.9, 0.1), made(2, 1, 0.5, 0.1, success=0.88), made(3, 1, 0.3, 0.1)]
    assert of(found, *tries).recommended("paper") == tries[2], "success alone counts, and .88 is nine tenths of .9"
    assert of(found, *tries[:2], tries[3]).recommended("paper") == tries[0], "the weaker of equals"
    with pytest.raises(ValueError, match="unknown rule 'parto': did you mean 'pareto'"):
        found.recommended("parto")


def test_bad_input_is_refused_before_any_work(model, models, cats, monkeypatch):
    monkeypatch.setattr(module, "evaluator", None)
    monkeypatch.setattr(module, "extract_each", None)
    own = it.extract(model, cats.contrast("train")[:4], SITES[0])
    other = it.extract(models[1], cats.contrast("train")[:4], SITES[0])
    wrong = {
        "did you mean": {"sites": ["blocks.1.hook_resid_pree"]},
        "4 blocks": {"sites": ["blocks.9.hook_resid_pre"]},
        "unknown positions": {"positions": ["lst"]},
        "at least one rule": {"positions": []},
        "name each once": {"strengths": (1.0, 1.0)},
        "no number": {"strengths": (1.0, float("nan"))},
        "no vector is given": {"sites": SITES, "vectors": {SITES[0]: own}},
        "another model": {"sites": None, "vectors": {SITES[0]: other}},
    }
    for said, options in wrong.items():
        with pytest.raises(ValueError, match=said):
            sweep(model, cats, **{**SMALL, **options})


def test_given_vectors_are_swept(model, cats):
    vector = it.extract(model, cats.contrast("train"), SITES[1])
    noise = replace(vector, direction=torch.randn(16, generator=torch.Generator().manual_seed(0)))
    given = sweep(model, cats, **{**SMALL, "sites": None}, vectors={SITES[1]: vector})
    random = sweep(model, cats, **{**SMALL, "sites": None}, vectors={SITES[1]: noise})
    assert {t.site for t in given.points} == {SITES[1]}
    assert [t.clean_kl for t in given.points] != [t.clean_kl for t in random.points]
    assert given.details["vectors"] != random.details["vectors"]


def test_pictures_and_frame(found):
    frame = found.to_frame()
    assert len(frame) == 12
    assert {"site", "positions", "strength", "norm", "success", "intact_low", "clean_kl", "n", "complete"} <= set(frame)
    figure = found.plot()
    cells = figure.data[0]
    best = max((t for t in found.points if t.site == SITES[1] and t.positions == "all"), key=lambda t: t.intact.value)
    assert list(cells.y) == SITES
    assert list(cells.x) == ["last", "all"]
    if best.clean_kl is not None and best.clean_kl <= found.budget:
        assert cells.z[1][1] == best.intact.value
    assert "nats per token" in cells.customdata[0][0]
    assert len(found.plot_cost().data) == 3
    assert found.recommendation() in repr(found)
    assert "<table" in found._repr_html_()


def test_a_single_prompt_leaves_nothing_to_decide_early(model, cats):
    one = {**SMALL, "n": 1}
    early, whole = (sweep(model, cats, **one, early=e) for e in (True, False))
    assert all(t.complete for t in early.points)
    assert [t.intact for t in early.points] == [t.intact for t in whole.points]


def test_too_many_prompts_are_refused_before_any_vector_is_sought(model, cats, monkeypatch):
    monkeypatch.setattr(module, "extract_each", None)
    with pytest.raises(ValueError, match="n=999999"):
        sweep(model, cats, **{**SMALL, "n": 999999})


def test_a_cell_shows_the_cheapest_where_none_is_within_the_budget(found):
    tries = [made(1, 1, 0.2, 0.05), made(1, 2, 0.9, 0.5)]
    assert of(found, *tries).best_at_sites(0.01)["blocks.1.hook_resid_pre"] == tries[0]
    cells: Any = of(found, *tries).plot().data[0]
    assert cells.z[0][0] == 0.2
    assert "within 0.01" not in of(found, made(1, 1, 0.0, 0.5)).recommendation("paper"), "that rule knows no budget"


def test_ties_go_to_the_weaker_whatever_its_sign(found):
    tries = [made(1, -4, 0.9, 0.005), made(1, -1, 0.9, 0.005)]
    assert of(found, *tries).recommended("paper") == tries[1]
    assert of(found, *tries).best_at_sites()["blocks.1.hook_resid_pre"] == tries[1]


def test_the_best_of_a_site_is_whole_and_within_the_budget_if_any_is(found):
    tries = [made(1, 1, 0.9, 0.005), made(1, 2, 1.0, 0.5), made(1, 3, 1.0, None, whole=False)]
    site = "blocks.1.hook_resid_pre"
    assert of(found, *tries).best_at_sites(0.01)[site] == tries[0]
    assert of(found, *tries).best_at_sites()[site] == tries[1]
    assert of(found, tries[2]).best_at_sites(0.01)[site] == tries[2]


def test_success_without_an_intact_answer_is_still_told(found):
    nothing, something = made(1, 1, 0.0, 0.0001), made(1, 2, 0.0, 0.005, success=0.9)
    assert of(found, nothing, something).recommended() == something
    gentle = made(1, 1, 0.03, 0.001)
    assert of(found, gentle, made(1, 2, 0.05, 0.002)).recommended() == gentle, "0.02 below is near enough"


def test_rules_that_mean_other_tokens_elsewhere_are_refused(model, cats, tmp_path: Path):
    mask = torch.ones(12, 90, dtype=torch.bool)
    with pytest.raises(ValueError, match="a mask names tokens of certain prompts"):
        sweep(model, cats, **{**SMALL, "positions": [mask]})
    with pytest.raises(ValueError, match="cannot be told from others"):
        sweep(model, cats, **{**SMALL, "positions": [lambda layout: layout.real]}, folder=tmp_path)
    vector = it.extract(model, cats.contrast("train")[:4], SITES[0])
    with pytest.raises(ValueError, match="under its own site"):
        sweep(model, cats, **{**SMALL, "sites": None}, vectors={SITES[1]: vector})


N = 80


def test_what_the_budget_forbids_sets_no_bar(model, cats, monkeypatch):
    pairs = [(f"the cat {i} sat", f"the dog {i} sat") for i in range(N + 4)]
    many = it.Task.from_pairs({"train": pairs[N:], "validation": pairs[:N]}, cats.judge, max_new_tokens=1)

    class Canned(module._Trials):
        def outcomes(self, settings, prompts):
            right = {1.0: lambda k: False, 2.0: lambda k: k % 2 == 0, 4.0: lambda k: True}
            return [[(True, right[s.strength](k)) for k in range(N)[prompts]] for s in settings]

        def costs(self, settings):
            return [0.5 if s.strength == 4.0 else 0.001 for s in settings]

    monkeypatch.setattr(module, "_Trials", Canned)
    asked = {**SMALL, "sites": SITES[:1], "positions": ["all"], "strengths": (1.0, 2.0, 4.0), "n": N}
    weak, fair, costly = sweep(model, many, **asked, early=True).points
    assert fair.complete and fair.intact.n == N, "the one beyond the budget is better, and is no reason to give this up"
    assert not costly.complete and costly.intact.n == N // 4
    assert not weak.complete and weak.intact.n == N // 4


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"budget": ', '"budget": 1'),
        ('"task": "', '"task": "\xff'),
        ('"n": ', '"n": 9' + "9" * 5000),
        ('"value": ', '"value": "a", "x": '),
    ],
)
def test_a_changed_sweep_is_refused(found, tmp_path: Path, old: str, new: str):
    path = found.save(tmp_path)
    assert old in path.read_text()
    path.write_bytes(path.read_text().replace(old, new, 1).encode("latin-1"))
    with pytest.raises(ValueError, match="sweep.json.*damaged") as error:
        Sweep.load(tmp_path)
    assert len(str(error.value)) < 500 and str(error.value).isprintable()


def test_a_sweep_without_a_digest_is_read_but_its_types_are_checked(found, tmp_path: Path):
    path = found.save(tmp_path)
    plain = {key: value for key, value in json.loads(path.read_text()).items() if key != "digest"}
    path.write_text(json.dumps(plain))
    assert Sweep.load(tmp_path).points == found.points
    plain["points"][-1]["strength"] = "strong"
    path.write_text(json.dumps(plain))
    with pytest.raises(ValueError, match="sweep.json.*strength"):
        Sweep.load(tmp_path)
