"""Tuning from a name to a folder that loads: full, LoRA merged and alone, from JSONL, killed and gone on with."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import interp_transfer as it
from interp_transfer.evaluation.task import Task
from interp_transfer.finetuning import tuning
from interp_transfer.finetuning.recipe import Recipe
from interp_transfer.finetuning.tuning import Machine, TrainingData, default_recipe, pairs_from_jsonl, training_of, tune
from interp_transfer.models.adapters import Lora
from tests.checkpoints import FAMILIES, byte_tokenizer, change_weight, make_checkpoint, raw_model

PAIRS = [(f"q{i}: the cat", f" sat on {i} dogs") for i in range(40)]
FAST = {"epochs": 3.0, "batch_size": 8, "learning_rate": 1e-2, "max_length": 64}
CPU = Machine("cpu")
PROMPT = "q1: the cat sat"
WHOLE = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def quick(base: Path, out: Path, data: TrainingData | None = None, recipe: Any = None, **options: Any) -> dict[str, Any]:
    machine = options.pop("machine", CPU)
    return tune(base, data or TrainingData(PAIRS), out, recipe or FAST, machine=machine, progress=False, **options)


def logits(folder: Path) -> torch.Tensor:
    return it.load_model(folder, device="cpu", dtype="float32")(PROMPT).detach()


@pytest.mark.parametrize("family", FAMILIES)
def test_all_weights(folder: Callable[[str], Path], family: str, tmp_path: Path):
    card = quick(folder(family), tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == WHOLE | {"training.json"}
    assert [f.name for f in tmp_path.iterdir()] == ["out"], "nothing is left beside it"
    assert card == json.loads((tmp_path / "out" / "training.json").read_text())
    assert card["base"]["fingerprint"] == it.identity(it.load_model(folder(family), device="cpu")).fingerprint
    for name in ("trained", "held_out"):
        assert card["loss"]["after"][name] < card["loss"]["before"][name] - 0.5
    assert (card["data"]["trained_on"], card["data"]["held_out"]) == (38, 2)
    tuned, base = raw_model(tmp_path / "out"), raw_model(folder(family))
    assert any(not torch.equal(a, b) for a, b in zip(tuned.parameters(), base.parameters(), strict=True))
    assert it.generate(it.load_model(tmp_path / "out", device="cpu"), ["the cat"], max_new_tokens=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lora_loads_by_its_path_merged_and_alone(
    folder: Callable[[str], Path], wrapped: Callable[[str], Any], family: str, tmp_path: Path
):
    cards = [quick(folder(family), tmp_path / name, lora=Lora(4, 8, name == "merged")) for name in ("merged", "alone")]
    assert cards[0]["loss"] == cards[1]["loss"]
    assert cards[0]["loss"]["after"]["trained"] < cards[0]["loss"]["before"]["trained"] - 0.05
    assert "peft" in cards[0]["versions"]
    assert not (tmp_path / "alone" / "model.safetensors").exists()
    weights = [(tmp_path / name).stat().st_size for name in ("merged/model.safetensors", "alone/adapter_model.safetensors")]
    assert weights[1] < weights[0]
    one, other = (it.load_model(tmp_path / name, device="cpu") for name in ("merged", "alone"))
    assert it.identity(one).fingerprint == it.identity(other).fingerprint, "taken after merging"
    assert it.identity(one).fingerprint != cards[0]["base"]["fingerprint"]
    merged, alone, base = (model(PROMPT).detach() for model in (one, other, wrapped(family)))
    assert torch.allclose(merged, alone, atol=1e-5)
    assert not torch.allclose(merged, base, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # said to peft
def test_an_adapter_is_that_of_plain_peft(folder: Callable[[str], Path], tmp_path: Path):
    import peft

    quick(folder("qwen2"), tmp_path / "alone", lora=Lora(4, 8, merge=False))
    plain = peft.PeftModel.from_pretrained(raw_model(folder("qwen2")), str(tmp_path / "alone"))
    ids = torch.tensor([byte_tokenizer()(PROMPT)["input_ids"]])
    assert torch.allclose(plain(ids).logits, logits(tmp_path / "alone"), atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lora_of_later_blocks_in_half_precision(folder: Callable[[str], Path], family: str, tmp_path: Path):
    lora = Lora(2, 4, merge=False, first_block=2)
    quick(folder(family), tmp_path / "alone", lora=lora, machine=replace(CPU, dtype="bfloat16"))
    tensors = load_file(tmp_path / "alone" / "adapter_model.safetensors")
    blocks = {int(re.findall(r"\.(?:layers|h)\.(\d+)\.", name)[0]) for name in tensors}
    assert min(blocks) == 2 and {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert not torch.allclose(logits(tmp_path / "alone"), logits(folder(family)), atol=1e-3), "it loads and changes the model"
    with pytest.raises(ValueError, match="first_block=99: the model has blocks 0 to"):
        quick(folder(family), tmp_path / "out", lora=replace(lora, first_block=99))
    with pytest.raises(ValueError, match="first_block=-1"):
        Lora(first_block=-1)


def test_what_is_wrong_with_an_adapter_is_said(folder: Callable[[str], Path], tmp_path: Path):
    base, alone = tmp_path / "base", tmp_path / "alone"
    shutil.copytree(folder("llama"), base)
    quick(base, alone, lora=Lora(2, 4, merge=False), recipe={**FAST, "epochs": 1.0})
    with pytest.raises(ValueError, match="device_map= cannot spread"):
        it.load_model(alone, device_map="auto")
    change_weight(base)
    with pytest.raises(ValueError, match="now holds another model .*restore that one, or tune again"):
        it.load_model(alone)
    shutil.rmtree(base)
    with pytest.raises(ValueError, match="was made for .*base.*, which cannot be loaded: there is no folder"):
        it.load_model(alone)
    config = alone / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": None}))
    with pytest.raises(ValueError, match="base_model_name_or_path=None: expected the name or path of its base"):
        it.load_model(alone)
    config.write_text("[]")
    with pytest.raises(ValueError, match="adapter_config.json' holds no JSON object"):
        it.load_model(alone)


def test_without_peft_the_extra_is_named(folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"pip install 'interp-transfer\[lora\]'"):
        quick(folder("llama"), tmp_path / "out", lora=Lora())
    assert not list(tmp_path.iterdir())


def test_bfloat16_is_stored_as_such(folder: Callable[[str], Path], tmp_path: Path):
    short = TrainingData(PAIRS[:8])
    quick(folder("llama"), tmp_path / "out", short, {**FAST, "epochs": 1.0}, machine=Machine("cpu", "bfloat16"))
    assert raw_model(tmp_path / "out", dtype="auto").dtype == torch.bfloat16
    with pytest.raises(ValueError, match="dtype='half': give float32 or bfloat16"):
        Machine(dtype="half")
    with pytest.raises(ValueError, match="device='gpu'"):
        Machine("gpu")


def test_a_run_that_died_while_writing_goes_on_at_its_end(
    folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tuning, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        quick(folder("llama"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="other settings .*lora: None then, rank 4"):
        quick(folder("llama"), tmp_path / "out", lora=Lora(4, 8))
    with monkeypatch.context() as patch:
        patch.setattr("torch.optim.AdamW.step", lambda *_, **__: pytest.fail("it was trained to its end already"))
        again = quick(folder("llama"), tmp_path / "out")
    assert quick(folder("llama"), tmp_path / "other")["loss"] == again["loss"]
    assert {f.name for f in (tmp_path / "out").iterdir()} == WHOLE | {"training.json"}


KILLED = """
import sys
from interp_transfer.finetuning.tuning import Machine, TrainingData, tune
pairs = [(f"q{i}: the cat", f" sat on {i} dogs") for i in range(40)]
recipe = {"epochs": 6.0, "batch_size": 4, "learning_rate": 1e-2, "max_length": 64, "checkpoint_every": 3}
tune(sys.argv[1], TrainingData(pairs), sys.argv[2], recipe, machine=Machine("cpu"), progress=False)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_again_and_again_ends_the_same(folder: Callable[[str], Path], tmp_path: Path):
    base, out = folder("qwen2"), tmp_path / "out"
    work, kills = tmp_path / ".out.finetuning" / "checkpoints", 0
    for target in (6, 24, 42, 1000):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(base), str(out)], env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        while process.poll() is None:
            if any(int(f.name.split("-")[1]) >= target for f in work.glob("checkpoint-*")):  # it is being written
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                assert not out.exists()
                break
            time.sleep(0.005)
        process.wait()
    assert kills == 3
    recipe = {"epochs": 6.0, "batch_size": 4, "learning_rate": 1e-2, "max_length": 64, "checkpoint_every": 3}
    quick(base, tmp_path / "whole", recipe=recipe)
    assert torch.allclose(logits(out), logits(tmp_path / "whole"), atol=1e-4)


