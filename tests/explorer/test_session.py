"""A session's texts are those of ``generate``, its numbers those of the toolkit, its code does the same."""

from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.escape import visible
from interp_transfer.explorer import live
from interp_transfer.explorer.made import Made, program
from interp_transfer.explorer.opening import session
from interp_transfer.explorer.session import Session
from interp_transfer.features.probes import fit_probe
from interp_transfer.interventions.hooks import applied
from interp_transfer.models.tokens import tokenize
from interp_transfer.vectors.controls import random_vectors
from tests.checkpoints import hooks_of
from tests.explorer.conftest import SITE, STRONG, THERE, events, of, options, texts, vector_of
from tests.torture.outputs import run_folder

PROMPT = "the cat"


def generated(model: Any, prompt: Any, *steer: Any) -> str:
    return visible(it.generate(model, [prompt], *steer, max_new_tokens=8, progress=False)[0])


def test_both_models_with_and_without_the_vector(cats: Session, a: Any, b: Any, task: it.Task) -> None:
    found = events(cats, prompt=PROMPT, example=None, strength=STRONG, colour="")
    vector = it.extract(a, task.contrast("train"), SITE)
    pairs = it.collect(a, b, task.texts("train"), SITE, THERE)
    moved = it.fit(pairs, "affine", models=(a, b)).transfer(vector)
    assert texts(found) == {
        "source, unsteered": generated(a, PROMPT),
        "source, vector x 40": generated(a, PROMPT, vector.add(STRONG)),
        "target, unsteered": generated(b, PROMPT),
        "target, moved x 40": generated(b, PROMPT, moved.add(STRONG)),
    }
    assert len(set(texts(found).values())) > 2
    assert [event["type"] for event in found if event["type"] not in ("text", "end")] == [*["status"] * 3, "start", "finished"]
    assert {event["panel"] for event in of("end", found)} == set(texts(found))
    assert cats.last["texts"] == texts(found) and cats.state.strength == STRONG
    assert not hooks_of(a) and not hooks_of(b)


def test_moved_native_and_random_vectors(cats: Session, b: Any, task: it.Task) -> None:
    said = texts(events(cats, prompt=PROMPT, example=None, strength=STRONG, view="vectors", colour=""))
    made = cats.items["cats"].vectors({"source": SITE, "target": THERE}, lambda _: None)
    moved, native = made["target"].value, it.extract(b, task.contrast("train"), THERE)
    [random] = random_vectors(moved, 1)
    assert random.norm == pytest.approx(moved.norm)
    steers = {"unsteered": [], "moved": [moved.add(STRONG)], "native": [native.add(STRONG)], "random": [random.add(STRONG)]}
    want = {f"target, {name}{' x 40' if steer else ''}": generated(b, PROMPT, *steer) for name, steer in steers.items()}
    assert said == want


