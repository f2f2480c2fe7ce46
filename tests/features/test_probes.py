import math

import pytest
import torch

import interp_transfer as it
from interp_transfer.features.probes import Probe, fit_probe, probe_sites, score_probe
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.prompts.contrast import sides
from interp_transfer.vectors.logistic import logistic

SITE = "blocks.3.hook_resid_pre"


def rows(n: int, shift: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=generator) * torch.tensor([1, 10, 0.1, 1, 1, 1]) + shift * torch.eye(6)[1] * 10


def test_weights_are_for_rows_as_they_are():
    direction, bias = logistic(rows(400, 1.0, 0), rows(400, -1.0, 1))
    assert abs(float(direction[1]) * 10) > 5 * float(direction[[0, 3, 4, 5]].abs().max()), (
        "the coordinate that tells them apart"
    )
    held = torch.cat([rows(400, 1.0, 2), rows(400, -1.0, 3)])
    right = ((held @ direction + bias > 0) == torch.cat([torch.ones(400), torch.zeros(400)]).bool()).float().mean()
    assert right > 0.8, "unit steps of 2 standard deviations: the best is 0.84"


def test_a_constant_coordinate_gets_no_weight():
    positive, negative = rows(50, 1.0, 0), rows(50, -1.0, 1)
    positive[:, 3] = negative[:, 3] = 7.0
    direction, bias = logistic(positive, negative)
    assert direction[3] == 0
    assert math.isfinite(bias)
    with pytest.raises(ValueError, match="0 positive"):
        logistic(positive[:0], negative)


def probe_of(direction: torch.Tensor, bias: float = 0.0) -> Probe:
    return Probe(direction, bias, SITE, ModelIdentity("nobody", ""))


def test_scores_of_a_probe_that_knows_and_of_one_that_guesses():
    positive, negative = rows(200, 1.0, 4), rows(200, -1.0, 5)
    good, bad = probe_of(torch.eye(6)[1]), probe_of(torch.eye(6)[0])
    knows, guesses = score_probe(good, positive, negative), score_probe(bad, positive, negative)
    assert knows.auroc > 0.9
    assert knows.auroc_low < knows.auroc < knows.auroc_high <= 1
    assert guesses.auroc_low < 0.5 < guesses.auroc_high
    assert 0.5 <= knows.random_auroc < knows.random_best < 1
    assert knows.random_best == guesses.random_best, "the same directions"
    assert guesses.brier > knows.brier
    with pytest.raises(ValueError, match="6 dimensions"):
        score_probe(good, positive[:, :4], negative[:, :4])


def test_calibration_tells_overconfidence():
    positive, negative = rows(2000, 0.25, 6), rows(2000, -0.25, 7)
    direction, bias = logistic(rows(4000, 0.25, 8), rows(4000, -0.25, 9))
    honest, loud = (score_probe(probe_of(k * direction, k * bias), positive, negative) for k in (1.0, 8.0))
    assert honest.calibration < 0.05 < 0.2 < loud.calibration
    assert honest.auroc == pytest.approx(loud.auroc, abs=1e-6)


def test_a_probe_on_a_model_and_every_site(models, cats):
    train, test = (cats.contrast(split) for split in ("train", "test"))
    probe = fit_probe(models[0], train, SITE)
    plus, minus = (it.capture(models[0], texts, SITE, "last")[SITE] for texts in sides(test))
    assert score_probe(probe, plus, minus).auroc > 0.99
    assert (probe.site, probe.model, probe.positions) == (SITE, it.identity(models[0]), "last")
    table = probe_sites(models[0], train, test, ["blocks.0.hook_resid_pre", SITE], ("last", 0))
    assert list(table["positions"]) == ["last", "last", "0", "0"]
    by = table.set_index(["site", "positions"])
    assert by.loc[(SITE, "last"), "auroc"] == pytest.approx(score_probe(probe, plus, minus).auroc)
    assert by.loc[("blocks.0.hook_resid_pre", "0"), "auroc"] == 0.5, "the first token is the same on both sides"


def test_few_rows_in_order_are_no_certainty():
    found = score_probe(probe_of(torch.eye(6)[1]), torch.eye(6)[1].repeat(3, 1), -torch.eye(6)[1].repeat(3, 1))
    assert found.auroc == 1.0
    assert found.auroc_low < 0.9


def random_pairs(n: int, seed: int) -> list[tuple[str, str]]:
    """Pairs of texts that nothing tells apart but chance."""
    letters = torch.randint(97, 123, (n, 2, 8), generator=torch.Generator().manual_seed(seed)).tolist()
    return [("".join(map(chr, one)), "".join(map(chr, other))) for one, other in letters]


def test_probes_are_scored_on_texts_that_they_were_not_fitted_on(models):
    """With fewer texts than dimensions a probe separates those that it was fitted on, whatever they are."""
    train, test = random_pairs(6, 0), random_pairs(150, 1)
    plus, minus = (it.capture(models[0], texts, SITE, "last")[SITE] for texts in sides(train))
    probe = fit_probe(models[0], train, SITE)
    assert score_probe(probe, plus, minus).auroc > 0.99
    row = probe_sites(models[0], train, test, SITE).iloc[0]
    held_plus, held_minus = (it.capture(models[0], texts, SITE, "last")[SITE] for texts in sides(test))
    held = score_probe(probe, held_plus, held_minus)
    assert row["auroc"] == pytest.approx(held.auroc) and 0.4 < row["auroc"] < 0.6
    assert row["n"] == 300 and row["accuracy"] == pytest.approx(held.accuracy.value)
