"""`interp-transfer extract`, `transfer` and `chat`: a vector from a file of pairs to answers of another model."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import interp_transfer as it
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.vectors.exchange import to_gguf
from tests.registered import SITE

pytestmark = pytest.mark.usefixtures("registered")
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture
def vector(call: Any, pairs_file: Path, tmp_path: Path) -> Path:
    """A vector that the command extracted."""
    file = tmp_path / "vector.safetensors"
    code, out, _ = call("extract", "--pairs", pairs_file, "--model", "tiny-a", "--site", SITE, "--out", file, "--json")
    assert code == 0 and json.loads(out)["site"] == SITE
    return file


def test_a_vector_is_extracted_from_the_training_pairs(vector: Path, models: Any, cats: Any) -> None:
    stored = it.SteeringVector.load(vector)
    expected = it.extract(models[0], cats.contrast("train"), SITE)
    assert stored.cosine(expected) == pytest.approx(1.0, abs=1e-5) and stored.norm == pytest.approx(expected.norm, rel=1e-5)


def test_extract_takes_a_task_a_site_and_the_tokens_to_read(call: Any, tmp_path: Path) -> None:
    flags = ["--site", "blocks.1.hook_resid_pre", "--read", "-2", "--direction", "induce", "--out", tmp_path / "v"]
    code, out, _ = call("extract", "cats", "--model", "tiny-a", *flags)
    assert code == 0 and "blocks.1.hook_resid_pre" in out and str(tmp_path / "v") in out
    assert it.SteeringVector.load(tmp_path / "v").positions == "-2"


def test_a_vector_is_moved_through_a_mapper_that_is_fitted_or_stored(call: Any, vector: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"the cat {i} sat on mat {i}" for i in range(40)))
    fitted = ["--target", "tiny-b", "--target-site", SITE, "--texts", texts, "--mapper", tmp_path / "mapper"]
    code, out, _ = call("transfer", vector, *fitted, "--out", tmp_path / "one", "--json")
    assert code == 0
    assert json.loads(out)["model"] == "tiny-b"
    code, out, _ = call("transfer", vector, "--mapper", tmp_path / "mapper", "--out", tmp_path / "two")
    assert code == 0 and "unexplained" in out
    one, two = (it.SteeringVector.load(tmp_path / name) for name in ("one", "two"))
    assert one.cosine(two) == pytest.approx(1.0, abs=1e-6)
    mapper = it.Mapper.load(tmp_path / "mapper")
    assert one.cosine(mapper.transfer(it.SteeringVector.load(vector))) == pytest.approx(1.0, abs=1e-6)


def test_answers_side_by_side(call: Any, vector: Path, models: Any) -> None:
    argv = ["chat", vector, "--plain", "--strength", "1,50", "--max-new-tokens", "4"]
    prompts = ["the dog 1", "the cat 2"]
    code, out, _ = call(*argv, "--prompt", prompts[0], "--prompt", prompts[1], "--json")
    assert code == 0
    answers = json.loads(out)
    loaded = it.SteeringVector.load(vector)
    ways: dict[str, tuple[Any, ...]] = {
        "unsteered": (),
        "vector x 1": (loaded.add(1.0),),
        "vector x 50": (loaded.add(50.0),),
    }
    for name, steer in ways.items():
        expected = it.generate(models[0], prompts, *steer, max_new_tokens=4)
        assert [row["answers"][name] for row in answers] == expected, name
    assert answers[0]["answers"]["unsteered"] != answers[0]["answers"]["vector x 50"]
    code, out, _ = call(*argv, "--prompt", prompts[0])
    assert code == 0 and "unsteered" in out and prompts[0] in out


def test_prompts_come_from_standard_input_and_the_strength_from_the_file(
    call: Any, vector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strong = it.SteeringVector.load(vector).save(tmp_path / "strong", strength=2.5)
    monkeypatch.setattr("sys.stdin", io.StringIO("the dog 1\n\nthe dog 2\n"))
    code, out, _ = call("chat", strong, "--plain", "--max-new-tokens", "2", "--json")
    assert code == 0
    rows = json.loads(out)
    assert [row["prompt"] for row in rows] == ["the dog 1", "the dog 2"]
    assert list(rows[0]["answers"]) == ["unsteered", "strong x 2.5"]


def test_two_files_of_one_name_are_two_ways(call: Any, vector: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = it.SteeringVector.load(vector).save(tmp_path / "other" / vector.name)
    code, out, _ = call("chat", vector, other, "--plain", "--strength", "2", "--prompt", "the dog 1", "--json")
    assert code == 0
    assert list(json.loads(out)[0]["answers"]) == ["unsteered", f"{vector} x 2", f"{other} x 2"]


def test_prompts_are_chats_unless_plain(call: Any, refuses: Any, vector: Path, models: Any, monkeypatch: Any) -> None:
    refuses("no chat template", "chat", vector, "--prompt", "hello")
    tokenizer_of(models[0]).chat_template = TEMPLATE
    try:
        monkeypatch.setattr("interp_transfer.studies.answers.load_model", lambda *_, **__: models[0])
        code, out, _ = call("chat", vector, "--prompt", "hi", "--system", "Be kind.", "--max-new-tokens", "3", "--json")
        [expected] = it.generate(models[0], ["system: Be kind.\nuser: hi\nassistant:"], max_new_tokens=3)
        assert code == 0 and json.loads(out)[0]["answers"]["unsteered"] == expected
    finally:
        tokenizer_of(models[0]).chat_template = None


def test_vectors_of_other_tools_steer(call: Any, refuses: Any, vector: Path, models: Any, tmp_path: Path) -> None:
    loaded = it.SteeringVector.load(vector)
    block = int(SITE.split(".")[1])
    arrays = {str(block - 1): loaded.direction.numpy(), str(block): -loaded.direction.numpy()}
    np.savez(tmp_path / "theirs.npz", **arrays, allow_pickle=False)
    own = to_gguf(loaded, tmp_path / "own.gguf")
    argv = ["--plain", "--prompt", "the dog 1", "--strength", "50", "--max-new-tokens", "4"]
    code, out, _ = call("chat", own, tmp_path / "theirs.npz", "--model", "tiny-a", "--site", SITE, *argv, "--json")
    [expected] = it.generate(models[0], ["the dog 1"], loaded.add(50.0), max_new_tokens=4)
    [unsteered] = it.generate(models[0], ["the dog 1"], max_new_tokens=4)
    answers = {"unsteered": unsteered, "own x 50": expected, "theirs x 50": expected}
    assert code == 0 and json.loads(out)[0]["answers"] == answers and expected != unsteered
    refuses("choose a site of these", "chat", tmp_path / "theirs.npz", "--model", "tiny-a", *argv)
    refuses("give the model", "chat", tmp_path / "theirs.npz", "--site", SITE, *argv)
    refuses("this model has d_model 24", "chat", tmp_path / "theirs.npz", "--model", "tiny-b", "--site", SITE, *argv)


def test_vectors_are_moved_before_they_steer(call: Any, vector: Path, models: Any, tmp_path: Path) -> None:
    pairs = it.collect(models[0], models[1], [f"the cat {i} sat" for i in range(30)], SITE, SITE, progress=False)
    mapper = it.fit(pairs, "affine")
    mapper.save(tmp_path / "mapper")
    flags = ["--mapper", tmp_path / "mapper", "--plain", "--prompt", "the dog", "--strength", "3", "--max-new-tokens", "4"]
    code, out, _ = call("chat", vector, "--model", "tiny-b", *flags, "--json")
    expected = it.generate(models[1], ["the dog"], mapper.transfer(it.SteeringVector.load(vector)).add(3.0), max_new_tokens=4)
    assert code == 0 and json.loads(out)[0]["answers"]["vector x 3"] == expected[0]


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (("extract", "--model", "tiny-a"), "name a task"),
        (("extract", "--pairs", "x.jsonl", "--model", "tiny-a"), "give --site, or --judge to search for one"),
        (("extract", "catts", "--model", "tiny-a"), "did you mean 'cats'"),
        (("extract", "cats", "--model", "tiny-a", "--site", "blocks.9.hook_resid_pre"), "4 blocks"),
        (("extract", "cats", "--model", "tiny-a", "--method", "pcaa"), "pca"),
        (("transfer", "nowhere", "--mapper", "m"), "there is no file 'nowhere'"),
        (("transfer", "VECTOR", "--mapper", "no-mapper"), "there is no mapper in 'no-mapper'"),
        (("transfer", "VECTOR", "--mapper", "m", "--texts", "x.txt"), "name its --target too"),
        (("transfer", "VECTOR", "--mapper", "m", "--target", "tiny-b"), "give --target-site and --texts"),
        (("transfer", "VECTOR", "--mapper", "m", "--target", "tiny-b", "--target-site", "9", "--texts", "x.txt"), "4 blocks"),
        (
            ("transfer", "VECTOR", "--mapper", "m", "--target", "tiny-b", "--target-site", SITE, "--texts", "x.txt"),
            "there is no file 'x.txt'",
        ),
        (("chat", "nowhere", "--prompt", "x"), "there is no file 'nowhere'"),
        (("chat", "VECTOR", "--prompt", "x", "--plain", "--model", "tiny-b"), "tiny-a"),
        (("chat", "VECTOR", "--prompt", "x", "--plain", "--system", "s"), "leave out one of the two"),
        (("chat", "VECTOR", "--prompt", "x", "--max-new-tokens", "0"), "max_new_tokens=0"),
        (("chat", "VECTOR", "--prompt", "x", "--strength", "big"), "--strength: 'big' is no number"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    refuses: Any, vector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], hint: str
) -> None:
    empty = tmp_path / "here"
    empty.mkdir()
    monkeypatch.chdir(empty)
    refuses(hint, *(vector if arg == "VECTOR" else arg for arg in argv))
    assert not list(empty.iterdir())


def test_a_file_that_exists_is_left_alone(refuses: Any, vector: Path) -> None:
    before = vector.read_bytes()
    refuses("exists: choose another file", "extract", "cats", "--model", "tiny-a", "--out", vector)
    refuses("exists: choose another file", "transfer", vector, "--mapper", "m", "--out", vector)
    assert vector.read_bytes() == before