def test_the_code_does_what_is_shown(cats: Session, a: Any, b: Any, task: it.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = {it.identity(a).name: a, it.identity(b).name: b}
    monkeypatch.setattr(it, "load_model", lambda name, **_: loaded[name])
    monkeypatch.setattr(it, "load_task", lambda name, **_: task)
    for settings in (
        {"prompt": 'it\'s "so" \\ \n{x}', "strength": STRONG},
        {"prompt": PROMPT, "strength": -3.25, "positions": "generated", "view": "vectors", "max_new_tokens": 5},
        {"prompt": PROMPT, "source_block": 1, "target_block": 3, "strength": STRONG},
    ):
        found = events(cats, **{"example": None, "colour": "", **settings})
        names: dict[str, Any] = {}
        exec(of("start", found)[0]["code"], names)
        assert {name: visible(text) for name, text in names["completions"].items()} == texts(found)


def test_another_site_is_extracted_anew(cats: Session, a: Any, task: it.Task) -> None:
    found = events(cats, prompt=PROMPT, example=None, source_block=1, strength=STRONG, colour="")
    vector = it.extract(a, task.contrast("train"), "blocks.1.hook_resid_pre")
    assert texts(found)["source, vector x 40"] == generated(a, PROMPT, vector.add(STRONG))
    assert ["blocks.1.hook_resid_pre" in panel["at"] for panel in of("start", found)[0]["panels"]] == [False, True, False, True]
    again = events(cats, prompt=PROMPT, example=None, source_block=1, strength=STRONG, colour="")
    assert not of("status", again)  # it is kept
    assert "block 9 of the source" in of("error", events(cats, source_block=9))[0]["text"]


def test_a_vector_without_a_task_stays_where_it_is(a: Any, vector: it.SteeringVector) -> None:
    own = session(a, {"mine": vector})
    [item] = own.about()["items"]
    assert item["sites"]["source"]["block"] == 2
    assert "belongs to blocks.2.hook_resid_pre; with a task" in item["sites"]["source"]["fixed"]
    said = texts(events(own, prompt=PROMPT, example=None, chat=False, source_block=1, strength=2.0, max_new_tokens=8))
    assert said == {"unsteered": generated(a, PROMPT), "vector x 2": generated(a, PROMPT, vector.add(2.0))}


def test_what_was_generated_is_not_generated_again(cats: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    first = texts(events(cats, prompt=PROMPT, example=None, colour=""))
    monkeypatch.setattr("interp_transfer.explorer.session.Generation", None)
    found = events(cats, prompt=PROMPT, example=None, colour="projection")
    assert texts(found) == first and len(of("tokens", found)) == 4
    assert of("error", events(cats, prompt="another", example=None))


def test_projection_is_that_of_the_vectors_plot(a: Any, vector: it.SteeringVector) -> None:
    own = session(a, {"mine": vector})
    found = events(own, prompt=PROMPT, example=None, chat=False, colour="projection", max_new_tokens=8)
    [_, steered] = of("tokens", found)
    values = [token["value"] for token in steered["prompt"]]
    assert values == pytest.approx(vector.plot(a, [PROMPT]).values[0], rel=1e-3)
    acts = it.capture(a, [PROMPT], SITE)[SITE].float() @ (vector.direction / vector.norm)
    assert values == pytest.approx(acts.tolist(), rel=1e-3) and steered["tokens"]
    assert "".join(token["text"] for token in steered["prompt"]) == PROMPT


def test_a_probe_colours_the_tokens_of_its_model(a: Any, task: it.Task) -> None:
    probe = fit_probe(a, task.contrast("train"), SITE)
    own = session(a, {"is cat": probe})
    assert own.about()["readings"] == ["projection", "change", "probe: is cat"]
    found = events(own, prompt=PROMPT, example=None, chat=False, colour="probe: is cat", max_new_tokens=3)
    values = [token["value"] for token in of("tokens", found)[0]["prompt"]]
    assert values == pytest.approx(probe(it.capture(a, [PROMPT], SITE)[SITE]).tolist(), rel=1e-3)
    [right] = it.generate(a, [PROMPT], it.add(probe), max_new_tokens=3, progress=False)
    assert texts(found)["vector x 1"] == visible(right)


def test_with_a_task_a_probe_is_fitted_at_the_site(cats: Session, b: Any, task: it.Task) -> None:
    colour = "probe: fitted on the contrast"
    assert colour in cats.about()["readings"]
    found = events(cats, prompt=PROMPT, example=None, colour=colour, max_new_tokens=3)
    probe = fit_probe(b, task.contrast("train"), THERE)
    values = [token["value"] for token in of("tokens", found)[3]["prompt"]]
    assert values == pytest.approx(probe(it.capture(b, [PROMPT], THERE)[THERE]).tolist(), rel=1e-3)


def test_change_is_the_divergence_of_the_two_predictions(a: Any, vector: it.SteeringVector) -> None:
    own = session(a, {"mine": vector})
    found = events(own, prompt=PROMPT, example=None, chat=False, colour="change", strength=3.0, max_new_tokens=4)
    [plain, steered] = of("tokens", found)
    tokens = steered["prompt"] + steered["tokens"]
    read = torch.tensor(tokenize(a, [PROMPT]))
    with torch.no_grad():
        before = a(read)[0].log_softmax(-1)
        with applied(a, vector.add(3.0)):
            after = a(read)[0].log_softmax(-1)
    kl = (before.exp() * (before - after)).sum(-1)
    assert tokens[0]["value"] is None and "changes" not in tokens[0]
    n = read.shape[1]
    assert [token["value"] for token in tokens[1:n]] == pytest.approx(kl[:-1].tolist(), rel=1e-2, abs=1e-5)
    moved = (after.exp() - before.exp()).abs()
    for k, token in enumerate(tokens[1:n]):
        name, was, now = token["changes"][0]
        top = int(moved[k].argmax())
        assert (was, now) == pytest.approx((float(before[k, top].exp()), float(after[k, top].exp())), abs=1e-3)
        assert isinstance(name, str) and len(token["changes"]) == 5
    assert [t["value"] for t in plain["prompt"]][1:] == [t["value"] for t in tokens[1:n]]  # the same text, the same change


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"strength": float("nan")}, "strength=nan"),
        ({"strength": 1e9}, "give a number from"),
        ({"strength": "1"}, "strength"),
        ({"item": "dogs"}, "unknown vector 'dogs'"),
        ({"prompt": " ", "example": None}, "the prompt is empty"),
        ({"prompt": "a\ud800", "example": None}, "half of a surrogate pair"),
        ({"prompt": "x" * 50_000, "example": None}, "shorten it"),
        ({"prompt": "x y " * 200, "example": None}, "the model's context is 96"),
        ({"example": 99}, "there is no example 99"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_new_tokens": 95}, "shorten the prompt or max_new_tokens"),
        ({"view": "all"}, "there are models, vectors"),
        ({"positions": "frist"}, "unknown positions"),
        ({"colour": "red"}, "unknown colour"),
        ({"colour": "probe: none"}, "unknown probe"),
        ({"what": 1}, "what"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], hint: str, cats: Session, a: Any) -> None:
    found = events(cats, **settings)
    assert any(hint in event["text"] for event in of("error", found)) and "\n" not in of("error", found)[0]["text"]
    assert not hooks_of(a)
    assert of("finished", events(cats, colour=""))  # it stays usable


