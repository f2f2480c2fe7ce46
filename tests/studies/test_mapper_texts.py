"""Texts that mappers are fitted on: given, the task's own, or generated; and where their pairs are kept."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.io import cache_folder
from interp_transfer.mapping.stored import StoredPairs
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.plugins import KnownModel
from interp_transfer.prompts.chats import Chat
from interp_transfer.studies import texts
from interp_transfer.studies.texts import answered, discard, given_texts, mapper_texts, paired, tokens_wanted, training_prompts
from tests.checkpoints import make_checkpoint
from tests.registered import SITE
from tests.studies.conftest import QUICK

PROMPTS = [f"the cat {i} sat" for i in range(150)]
PAIRS = [(f"the cat {i} sat", f"the dog {i} sat") for i in range(40)]
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of prompts of each call of `generate`."""
    counts: list[int] = []

    def counted(model: Any, prompts: Any, **options: Any) -> list[str]:
        counts.append(len(prompts))
        return it.generate(model, prompts, **options)

    monkeypatch.setattr(texts, "generate", counted)
    return counts


def test_a_prompt_is_followed_by_the_models_own_answer(models: Any) -> None:
    whole = answered(models[0], PROMPTS[:5], 10**6, 4)
    assert whole == [p + a for p, a in zip(PROMPTS, it.generate(models[0], PROMPTS[:5], max_new_tokens=4), strict=False)]


def test_answers_end_with_the_portion_that_reaches_the_tokens(models: Any, asked: list[int]) -> None:
    whole = answered(models[0], PROMPTS, 65 * 5, 2)
    assert answered(models[0], PROMPTS, 65 * 5, 2, progress=False) == whole, "a bar that is off counts too"
    assert len(whole) == 64 and asked == [64]
    assert sum(map(len, tokenize(models[0], whole))) >= 65 * 5
    assert len(answered(models[0], PROMPTS, 10**6, 2)) == len(PROMPTS) and asked == [64, 64, 22]


def test_answers_are_kept_by_model_prompts_and_length(models: Any, asked: list[int], cache: Path) -> None:
    first = answered(models[0], PROMPTS[:3], 10**6, 2)
    assert answered(models[0], PROMPTS[:3], 10**6, 2) == first and asked == [3]
    answered(models[1], PROMPTS[:3], 10**6, 2)
    answered(models[0], PROMPTS[:4], 10**6, 2)
    answered(models[0], PROMPTS[:3], 10**6, 3)
    assert asked == [3, 3, 4, 3]
    for file in (cache / "texts").iterdir():
        file.write_text(file.read_text()[:-9])
    assert answered(models[0], PROMPTS[:3], 10**6, 2) == first and asked == [3, 3, 4, 3, 3], "a damaged file is made anew"


def test_a_killed_run_resumes_after_its_last_portion(models: Any, monkeypatch: pytest.MonkeyPatch, asked: list[int]) -> None:
    expected = answered(models[0], PROMPTS, 10**6, 3)
    for file in (cache_folder() / "texts").iterdir():
        file.unlink()
    asked.clear()
    counted = texts.generate

    def killed(model: Any, prompts: Any, **options: Any) -> list[str]:
        if asked:
            raise KeyboardInterrupt
        return counted(model, prompts, **options)

    monkeypatch.setattr(texts, "generate", killed)
    with pytest.raises(KeyboardInterrupt):
        answered(models[0], PROMPTS, 10**6, 3)
    monkeypatch.setattr(texts, "generate", counted)
    assert answered(models[0], PROMPTS, 10**6, 3) == expected
    assert asked == [64, 64, 22]


def test_what_cannot_be_answered_or_kept_is_refused(models: Any, cache: Path) -> None:
    long = "x" * 90
    assert len(answered(models[0], [long, *PROMPTS[:2]], 10**6, 8)) == 2
    with pytest.raises(ValueError, match="no prompt leaves room for 8 new tokens"):
        answered(models[0], [long], 10**6, 8)
    shutil.rmtree(cache)
    cache.write_text("a file where the folder should be")
    with pytest.raises(ValueError, match="cannot keep answers in .*set XDG_CACHE_HOME"):
        answered(models[0], PROMPTS[:2], 10**6, 2)


def test_prompts_alone_get_answers_and_whole_texts_are_left_as_they_are(models: Any, cats: it.Task) -> None:
    task = it.Task.from_pairs(PAIRS, "lacks:dog", max_new_tokens=3)
    read = mapper_texts(task, models)
    prompts = training_prompts(task, 0)
    assert set(prompts) == {side for pair in task.contrast("train") for side in (pair.positive, pair.negative)}
    assert all(str(text).startswith(str(prompt)) for text, prompt in zip(read.texts, prompts, strict=True))
    assert read.origin == f"{len(prompts)} training prompts of the task, with answers by {it.identity(models[1]).name}"
    assert mapper_texts(task, models, "task").texts == task.texts("train")
    assert mapper_texts(cats, models).texts == cats.texts("train"), "they have right answers"
    assert mapper_texts(cats, models, "generated").texts != cats.texts("train")
    own = it.Task.from_pairs(PAIRS, "lacks:dog", texts=["a text", "another"])
    assert mapper_texts(own, models).texts == ["a text", "another"]