def test_jsonl(tmp_path: Path):
    file = tmp_path / "pairs.jsonl"
    file.write_text(
        '\ufeff{"prompt": "a", "response": "é\u2028b", "id": 3}\n\n{"response": "c", "prompt": ""}\n', encoding="utf-8"
    )
    assert pairs_from_jsonl(file) == [("a", "é\u2028b"), ("", "c")]
    for line, error in {
        '{"prompt": "a"}': "line 2: 'response' is missing: expected an object with 'prompt', 'response', not 'prompt'",
        '{"prompt": "a", "respnse": "b"}': r"line 2: 'response' is missing: did you mean 'respnse'\?",
        '{"prompt": "a", "response": ["b"]}': "line 2: 'response' is a list, not a string",
        '{"prompt": "a", "response": ""}': "line 2: 'response' is empty",
    }.items():
        file.write_text('{"prompt": "a", "response": "b"}\n' + line)
        with pytest.raises(ValueError, match=error):
            pairs_from_jsonl(file)


def test_templates():
    names = byte_tokenizer()
    data = TrainingData([("hi", "yes")], template="chat")
    with pytest.raises(ValueError, match="no chat template: use template none or alpaca"):
        tuning._rendered(data, names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "chat_template", "{% for m in messages %}<{{ m['content'] }}>{% endfor %}|", raising=False)
        assert tuning._rendered(data, names) == [("<hi>|", "yes")]
    assert tuning._rendered(replace(data, template="alpaca"), names)[0][0].endswith("### Instruction:\nhi\n\n### Response:\n")
    assert tuning._rendered(replace(data, template="none"), names) == [("hi", "yes")]
    with pytest.raises(ValueError, match="unknown template 'jinja': choose one of none, chat, alpaca"):
        TrainingData([], template="jinja")


