"""SAE features moved between two tiny models: the result, its folder, and what is refused."""

import json
from pathlib import Path

import pytest

import interp_transfer as it
from interp_transfer.evaluation import evaluator
from interp_transfer.evaluation.completions import completions_each
from interp_transfer.features.contrast import feature_contrast
from interp_transfer.features.sae import load_sae
from interp_transfer.features.train import SMALL_MODEL, train_sae
from interp_transfer.studies import features as module
from interp_transfer.studies import features_page
from interp_transfer.studies.features import features_study, move_features
from tests.registered import SITE
from tests.studies.test_resume import stop_at

QUICK = {"candidates": 2, "scales": (1.0, 3.0), "n": 4, "n_validation": 4, "progress": False}


@pytest.fixture(scope="module")
def study(tmp_path_factory, models, cats):
    """A small study and its folder. The source's SAE is stored, the target's is trained."""
    folder = tmp_path_factory.mktemp("study") / "features"
    acts = it.capture(models[0], cats.texts("train"), SITE)
    own = train_sae(acts, SITE, SMALL_MODEL, steps=20).save(folder.parent / "own")
    used = []

    def train(acts, site, recipe, **options):
        used.append((site, recipe))
        return train_sae(acts, site, recipe, steps=20, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "CLEAN_PROMPTS", 4)
        patch.setattr(features_page, "WITH_COMPLETIONS", 2)
        patch.setattr(module, "train_sae", train)
        sae = {"source_sae": str(own), "target_site": SITE}
        result = features_study(cats, *models, **sae, listed=12, out=folder, **QUICK)
    assert used == [(SITE, SMALL_MODEL)]
    return result, folder


def test_every_condition_is_in_the_result(study):
    result, _ = study
    [direction] = result.directions.values()
    shared = {"unsteered", "random direction", "mean ablated", "native vector"}
    sets = {"feature set", "feature set, error dropped", "reconstruction alone"}
    assert set(direction.source) == {*shared, "feature", *sets}
    assert (
        {*shared, "moved feature"}
        <= set(direction.target)
        <= {*shared, "moved feature", "own match", "moved feature, shuffled pairs"}
    )
    assert direction.rank == direction.ranking["feature"].tolist().index(direction.feature) + 1
    assert direction.home["feature"][0] == direction.feature
    assert set(direction.flips) == {"all", "last"} and set(direction.flips["all"]) == {1.0, 3.0}
    assert set(result.to_frame()["direction"]) == {"cats"}
    assert len(result.sentences()) == 2 and "explained variance in the target" in repr(result)


def test_the_folder_holds_json_page_and_saes(study):
    result, folder = study
    assert {path.name for path in folder.iterdir()} == {"features.json", "features.html", "moved_sae", "target_sae"}
    plain = json.loads((folder / "features.json").read_text())
    assert plain == json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["format"] == "interp_transfer.features/1"
    assert load_sae(folder / "moved_sae").n_features == result.sae.n_features
    page = (folder / "features.html").read_text()
    assert f"Features of {result.source.name}" in page
    assert result.sentences()[0].split(",")[0] in page


STAGES = {  # where a study is stopped, and which completions are made again: of features that are set, which are not kept
    "the training of the SAE": ("studies.features.train_sae", 1, 0),
    "the second ranking": ("studies.features.causal_rank", 2, 0),
    "random directions in the target": ("studies.features.judge_random", 2, 3 * 4),
    "the page": ("studies.features.write_features_page", 1, 3 * 4 + 2 * 2 * 2 * 4),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_study_that_was_stopped_resumes(stage, study, models, cats, tmp_path, monkeypatch):
    folder, made = tmp_path / "features", []

    def counted(model, prompts, settings, *args):
        made.append(len(prompts) * len(settings))
        return completions_each(model, prompts, settings, *args)

    def train(*args, **options):
        trained.append(options["checkpoint"])
        return train_sae(*args, steps=20, **options)

    trained: list[Path] = []
    monkeypatch.setattr(evaluator, "completions_each", counted)
    monkeypatch.setattr(evaluator, "CLEAN_PROMPTS", 4)
    monkeypatch.setattr(features_page, "WITH_COMPLETIONS", 2)
    monkeypatch.setattr(module, "train_sae", train)
    options = {"source_sae": str(study[1].parent / "own"), "target_site": SITE, "listed": 12, "out": folder, **QUICK}
    where, call, again = STAGES[stage]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, where, call)
        features_study(cats, *models, **options)
    assert {path.name for path in tmp_path.iterdir()} <= {".features.resume"}, "no half-written folder"
    features_study(cats, *models, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["features"], "nothing is left at the end"
    assert {path.parent.name for path in trained} == {".features.resume"}
    assert json.loads((folder / "features.json").read_text()) == json.loads((study[1] / "features.json").read_text())
    resumed = sum(made)
    features_study(cats, *models, **options | {"out": tmp_path / "whole"})
    assert resumed - (sum(made) - resumed) == again


def test_the_features_that_differ_most_come_first(study, models, cats):
    result, _ = study
    seen = feature_contrast(result.sae, models[0], cats.contrast("train"))
    order = seen.difference.abs().argsort(descending=True)[:12].tolist()
    assert result.directions["cats"].ranking["feature"].head(12).tolist() == order


def test_what_makes_no_sense_is_refused_first(study, models, cats, tmp_path: Path):
    result, _ = study
    (a, b), sae, own = models, result.sae, result.own
    with pytest.raises(ValueError, match="unknown mapper|unknown kind"):
        move_features(a, b, {"cats": cats}, sae, own, mapper="afine")
    with pytest.raises(ValueError, match="two models"):
        move_features(b, a, {"cats": cats}, sae, own)
    with pytest.raises(ValueError, match="give at least one of each"):
        move_features(a, b, {}, sae, own)
    with pytest.raises(ValueError, match="999999 test prompts of cats"):
        move_features(a, b, {"cats": cats}, sae, own, n=999999)
    with pytest.raises(ValueError, match="listed=0"):
        features_study(cats, a, b, listed=0)
    with pytest.raises(ValueError, match="has 4 blocks"):
        features_study(cats, a, b, source_site="9")
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ValueError, match="not an empty folder"):
        features_study(cats, a, b, out=tmp_path)
    assert (tmp_path / "mine").read_text() == "x"
