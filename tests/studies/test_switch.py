"""The safety switch: what every way does, that the model is left as it was, and what cannot be switched."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.evaluator import evaluator
from interp_transfer.interventions.patching.weights import weights_from
from interp_transfer.models.hooked_model import parameter_count
from interp_transfer.stats import rate
from interp_transfer.studies import switch as module
from interp_transfer.studies.switch import largest_rank, mapped, random_change, switch, switch_study
from interp_transfer.studies.switch_page import write_switch
from interp_transfer.studies.switch_result import ACTIVATIONS, DIRECT, MAPPED, Switch
from tests.checkpoints import make_checkpoint

SITES = ["blocks.2.hook_resid_pre", "blocks.3.hook_resid_pre"]
N, SHARE = 6, 0.05


@pytest.fixture(scope="module")
def donor_folder(tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("donor") / "donor", "llama", 3)


@pytest.fixture(scope="module")
def host(models):
    return models[0]


@pytest.fixture(scope="module")
def donor(donor_folder):
    return it.load_model(str(donor_folder), device="cpu")


@pytest.fixture(scope="module")
def task(cats):
    """The task of cats, and one skill: completions that hold an e."""

    def skills(model, settings, n):
        prompts = cats.clean("test")[:n]
        each = (it.generate(model, prompts, *given, max_new_tokens=3, progress=False) for given in settings)
        return [{"says e": rate(["e" in text for text in texts])} for texts in each]

    return replace(cats, skills=skills)


@pytest.fixture(scope="module")
def result(host, donor, task) -> Switch:
    others = {"the donor, as it is": (donor, 7)}
    return switch(host, donor, task, sites=SITES, share=SHARE, n=N, validation=4, others=others, progress=False)


def test_every_way_is_reported(result, host):
    ways = result.ways
    assert {"unswitched", "donor", DIRECT, MAPPED, "vector", "shuffled", "random", "mean_ablated"} < set(ways)
    assert {"weights: blocks", "weights: embeddings", "the donor, as it is"} < set(ways)
    assert ways["unswitched"].judged.clean_kl == 0 and ways["donor"].judged.clean_kl > 0
    assert ways["donor"].judged.completions == ways["the donor, as it is"].judged.completions
    assert ways["donor"].judged.completions != ways["unswitched"].judged.completions
    assert ways["the donor, as it is"].parameters == 7 and ways[DIRECT].parameters is None
    assert ways[MAPPED].parameters <= SHARE * parameter_count(host)
    assert ways["random"].judged.success.n == 20 * N
    assert [(site, name) for site, name, _ in result.layers] == [(site, name) for site in SITES for name in ACTIVATIONS]
    assert all(set(way.skills) == {"says e"} for way in ways.values())
    assert len(result.to_frame()) == len(ways)
    for name in ACTIVATIONS:
        merit = {site: (judged.intact.value, -judged.clean_kl) for site, way, judged in result.layers if way == name}
        assert len(set(merit.values())) > 1 and ways[name].site == max(merit, key=lambda site: merit[site])


def test_weights_are_restored_and_figures_are_those_of_a_single_way(result, host, donor, task):
    test = evaluator(host, task, "test", n=N)
    assert test.judge((), progress=False).completions == result.ways["unswitched"].judged.completions
    with weights_from(host, donor, "blocks"):
        [completions] = test.completions([()], progress=False)
        [skills] = task.skills(host, [()], n=N)
    assert tuple(completions) == result.ways["weights: blocks"].judged.completions
    assert skills == result.ways["weights: blocks"].skills
    assert task.skills(host, [()], n=N) == [result.ways["unswitched"].skills]


def test_a_mapper_replaces_activations_at_every_token(host, donor, task):
    texts, site = task.texts("train")[:60], SITES[0]
    mapper = it.fit(it.collect(host, donor, texts, site, site, progress=False), "low_rank_update", rank=4)
    put = mapped(mapper)
    before = it.capture(host, texts[:3], site)[site]
    with it.applied(host, put):
        after = it.capture(host, texts[:3], site)[site]
    torch.testing.assert_close(after, mapper(before), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="this intervention was made for"), it.applied(donor, put):
        pass
    change = random_change(put, 0).transform(before) - before
    torch.testing.assert_close(change.norm(dim=1), (mapper(before) - before).norm(dim=1), rtol=1e-3, atol=1e-4)
    other = random_change(put, 1).transform(before) - before
    assert torch.nn.functional.cosine_similarity(change, other).abs().max() < 0.9


def test_the_rank_that_a_share_allows():
    assert largest_rank(128, 1_200_000, 0.005) == 22
    assert 2 * 128 * 22 + 128 <= 6000 < 2 * 128 * 23 + 128
    with pytest.raises(ValueError, match="less than a map of rank 1"):
        largest_rank(128, 10_000, 0.005)


def test_what_cannot_be_switched_is_refused_before_any_work(models, donor, task, monkeypatch):
    monkeypatch.setattr(module, "collect", None)
    monkeypatch.setattr(module, "evaluator", None)
    with pytest.raises(ValueError, match="of another shape"):
        switch(models[0], models[1], task, sites=SITES, share=SHARE, progress=False)
    with pytest.raises(ValueError, match="4 blocks"):
        switch(models[0], donor, task, sites=["blocks.99.hook_resid_pre"], progress=False)
    with pytest.raises(ValueError, match="less than a map of rank 1"):
        switch(models[0], donor, task, sites=SITES, share=1e-6, progress=False)


def test_page_and_json_hold_the_result(result, tmp_path: Path):
    path = write_switch(result, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert path.name == "switch.html"
    assert result.sentence().split(",")[0] in text and "http://" not in text.split("<script>")[0]
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["ways"][MAPPED]["success"]["n"] == N
    assert [trace.name for trace in result.plot().data if trace.showlegend][:3] == list(ACTIVATIONS)


def test_the_study_takes_folders_and_a_lora(checkpoints, donor_folder, cats, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(module, "switch", lambda *models, **options: calls.append((models, options)) or _stop())
    names = str(checkpoints[0]), str(donor_folder)
    for direction, order in (("to_tuned", names), ("to_base", names[::-1])):
        with pytest.raises(RuntimeError, match="enough"):
            switch_study(cats, *names, direction=direction, lora=1 if direction == "to_base" else None, progress=False)
        (host, donor, task), options = calls.pop()
        assert (it.identity(host).name, it.identity(donor).name) == order and task is cats
    [(model, size)] = options["others"].values()
    assert list(options["others"]) == ["LoRA of rank 1"] and 0 < size < parameter_count(model)
    with pytest.raises(ValueError, match="no right answers"):
        switch_study(replace(cats, answers=None), *names, lora=1)
    with pytest.raises(ValueError, match="unknown direction 'up'"):
        switch_study(cats, *names, direction="up")
    with pytest.raises(ValueError, match="no fine-tune of .* is known: name one with tuned="):
        switch_study(cats, names[0])
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ValueError, match="not an empty folder"):
        switch_study(cats, *names, out=tmp_path)


def _stop() -> None:
    raise RuntimeError("enough")