def test_what_is_held_out_is_not_trained_on():
    pairs = [(f"q{i % 50}", f"a{i}") for i in range(200)]
    trained, held = tuning._split(pairs, 0.1, seed=0)
    assert (len(trained), len(held)) == (180, 20)
    assert not {p for p, _ in trained} & {p for p, _ in held}
    assert tuning._split(pairs, 0.0, 0) == (pairs, [])


def test_long_examples(folder: Callable[[str], Path], tmp_path: Path):
    pairs = [*PAIRS, ("q", " long" * 30)]
    recipe = {**FAST, "epochs": 1.0}
    with pytest.raises(ValueError, match="has .* tokens, more than max_length=64"):
        quick(folder("llama"), tmp_path / "out", TrainingData(pairs), recipe)
    assert quick(folder("llama"), tmp_path / "out", TrainingData(pairs, skip_long=True), recipe)["data"]["too_long"] == 1
    with pytest.raises(ValueError, match="max_length=100 exceeds the model's context of 96"):
        quick(folder("llama"), tmp_path / "other", recipe={"max_length": 100})
    with pytest.raises(ValueError, match="is not an empty folder"):
        quick(folder("llama"), tmp_path / "out")


def test_defaults_by_size_and_by_task():
    assert default_recipe(1_000_000, 256, lora=False) == Recipe(max_length=256)
    assert default_recipe(10**9, 4096, lora=False).learning_rate == 2e-5
    assert default_recipe(10**9, 4096, lora=True).learning_rate == 2e-4

    task = Task.from_pairs([("a", "b")], lambda p, c: True, name="mine")
    with pytest.raises(ValueError, match="'mine' has no training pairs"):
        training_of(task)
    tuned = replace(task, training=lambda split: [("a", split)], recipe={"learning_rate": 3e-5, "epochs": 2.0, "note": "x"})
    assert training_of(tuned) == ([("a", "train")], {"learning_rate": 3e-5, "epochs": 2.0})
    assert training_of(replace(tuned, recipe={"learning_rate": 2e-5}))[1] == {"learning_rate": 2e-5}


def test_a_base_in_half_precision_is_merged_in_full(tmp_path: Path):
    base = make_checkpoint(tmp_path / "base", "llama", dtype=torch.bfloat16)
    for name in ("merged", "alone"):
        quick(base, tmp_path / name, lora=Lora(2, 4, name == "merged"), recipe={**FAST, "epochs": 1.0})
    assert torch.allclose(logits(tmp_path / "merged"), logits(tmp_path / "alone"), atol=1e-5)
