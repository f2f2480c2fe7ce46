"""Probes that watch another model: exact where the map is, calibrated without labels, refused where they do not belong."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import interp_transfer as it
from interp_transfer.features.probes import Probe, score_probe
from interp_transfer.mapping.card import Card
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.identity import ModelIdentity, Space
from interp_transfer.transfer.probe_maps import fit_maps, pairs_at
from interp_transfer.transfer.probe_scores import DetectionTexts, moved_scores
from interp_transfer.transfer.probes import (
    back,
    fit_through,
    forward,
    recalibrated,
    score_through,
)
from interp_transfer.vectors.logistic import logistic

HERE, THERE = ModelIdentity("here", "1" * 16), ModelIdentity("there", "2" * 16)
SITE, OTHER = "blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"
D, WIDER = 5, 7
END = it.substring("\nAssistant", token=0)


def rows(n: int, seed: int, d: int = D) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def affine(weight: torch.Tensor, bias: torch.Tensor, source: Space, target: Space) -> Mapper:
    core = nn.Linear(weight.shape[1], weight.shape[0])
    core.weight.data, core.bias.data = weight.clone(), bias.clone()
    return Mapper(core, source, target, Card("affine", 1, 0.0, 1.0, 1.0, 1, 1, 0)).requires_grad_(False)


def planted() -> tuple[torch.Tensor, torch.Tensor, Mapper, Mapper]:
    """Target rows y = 3 h Q + b, with Q's rows orthonormal, and the maps either way."""
    turn = 3 * torch.linalg.qr(rows(WIDER, 0, D))[0].T
    shift = rows(1, 1, WIDER)[0]
    here, there = Space(HERE, SITE, D), Space(THERE, OTHER, WIDER)
    undo = torch.linalg.pinv(turn)
    return turn, shift, affine(turn.T, shift, here, there), affine(undo.T, -shift @ undo, there, here)


def probe_of(seed: int = 2, bias: float = 0.7) -> Probe:
    return Probe(rows(1, seed)[0], bias, SITE, HERE, "last")


def test_back_is_exact():
    turn, shift, _, undo = planted()
    probe, h = probe_of(), rows(200, 3)
    moved = back(probe, undo)
    assert moved.site == OTHER
    assert moved.model == THERE
    torch.testing.assert_close(moved(h @ turn + shift), probe(h), atol=1e-4, rtol=1e-4)


def test_forward_is_exact_where_a_map_keeps_angles():
    turn, shift, there, _ = planted()
    probe, h = probe_of(), rows(200, 3)
    moved = forward(probe, there, rows(50, 4))
    assert (moved.site, moved.model, moved.positions) == (OTHER, THERE, "last")
    torch.testing.assert_close(moved(h @ turn + shift), probe(h), atol=1e-4, rtol=1e-4)


def test_forward_keeps_sign_step_and_boundary_under_any_map_and_no_more():
    squeeze = torch.diag(torch.tensor([4.0, 0.2, 1, 1, 1])) @ rows(D, 5, WIDER)
    there = affine(squeeze.T, rows(1, 6, WIDER)[0], Space(HERE, SITE, D), Space(THERE, OTHER, WIDER))
    probe, h = probe_of(), rows(300, 7)
    moved = forward(probe, there, h)
    step = probe.direction / probe.direction.square().sum()
    torch.testing.assert_close((moved(there(h + step)) - moved(there(h))).mean(), torch.tensor(1.0), atol=1e-4, rtol=1e-4)
    edge = h - probe(h)[:, None] * step
    torch.testing.assert_close(probe(edge), torch.zeros(300), atol=1e-5, rtol=0)
    assert abs(float(moved(there(edge)).mean())) < 1e-4
    assert float(moved(there(edge)).std()) > 0.1, "the boundary does not stay on one side: a covector does not move forward"


def test_a_probe_fitted_on_moved_rows_tells_them_apart():
    turn, shift, there, _ = planted()
    plus, minus = rows(300, 8) + 2, rows(300, 9) - 2
    found = fit_through(there, plus[:200], minus[:200])
    assert found.site == OTHER
    assert score_through(found, plus[200:] @ turn + shift, minus[200:] @ turn + shift).auroc > 0.99


@pytest.mark.parametrize(("share", "above"), [(0.05, 20), (0.0, 0), (0.29, 116), (0.001, 0), (0.5, 200)])
def test_recalibration_hits_the_share_of_false_alarms(share, above):
    turn, shift, _, undo = planted()
    clean = rows(400, 10) @ turn + shift
    probe = recalibrated(back(probe_of(bias=9.0), undo), clean, share)
    assert int((probe(clean) > 0).sum()) == above
    own = recalibrated(probe_of(bias=-3.0), rows(400, 11), share)
    assert int((own(rows(400, 11)) > 0).sum()) == above
    assert torch.equal(own.direction, probe_of().direction)


