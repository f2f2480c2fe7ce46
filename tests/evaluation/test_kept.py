"""Outcomes that are kept in a folder, and read back instead of being computed again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.evaluator import Condition, evaluator
from interp_transfer.evaluation.kept import Kept, setting_key
from interp_transfer.interventions.follow import follow
from interp_transfer.interventions.intervention import Intervention, ablate, add
from interp_transfer.io import locked_folder
from interp_transfer.studies.switch import mapped, random_change
from tests.registered import SITE


@pytest.fixture
def made():
    """The slices that were made, and a function that makes the squares of 0 to 4."""
    slices: list[slice] = []

    def make(part: slice) -> list[int]:
        slices.append(part)
        return [k**2 for k in range(5)[part]]

    return slices, make


def test_outcomes_are_made_once_in_parts(tmp_path, made):
    slices, make = made
    kept, keys = Kept(tmp_path / "kept"), list("abcde")
    for _ in range(2):
        assert kept.each("squares", keys, make, int, at_once=2) == [0, 1, 4, 9, 16]
    assert slices == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert len(list(kept.folder.iterdir())) == 3  # type: ignore[union-attr]
    kept.each("squares", ["a", "x"], make, int, at_once=2)
    kept.each("cubes", ["a", "b"], make, int, at_once=2)
    assert len(slices) == 5, "another key or another kind of outcome is made anew"
    kept.remove()
    assert not (tmp_path / "kept").exists()


def test_without_a_folder_the_parts_are_the_same_and_nothing_is_written(made):
    slices, make = made
    assert Kept().each("squares", list("abcde"), make, int, at_once=2) == [0, 1, 4, 9, 16]
    assert slices == [slice(0, 2), slice(2, 4), slice(4, 6)]


def test_a_part_with_an_outcome_that_has_no_key_is_made_each_time(tmp_path, made):
    slices, make = made
    for _ in range(2):
        Kept(tmp_path).each("squares", ["a", None, "c", "d"], make, int, at_once=2)
    assert slices == [slice(0, 2), slice(2, 4), slice(0, 2)]


@pytest.mark.parametrize("content", ["[0, 1", '["x", "y"]', "{}"])
def test_a_damaged_file_is_made_again(tmp_path, made, content):
    _, make = made
    Kept(tmp_path).each("squares", ["a", "b"], make, int, at_once=2)
    [file] = tmp_path.iterdir()
    file.write_text(content)
    assert Kept(tmp_path).each("squares", ["a", "b"], make, int, at_once=2) == [0, 1]
    assert file.read_text().split() == ["[", "0,", "1", "]"]


def test_a_damaged_mapper_is_named(tmp_path, models, cats):
    source, target = models
    pairs = it.collect(source, target, cats.texts("train"), SITE, SITE, progress=False)
    kept = Kept(tmp_path)
    fitted = [kept.mapper("about", lambda _: it.fit(pairs, "affine")) for _ in range(2)]
    row = pairs.source[SITE][:1]
    torch.testing.assert_close(fitted[0](row), fitted[1](row), rtol=0, atol=0)
    assert fitted[1].card == fitted[0].card
    [folder] = tmp_path.iterdir()
    (folder / "mapper.json").write_text("{")
    with pytest.raises(ValueError, match=folder.name):
        kept.mapper("about", lambda _: it.fit(pairs, "affine"))


def test_a_training_that_was_stopped_resumes(tmp_path, models, cats):
    source, target = models
    pairs = it.collect(source, target, cats.texts("train"), SITE, SITE, progress=False)
    kept, states = Kept(tmp_path), []

    def stopped(state: Path | None) -> Any:
        it.fit(pairs, "autoencoder", epochs=2, checkpoint=state, progress=False)
        states.append(state)
        raise KeyboardInterrupt

    def resumed(state: Path | None) -> Any:
        assert state is not None and state == states[0] and state.is_dir()
        return it.fit(pairs, "autoencoder", epochs=2, checkpoint=state, progress=False)

    with pytest.raises(KeyboardInterrupt):
        kept.mapper("about", stopped)
    assert len(kept.mapper("about", resumed).card.curve) == 2
    assert not states[0].exists(), "the state goes once the mapper is written"
    assert kept.mapper("about", lambda _: pytest.fail("fitted again")).card.kind == "autoencoder"
    with locked_folder(tmp_path / "state"), pytest.raises(ValueError, match="another writer is at work in"):
        it.fit(pairs, "autoencoder", epochs=2, checkpoint=tmp_path / "state", progress=False)


def test_interventions_that_differ_have_keys_that_differ(models, cats):
    vector = it.extract(models[0], cats.contrast("train"), SITE)
    pairs = it.collect(models[0], models[0], cats.texts("train")[:20], SITE, SITE, progress=False)
    mappers = [it.fit(one, "low_rank_update", rank=2, progress=False) for one in (pairs, pairs.shuffled(0))]
    settings = [
        (),
        (add(vector, 1.0),),
        (add(vector, 1.5),),
        (add(vector, 1.0, "last"),),
        (add(-1 * vector, 1.0),),
        (ablate(vector),),
        (add(vector, 1.0), ablate(vector)),
        (Intervention("blocks.1.hook_resid_pre", add(vector, 1.0).transform),),
        *((mapped(mapper),) for mapper in mappers),
        (random_change(mapped(mappers[0]), 0),),
        (random_change(mapped(mappers[0]), 1),),
        (follow(models[0], SITE, SITE),),
        (follow(models[1], SITE, SITE),),
        (follow(models[0], SITE, SITE, mappers[0], amount=0.5),),
    ]
    keys = [setting_key(setting) for setting in settings]
    assert [k for k, key in enumerate(keys) if key is None or key in keys[:k]] == [], "known, and each another"
    assert setting_key((add(vector, 1.0),)) == keys[1]
    for unknown in (Intervention(SITE, lambda a: a), add(vector, 1.0, lambda layout: layout.real), add(vector).when(vector)):
        assert setting_key((unknown,)) is None


def test_an_evaluator_answers_from_the_folder(models, cats, tmp_path, monkeypatch):
    target = models[1]
    vector = it.extract(target, cats.contrast("train"), SITE)
    settings = [(add(vector, x, cats.positions),) for x in (0.5, 1.0, 2.0)]

    def judged(task: it.Task, n: int = 6) -> list[Condition]:
        kept = evaluator(target, task, "test", n=n, clean_prompts=n, kept=Kept(tmp_path))
        return kept.judge_each([(), *settings], [0.0, 0.5, 1.0, 2.0], progress=False)

    first = judged(cats)
    plain = evaluator(target, cats, "test", n=6, clean_prompts=6).judge_each([(), *settings], [0.0, 0.5, 1.0, 2.0])
    assert [c.completions for c in first] == [c.completions for c in plain]
    for ours, theirs in zip(first, plain, strict=True):
        assert ours.kl == pytest.approx(theirs.kl, abs=1e-6)

    def work(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("it was computed again")

    for name in ("completions.generate", "evaluator.generate_tokens", "clean_kl.teacher_forced_each"):
        monkeypatch.setattr(f"interp_transfer.evaluation.{name}", work)
    assert judged(cats) == first
    for task, n in ((cats, 5), (replace(cats, max_new_tokens=2), 6)):
        with pytest.raises(AssertionError, match="computed again"):
            judged(task, n)
