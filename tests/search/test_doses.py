"""Doses: each point is what its draws are together, and noise at a trigger is where it says it is."""

import json
from dataclasses import replace

import pytest

import interp_transfer as it
from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import substring
from interp_transfer.evaluation.clean_kl import CleanKL
from interp_transfer.evaluation.evaluator import Evaluator, evaluator, pooled
from interp_transfer.interventions.transforms import Noise
from interp_transfer.plots.strength import PANELS
from interp_transfer.reporting.noise_page import sentence, write_noise
from interp_transfer.search import doses as module
from interp_transfer.search.doses import Doses, coordinate_size, dose_curve, noise_doses, typical_doses
from interp_transfer.stats import Estimate, rate

SITE = "blocks.1.hook_resid_pre"
N = 6


@pytest.fixture(scope="module")
def model(models):
    return models[0]


def short(test: Evaluator) -> Evaluator:
    return replace(test, clean_kl=CleanKL(test.clean_kl.prompts[:8], test.clean_kl.answers[:8]))


@pytest.fixture(scope="module")
def test_exam(model, cats) -> Evaluator:
    return short(evaluator(model, replace(cats, max_new_tokens=30), "test", n=N))


@pytest.fixture(scope="module")
def noise(model, cats) -> dict[str, Doses]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "evaluator", lambda *a, **k: short(evaluator(*a, **k)))
        return noise_doses(model, cats, SITE, [2.0, 0.0, 0.5], n=N, draws=2, progress=False)


def test_a_curve_is_what_each_dose_is_alone(test_exam, model, cats):
    vector = it.extract(model, cats.contrast("train")[:60], "blocks.3.hook_resid_pre")
    makes = {"one": lambda x: [it.add(vector, x)], "two": lambda x: [it.add(vector, x), it.add(vector, -x)]}
    found = dose_curve(test_exam, makes, (1, 0.0), progress=False)
    assert [c.strength for c in found.curves["one"]] == [0.0, 1.0]
    for name, make in makes.items():
        for c in found.curves[name]:
            alone = [test_exam.judge((i,), c.strength, progress=False) for i in make(c.strength)]
            whole = alone[0] if len(alone) == 1 else pooled(alone, "")
            assert (c.success, c.intact) == (whole.success, whole.intact)
            assert c.clean_kl == pytest.approx(whole.clean_kl, rel=1e-3, abs=1e-6)
    assert found.curves["two"][0].success.n == 2 * N
    assert len({c.success.value for c in found.curves["one"]}) > 1
    frame = found.to_frame()
    assert list(frame["dose"]) == [0.0, 1.0] * 2
    assert {"curve", "success_low", "intact_high", "clean_kl", "n"} <= set(frame)
    assert "relative" not in frame, "nothing to read it relative to"
    assert repr(found).count("one") == repr(found).count("two") == 2


def test_the_typical_size_is_of_the_same_tokens(noise, model, cats):
    prompts = evaluator(model, cats, "test", n=N).prompts
    rows = capture(model, prompts, SITE, substring("dog"), progress=False)[SITE]
    assert noise["removes"].typical == pytest.approx(float(rows.norm() / rows.numel() ** 0.5))
    assert noise["removes"].typical == pytest.approx(coordinate_size(model, prompts, SITE, substring("dog")))
    assert list(noise["removes"].to_frame()["relative"])[-1] == pytest.approx(2.0 / float(rows.norm() / rows.numel() ** 0.5))
    sizes = typical_doses(model, cats, SITE, relative=(0, 1, 10), n=N)
    assert sizes == [0.0, float(f"{sizes[1]:.2g}"), pytest.approx(10 * noise["removes"].typical, rel=0.06)]