@pytest.mark.parametrize("message", [None, 1, [], {}, {"type": "no"}, {"type": "run"}, {"type": "run", "state": 3, "run": {}}])
def test_messages_that_are_none(message: Any, cats: Session) -> None:
    found: list[dict[str, Any]] = []
    cats.handle(message, found.append)
    assert found[-1]["type"] in ("error", "finished")


def test_one_panel_that_fails_leaves_the_others(a: Any, vector: it.SteeringVector) -> None:
    broken = it.SteeringVector(vector.direction * float("inf"), SITE, it.identity(a))
    own = session(a, {"broken": broken})
    found = events(own, prompt=PROMPT, example=None, chat=False, colour="", max_new_tokens=8)
    [error] = of("error", found)
    assert error["panel"] == "vector x 1" and "NaN or infinity" in error["text"]
    assert texts(found)["unsteered"] == generated(a, PROMPT) and of("finished", found)
    assert not hooks_of(a)


def test_a_run_is_stopped_between_two_tokens(cats: Session, a: Any) -> None:
    calls = iter(range(100))
    found = events(cats, lambda: next(calls) > 3, prompt="stop", example=None)
    assert found[-1]["type"] == "stopped" and not of("finished", found) and not hooks_of(a)


def test_a_model_that_is_too_slow_shows_completions_made_before(
    a: Any, vector: it.SteeringVector, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(live, "LIVE_SECONDS", 0.0)
    folder = run_folder(tmp_path, ["where?", "who?", *map(str, range(12))])
    own = session(a, {"mine": vector})
    assert "too large for live use" in own.about()["slow"] and "give its path" in own.about()["slow"]
    assert "too large for live use" in of("error", events(own))[0]["text"]
    from interp_transfer.explorer.kept import KeptCompletions

    own.kept = KeptCompletions.read(folder)
    assert [prompt["text"] for prompt in own.about()["prompts"][:2]] == ["where?", "who?"]
    found = events(own, example=1)
    assert texts(found) == {name: "who?" for name in ("unsteered", "native", "moved", "random")}
    assert "there is no prompt 77" in of("error", events(own, example=77))[0]["text"]
    assert not session(a, {"mine": vector}, options=options(live=True)).slow


def test_a_model_far_too_large_is_not_even_timed(a: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "parameter_count", lambda _: 10**12)
    monkeypatch.setattr(live, "huggingface_model", None)
    assert "takes about 50 s" in live.too_slow(a)


def test_a_program_makes_each_value_once_and_gives_two_of_a_name_two_variables() -> None:
    one = Made(1, "x", lambda: "1")
    two = Made(2, "x", lambda a: f"{a} + 1", (one,))
    three = Made(3, "x", lambda a, b: f"{a} + {b}", (one, two), ("import math",))
    names: dict[str, Any] = {}
    code = program([three, one], lambda last, first: [f"both = [{last}, {first}]"])
    exec(code, names)
    assert names["both"] == [3, 1] and code.count(" = 1\n") == 1 and code.startswith("import math\n")


def test_numbers_in_the_code_are_exact(a: Any, b: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: dict[str, Any] = {it.identity(a).name: a, it.identity(b).name: b}
    monkeypatch.setattr(it, "load_model", lambda name, **_: loaded[name])
    own = session(a, b, {"of a": vector_of(a), "of b": vector_of(b, THERE)})
    for item in ("of a", "of b"):
        found = events(own, item=item, prompt=PROMPT, example=None, chat=False, strength=4.0, max_new_tokens=8)
        names: dict[str, Any] = {}
        exec(of("start", found)[0]["code"], names)
        assert {name: visible(text) for name, text in names["completions"].items()} == texts(found)
        assert len(texts(found)) == 3


def test_hello_says_what_there_is(cats: Session) -> None:
    found: list[dict[str, Any]] = []
    cats.handle({"type": "hello"}, found.append)
    about = found[0]["about"]
    assert list(about["models"]) == ["source", "target"] and about["models"]["source"]["blocks"] == 4
    assert about["items"][0]["sites"] == {"source": {"block": 2, "fixed": ""}, "target": {"block": 1, "fixed": ""}}
    assert about["state"]["item"] == "cats" and about["positions"] == ["all", "prompt", "generated", "last"]
    assert about["slow"] == "" and about["last"] is None and about["prompts"]