def test_recalibrating_twice_is_recalibrating_once_and_ties_raise_no_alarm():
    clean = rows(100, 12)
    once, twice = (recalibrated(p, clean) for p in (probe_of(), recalibrated(probe_of(bias=5.0), clean)))
    assert once.bias == pytest.approx(twice.bias, abs=1e-4)
    same = torch.ones(100, D)
    assert not (recalibrated(probe_of(), same)(same) > 0).any()


def test_what_does_not_belong_is_refused():
    _, _, there, undo = planted()
    probe, h = probe_of(), rows(9, 13)
    with pytest.raises(ValueError, match=r"leads to there .*the probe is of here.*models exchanged"):
        back(probe, there)
    with pytest.raises(ValueError, match=r"leads from there .*the probe is of here"):
        forward(probe, undo, h)
    with pytest.raises(ValueError, match="reads 'blocks.3.hook_resid_pre'"):
        back(replace(probe, site="blocks.3.hook_resid_pre"), undo)
    with pytest.raises(ValueError, match="a probe of 4 dimensions at a site that has 5"):
        back(replace(probe, direction=torch.ones(4)), undo)
    with pytest.raises(ValueError, match=r"reference rows of shape \(0, 5\)"):
        forward(probe, there, h[:0])
    with pytest.raises(ValueError, match=r"reference rows of shape \(9, 4\)"):
        forward(probe, there, h[:, :4])
    with pytest.raises(ValueError, match="length 0"):
        forward(replace(probe, direction=torch.zeros(D)), there, h)
    lost = affine(torch.zeros(WIDER, D), torch.ones(WIDER), there.source, there.target)
    with pytest.raises(ValueError, match="lost the direction"):
        forward(probe, lost, h)
    with pytest.raises(ValueError, match="takes \\(row, 7\\)"):
        back(probe, undo)(h)
    with pytest.raises(ValueError, match="0 clean rows"):
        recalibrated(probe, h[:0])
    with pytest.raises(ValueError, match=r"false_alarms=1.5: give a share"):
        recalibrated(probe, h, 1.5)


def test_a_moved_probe_is_a_condition(wrapped):
    model = wrapped("llama")
    here = it.identity(model)
    d = int(model.cfg.d_model)
    same = affine(torch.eye(d), torch.zeros(d), Space(here, SITE, d), Space(HERE, SITE, d))
    texts = ["the cat sat on a mat", "dogs run far"]
    acts = it.capture(model, texts, SITE)[SITE]
    probe = recalibrated(back(Probe(rows(1, 14, d)[0], 0.0, SITE, HERE), same), acts, 0.5)
    steer = it.Intervention(SITE, lambda a: a + 1, model=here).when(probe)
    with it.applied(model, steer):
        changed = it.capture(model, texts, SITE)[SITE]
    fires = probe(acts) > 0
    assert 0 < int(fires.sum()) < len(acts)
    torch.testing.assert_close(changed, torch.where(fires[:, None], acts + 1, acts))
    with pytest.raises(ValueError, match="another site or model"):
        it.Intervention(OTHER, lambda a: a).when(probe)


def test_pairs_of_one_token(wrapped):
    source, target = wrapped("llama"), wrapped("qwen2")
    texts = ["the cat sat: yes", "dogs run far: no", "12 + 7: they say"]
    end = it.substring(":", token=0)
    pairs = pairs_at(source, target, texts, (SITE, OTHER), end)
    assert len(pairs) == 3
    assert pairs.site_pairs == ((SITE, OTHER),)
    torch.testing.assert_close(pairs.target[OTHER], it.capture(target, texts, OTHER, end)[OTHER])
    with pytest.raises(ValueError, match="name one of each"):
        pairs_at(source, target, texts, (SITE, OTHER), "all")


def test_moved_probes_are_scored_on_test_texts(wrapped):
    """Nothing tells the texts apart but chance: with few of them, a probe is perfect on those that it was fitted on alone."""
    letters = torch.randint(97, 123, (312, 8), generator=torch.Generator().manual_seed(0)).tolist()
    texts = ["".join(map(chr, one)) for one in letters]
    what = DetectionTexts("chance", (texts[:6], texts[6:12]), (texts[12:112], texts[112:212]), texts[212:260], texts[260:])
    here, there = wrapped("llama"), wrapped("qwen2")
    plus, minus = (it.capture(here, side, SITE, "last")[SITE] for side in what.train)
    assert score_probe(Probe(*logistic(plus, minus), SITE, it.identity(here)), plus, minus).auroc > 0.99
    found = moved_scores(here, there, what, fit_maps(here, there, what.texts, (SITE, OTHER)))
    assert (found["n"] == 200).all()
    assert found["auroc"].drop(["random, home", "random"]).between(0.35, 0.65).all()