def test_noise_in_place_is_the_paper_s(model, cats, monkeypatch):
    monkeypatch.setattr(module, "evaluator", lambda *a, **k: short(evaluator(*a, **k)))
    found = noise_doses(model, cats, SITE, [1.0], n=2, draws=1, replace=True, seed=3, progress=False)
    assert list(found["removes"].curves) == ["noise in place"]
    assert found["removes"].details["replace"] is True
    drawn = evaluator(model, cats, "test", n=2, seed=3).prompts
    loud = it.Intervention(SITE, Noise(1.0, 3, replace=True), substring("dog"))
    said = it.generate(model, drawn, loud, max_new_tokens=3, progress=False)
    assert list(found["removes"].curves["noise in place"][0].completions) == said


def test_pictures(noise):
    removes, induces = (noise[name].plot() for name in ("removes", "induces"))
    assert [a.text for a in removes.layout.annotations] == list(module.REMOVED.values()), "costs of zero need no panel"
    assert len(induces.layout.annotations) == 2 + (max(noise["induces"].to_frame()["clean_kl"]) >= 0.01)
    assert removes.layout.xaxis2.title.text.startswith("noise: standard deviation of a coordinate (typical size here: 0.")
    lines = [t for t in removes.data if t.mode == "lines+markers"]
    assert list(lines[0].x) == [0.0, 0.5, 2.0]
    assert lines[0].customdata[1].startswith("noise 0.5<br>")
    json.dumps(noise["removes"].to_dict(), allow_nan=False)


def test_costs_that_count_have_a_panel(noise):
    (curve,) = noise["induces"].curves.values()
    dear = tuple(replace(c, cost=Estimate(0.5 * c.strength, 0.0, 9.0, 8)) for c in curve)
    costly = replace(noise["induces"], curves={"noise": dear})
    drawn = costly.plot()
    assert [a.text for a in drawn.layout.annotations] == [*module.INDUCED.values(), PANELS["clean_kl"]]
    assert drawn.layout.yaxis3.type == "log"


def test_the_page_says_what_noise_does(noise, tmp_path):
    removes, induces = noise["removes"], noise["induces"]
    (curve,) = removes.curves.values()
    never = replace(removes, curves={"noise": (replace(curve[0], success=rate([False] * 8)),)})
    assert sentence(never, "takes it away", "of prompts").startswith("No dose takes it away in any trial of prompts: 0% (0% to")
    made = [replace(c, success=rate([k < share for k in range(10)])) for c, share in zip(curve, (0, 6, 4), strict=True)]
    said = sentence(replace(removes, curves={"noise": tuple(made)}), "takes it away", "of prompts")
    assert said.startswith("Noise of 0.5 takes it away in 60% (")
    assert said.endswith("half is reached at dose 0.5.")
    said = sentence(replace(removes, curves={"noise": (made[0], made[2])}), "takes it away", "of prompts")
    assert said.startswith("No dose takes it away in half of the trials of prompts: at most in 40% (")
    assert "default-src &#39;none&#39;" in write_noise({"removes": removes, "induces": induces}, tmp_path).read_text("utf-8")


def test_bad_input_is_refused_before_any_work(test_exam, model, cats, monkeypatch):
    monkeypatch.setattr(module, "evaluator", None)
    monkeypatch.setattr(module, "_judged", None)
    with pytest.raises(ValueError, match="cats has no trigger"):
        noise_doses(model, replace(cats, trigger=""), SITE, [1.0])
    wrong = {
        "did you mean": {"site": "blocks.1.hook_resid_pree"},
        "not below zero": {"doses": [-1.0]},
        "draws=0": {"draws": 0},
        "at least one number": {"doses": []},
        "each once": {"doses": [1, 1.0]},
        "n=999999": {"n": 999999},
        "one of 'train'|split": {"split": "tset"},
    }
    for said, options in wrong.items():
        given = {"site": SITE, "doses": [1.0], **options}
        with pytest.raises(ValueError, match=said):
            noise_doses(model, cats, given.pop("site"), given.pop("doses"), **given)
    with pytest.raises(ValueError, match="nothing to give doses of"):
        dose_curve(test_exam, {}, [1.0])
    with pytest.raises(ValueError, match="'none' makes no intervention for dose 1"):
        dose_curve(test_exam, {"none": lambda x: []}, [1.0])