def test_texts_that_cannot_be_read_name_the_other_source(models: Any, cats: it.Task) -> None:
    def unreachable(split: str) -> list[str]:
        raise ValueError(f"no network for the {split} texts")

    task = replace(cats, texts=unreachable)
    for call in (lambda: mapper_texts(task, models), lambda: tokens_wanted(task, models, None, None)):
        with pytest.raises(ValueError, match="no network for the train texts; or fit .*--texts generated"):
            call()


@pytest.mark.usefixtures("registered")
def test_models_that_a_plugin_knows_read_the_tasks_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = it.Task.from_pairs(PAIRS, "lacks:dog")
    known = it.load_model("tiny-b", device="cpu")
    monkeypatch.setattr(texts, "generate", None)
    assert mapper_texts(task, (known, known)).texts == task.texts("train")
    monkeypatch.setattr(texts, "known_model", lambda _: KnownModel("tiny-b", tmp_path, fetched=True))
    with pytest.raises(TypeError, match="NoneType"):  # it would generate
        mapper_texts(task, (known, known))


def test_too_few_chats_are_joined_by_ready_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = it.load_model(make_checkpoint(tmp_path / "m", "llama", max_position_embeddings=256), device="cpu")
    tokenizer_of(model).chat_template = TEMPLATE
    monkeypatch.setattr(texts, "TOKENS", 4000)
    pairs = [tuple([{"role": "user", "content": side}] for side in pair) for pair in PAIRS[:8]]
    task = it.Task.from_pairs({"train": pairs}, "lacks:dog", max_new_tokens=2)
    read = mapper_texts(task, (model, model))
    own, more = read.texts[:16], read.texts[16:]
    assert {str(text)[:8] for text in own} == {"user: th"} and more and all(isinstance(text, Chat) for text in more)
    assert f"16 training prompts of the task and {len(more)} ready questions" in read.origin
    assert sum(map(len, tokenize(model, read.texts))) >= 4000
    collected = paired((model, model), read.texts, (SITE, SITE), "last_so_far", progress=False)
    assert len(collected) > 4000


def test_texts_may_be_given(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("one\ntwo\n")
    for name in (None, "task", "generated"):
        assert given_texts(name) is None
    read = given_texts(file)
    assert read is not None and (read.texts, read.origin) == (["one", "two"], f"texts of {file}")
    read = given_texts(iter(["one", "two"]))
    assert read is not None and (read.texts, read.origin) == (["one", "two"], "texts that were passed")


def test_pairs_above_a_size_are_in_a_store_until_they_are_discarded(
    models: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = paired(models, PROMPTS[:40], (SITE, SITE), "last_so_far", progress=False)
    assert not (cache / "pairs").exists()
    discard(memory)
    needed = len(memory) * (16 + 24) * 4
    monkeypatch.setattr(texts, "IN_MEMORY", needed)
    assert not isinstance(paired(models, PROMPTS[:40], (SITE, SITE), "last_so_far", progress=False), StoredPairs)
    monkeypatch.setattr(texts, "IN_MEMORY", needed - 1)
    stored = paired(models, PROMPTS[:40], (SITE, SITE), "last_so_far", progress=False)
    assert isinstance(stored, StoredPairs) and stored.store.folder.parent == cache / "pairs"
    assert torch.equal(stored.target[SITE][:], memory.target[SITE])
    assert it.fit(stored, "affine").card.fvu == pytest.approx(it.fit(memory, "affine").card.fvu, abs=1e-4)
    discard(stored)
    assert not list((cache / "pairs").iterdir())


def test_a_run_with_pairs_on_disk_says_what_it_lacks(
    models: Any, cats: it.Task, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "IN_MEMORY", 0)
    plain = (f"the cat {i} sat on {i * 7}" for i in range(400))
    options: dict[str, Any] = {**QUICK, "mapper": "affine", "seeds": 1, "variants": False, "side_effects": False}
    it.run(cats, *models, texts=plain, source_site=SITE, target_site=SITE, out=tmp_path / "run", **options)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["left_out"] == {"shuffled_within_text": "pairs in a store on disk are shuffled across texts only"}
    assert "shuffled" in result["conditions"] and "shuffled_within_text" not in result["conditions"]
    assert (result["texts"]["of"], result["texts"]["n"]) == ("texts that were passed", 400)
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"400, {result['texts']['tokens']:,} token pairs: texts that were passed" in page
    assert not (cache / "pairs").exists() and not list(tmp_path.glob(".*")), "the store lasts as long as the run"


def test_texts_are_read_before_any_work(tmp_path: Path, cats: it.Task) -> None:
    with pytest.raises(ValueError, match="there is no file './nowhere.txt'"):
        it.run(cats, "no-model", "no-model", texts="./nowhere.txt", n=2, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_collect_reads_a_file(models: Any, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("the cat sat\nthe dog ran\n")
    a, b = models
    pairs = it.collect(a, b, file, SITE, SITE, progress=False)
    expected = it.collect(a, b, ["the cat sat", "the dog ran"], SITE, SITE, progress=False)
    assert torch.equal(pairs.target[SITE], expected.target[SITE])
