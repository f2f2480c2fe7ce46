"""A steered model in Inspect: its answers are those of ``generate``, and the log has them."""

import asyncio
import gc
import importlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log
from inspect_ai.model import ChatMessageTool, ChatMessageUser, ContentImage, ContentReasoning, GenerateConfig, get_model
from inspect_ai.scorer import includes
from inspect_ai.tool import ToolInfo

import interp_transfer as it
from interp_transfer.deployment import inspect_provider
from interp_transfer.deployment.inspect_provider import PROVIDER, inspect_model
from interp_transfer.interventions.generation import generate_tokens
from tests.checkpoints import WIDTH, hooked_transformer, make_checkpoint, word_tokenizer

TEMPLATE = "{% for m in messages %}{{ m.role[0] + ': ' + m.content + '\n' }}{% endfor %}"
WORDS = tuple("the cat sat on a mat and dogs run far from home they say x 12 + 7 u: s: a: be so it is now".split())  # noqa: SIM905
# Of inspect_ai, which uses an older name of tenacity's parameter and leaves streams of anyio open.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:(.|\n)*multiplier:DeprecationWarning"),
    pytest.mark.filterwarnings(r"ignore:(.|\n)*MemoryObject:pytest.PytestUnraisableExceptionWarning"),
]
QUESTIONS = ["the cat sat", "x", "dogs run far from home", "they say it is"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = word_tokenizer(WORDS)
    tokenizer.chat_template = TEMPLATE
    return make_checkpoint(tmp_path_factory.mktemp("m") / "words", "llama", tokenizer=tokenizer, eos_token_id=33)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    return it.load_model(str(checkpoint), device="cpu")


@pytest.fixture(scope="module")
def vector(model: Any) -> it.SteeringVector:
    direction = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    return it.SteeringVector(direction, "blocks.2.hook_resid_pre", it.identity(model))


def chat(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def outputs(model: Any, folder: Path, **options: Any) -> Any:
    """The log of a tiny task, written and read back."""
    task = Task(dataset=[Sample(input=question, target="cat") for question in QUESTIONS], scorer=includes())
    [log] = eval(task, model=model, log_dir=str(folder), display="none", max_tokens=12, **options)
    log = read_eval_log(log.location)
    gc.collect()  # the streams that are left open, before another test finds them
    assert log.status == "success", log.error
    return log


def test_the_log_has_the_answers_of_generate(model: Any, vector: it.SteeringVector, tmp_path: Path) -> None:
    texts = {}
    for name, interventions in {"unsteered": (), "steered": (vector.add(1.5),), "ablated": (vector.ablate(),)}.items():
        log = outputs(inspect_model(model, *interventions), tmp_path / name)
        texts[name] = [sample.output.completion for sample in log.samples]
        asked = [chat(question) for question in QUESTIONS]
        assert texts[name] == it.generate(model, asked, *interventions, max_new_tokens=12, progress=False)
        ids = generate_tokens(model, asked, *interventions, max_new_tokens=12, progress=False)
        for sample, row in zip(log.samples, ids, strict=True):
            assert sample.output.stop_reason == ("stop" if row[-1] == 33 else "max_tokens")
            assert sample.output.usage.output_tokens == len(row)
        assert log.eval.model_args["fingerprint"] == it.identity(model).fingerprint
        assert len(log.eval.model_args["interventions"]) == len(interventions)
        assert log.results.total_samples == len(QUESTIONS)
    assert texts["unsteered"] != texts["steered"] != texts["ablated"]


def test_a_model_by_its_name(checkpoint: Path, vector: it.SteeringVector, tmp_path: Path) -> None:
    file = vector.save(tmp_path / "v.safetensors", strength=2.0)
    model = it.load_model(str(checkpoint), device="cpu")
    for args, strength in (({"vector": str(file), "strength": 1.5}, 1.5), ({"vector": str(file)}, 2.0), ({}, 0.0)):
        log = outputs(f"{PROVIDER}/{checkpoint}", tmp_path / str(strength), model_args={"device": "cpu", **args})
        texts = [sample.output.completion for sample in log.samples]
        asked = [chat(question) for question in QUESTIONS]
        assert texts == it.generate(model, asked, vector.add(strength), max_new_tokens=12, progress=False)


def test_what_is_named_wrongly_is_refused(checkpoint: Path, vector: it.SteeringVector, tmp_path: Path) -> None:
    file = str(vector.save(tmp_path / "v.safetensors"))

    def load(**args: Any) -> Any:
        return get_model(f"{PROVIDER}/{checkpoint}", memoize=False, device="cpu", **args)

    for strength in (float("nan"), float("inf"), "a", True):
        with pytest.raises(ValueError, match="give a finite number"):
            load(vector=file, strength=strength)
    with pytest.raises(ValueError, match="without a vector"):
        load(strength=1.0)
    with pytest.raises(ValueError, match="no such file|there is no|cannot"):
        load(vector=str(tmp_path / "nothing.safetensors"))
    with pytest.raises(ValueError, match="cannot stream"):
        inspect_model(hooked_transformer(checkpoint))


def ask(model: Any, question: Any, tools: Any = (), **config: Any) -> Any:
    return asyncio.run(model.api.generate(question, list(tools), "auto", GenerateConfig(**config)))


def test_stops_lengths_and_sampling(model: Any) -> None:
    steered, user = inspect_model(model), [ChatMessageUser(content="dogs run")]
    [whole] = it.generate(model, [chat("dogs run")], max_new_tokens=30, progress=False)
    stop = whole[20:27]
    output = ask(steered, user, max_tokens=30, stop_seqs=[stop])
    assert output.completion == whole[: whole.index(stop)] and output.stop_reason == "stop"
    assert ask(steered, user, max_tokens=5000).stop_reason in ("model_length", "stop")
    too_long = ask(steered, [ChatMessageUser(content="the cat " * 100)])
    assert too_long.stop_reason == "model_length" and "context is 96" in too_long.error
    draws = [ask(steered, user, max_tokens=20, temperature=1.0, seed=seed).completion for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_what_a_steered_model_does_not_know_is_refused(model: Any) -> None:
    steered, user = inspect_model(model), [ChatMessageUser(content="dogs run")]
    for name, value in (("num_choices", 2), ("logprobs", True), ("top_k", 5), ("frequency_penalty", 0.5)):
        with pytest.raises(ValueError, match=f"{name}="):
            ask(steered, user, **{name: value})
    assert ask(steered, user, num_choices=1, frequency_penalty=0.0, max_tokens=2).completion
    with pytest.raises(ValueError, match="1 tools"):
        ask(steered, user, [ToolInfo(name="t", description="d")])
    with pytest.raises(ValueError, match="reads text alone"):
        ask(steered, [ChatMessageTool(content="a")])
    with pytest.raises(ValueError, match="image"):
        ask(steered, [ChatMessageUser(content=[ContentImage(image="a.png")])])


@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "answer"),
    [
        ("so", False, None, "so"),
        ("<think>\nwhy\n</think>\n\nso", False, "why", "so"),
        ("why\n</think>\n\nso", True, "why", "so"),
        ("\n\n</think>\n\nso", True, None, "so"),
        ("<think>why", False, "why", ""),
        ("why", True, "why", ""),
        ("a </think> b", False, None, "a </think> b"),
    ],
)
def test_reasoning_is_kept_apart(text: str, opened: bool, reasoning: str | None, answer: str) -> None:
    content = inspect_provider._content(text, opened)
    if isinstance(content, str):
        assert (reasoning, answer) == (None, content)
        return
    found = [part.reasoning for part in content if isinstance(part, ContentReasoning)]
    assert found == ([] if reasoning is None else [reasoning]) and content[-1].text == answer


def test_the_entry_point_leads_here() -> None:
    known = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["entry-points"]
    assert importlib.import_module(known["inspect_ai"][PROVIDER]) is inspect_provider


@pytest.mark.slow
def test_the_command_line_of_inspect(checkpoint: Path, vector: it.SteeringVector, model: Any, tmp_path: Path) -> None:
    file = vector.save(tmp_path / "v.safetensors")
    (tmp_path / "task.py").write_text(
        "from inspect_ai import Task, task\nfrom inspect_ai.dataset import Sample\nfrom inspect_ai.scorer import includes\n"
        f"@task\ndef words():\n    samples = [Sample(input=question, target='cat') for question in {QUESTIONS!r}]\n"
        "    return Task(dataset=samples, scorer=includes())\n"
    )
    metadata = tmp_path / "site" / "entry-0.dist-info"  # as an installed package has it
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: entry\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(f"[inspect_ai]\n{PROVIDER} = {inspect_provider.__name__}\n")
    root = Path(__file__).parents[2]
    command = ["eval", "task.py", "--model", f"{PROVIDER}/{checkpoint}", "-M", f"vector={file}", "-M", "strength=1.5"]
    done = subprocess.run(
        [sys.executable, "-m", "inspect_ai", *command, "--max-tokens", "12", "--log-dir", "logs", "--display", "none"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(tmp_path / "site")]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    [file] = (tmp_path / "logs").iterdir()
    assert done.returncode == 0, done.stderr
    log = read_eval_log(str(file))
    texts = [sample.output.completion for sample in log.samples or []]
    asked = [chat(question) for question in QUESTIONS]
    assert texts == it.generate(model, asked, vector.add(1.5), max_new_tokens=12, progress=False)
    assert json.dumps(log.eval.model_args).count("1.5") == 1
