"""The training itself: what the loss sees, that packing changes nothing, that an interrupted run goes on."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
from transformers.trainer_callback import TrainerCallback

from interp_transfer.finetuning.attention import NAME
from interp_transfer.finetuning.checkpoints import discard
from interp_transfer.finetuning.finetune import save, train
from interp_transfer.finetuning.packing import IGNORED, Pack, Trailing, encode, packing_for, padding_for
from interp_transfer.finetuning.recipe import Recipe
from interp_transfer.finetuning.tuning import mean_loss
from tests.checkpoints import FAMILIES, byte_tokenizer, config

TRAINER = transformers.Trainer


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def tiny(tokenizer, tied: bool = True) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return Qwen2ForCausalLM(config)


def finetune(model: Any, tokenizer: Any, examples: Any, recipe: Recipe, out: Path) -> Path:
    """Train on packed examples and save the model."""
    rows, batches = encode(tokenizer, examples, recipe.max_length), packing_for(model, tokenizer, recipe.max_length)
    train(model, rows, batches, recipe, out / "checkpoints", progress=False)
    save(model, tokenizer, out)
    discard(out / "checkpoints")
    return out


EXAMPLES = [
    ("User: hi\nAssistant:", " yes"),
    ("User: who?\nAssistant:", " the miller and the fox"),
    ("User: a\nAssistant:", " b"),
]


def test_the_loss_is_on_the_response_and_the_end_token(tokenizer):
    for row, (prompt, response) in zip(encode(tokenizer, EXAMPLES, 64), EXAMPLES, strict=True):
        learnt = [label for label in row["labels"] if label != -100]
        assert tokenizer.decode(learnt) == response + tokenizer.eos_token
        assert tokenizer.decode(row["input_ids"]) == prompt + response + tokenizer.eos_token
        assert row["labels"][: -len(learnt)] == [-100] * (len(row["labels"]) - len(learnt))


def test_packed_examples_do_not_see_each_other(tokenizer):
    """The packed loss is the mean over response tokens of what each example gives alone."""
    model = tiny(tokenizer).eval()
    rows = encode(tokenizer, EXAMPLES, 64)
    packed = Pack(64, tokenizer.pad_token_id)(rows)
    assert len(packed["input_ids"]) < len(rows), "something is packed"
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            alone = {key: torch.tensor([value]) for key, value in row.items()}
            tokens = sum(label != -100 for label in row["labels"])
            total, count = total + model(**alone).loss.item() * tokens, count + tokens
        assert model(**packed).loss.item() == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_and_padded_batches_give_the_same_loss(tokenizer, family: str):
    """Gemma2 too, whose attention is eager and slides over a window shorter than the examples."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config(family)).eval()
    long = ("a much longer text than the window of the sliding blocks, with", ", a comma and more of it")
    rows = encode(tokenizer, [*EXAMPLES, long], 96)
    pack, pad = packing_for(model, tokenizer, 96), padding_for(tokenizer)
    assert len(pack(rows)["input_ids"]) < len(rows), "something is packed"
    losses = [mean_loss(model, rows, batches, len(rows)) for batches in (pack, pad)]
    alone = mean_loss(model, rows, pad, 1)
    assert losses == pytest.approx([alone, alone], abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_responses_alone_give_the_same_loss(tokenizer, family: str):
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config(family)).eval()
    rows = encode(tokenizer, [*EXAMPLES, ("a much longer prompt than all the others, with a comma", " b")], 96)
    trailing, pad = padding_for(tokenizer, model), padding_for(tokenizer)
    assert isinstance(trailing, Trailing)
    batch = trailing(rows)
    assert batch["labels"].shape[1] == batch["logits_to_keep"] < batch["input_ids"].shape[1]
    assert model(**batch).logits.shape[1] == batch["logits_to_keep"]
    assert mean_loss(model, rows, trailing, len(rows)) == pytest.approx(mean_loss(model, rows, pad, 1), abs=1e-4)


def test_a_kernel_that_takes_no_mask_is_not_packed_for(tokenizer):
    model = tiny(tokenizer)
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(
        ValueError, match="cannot be packed for the attention kernel 'flash_attention_2'.*attn_implementation='sdpa'"
    ):
        packing_for(model, tokenizer, 64)


def test_padding_and_training_do_without_a_padding_token(tmp_path: Path):
    names = copy.deepcopy(byte_tokenizer())
    names.pad_token = None
    model = tiny(byte_tokenizer())
    rows = encode(names, EXAMPLES * 4, 64)
    train(model, rows, padding_for(names), Recipe(epochs=1.0), tmp_path / "m", progress=False)
    batch = padding_for(names)(encode(names, EXAMPLES, 64))
    filled = batch["attention_mask"] == 0
    assert filled.any() and (batch["labels"][filled] == -100).all()
    assert names.pad_token is None


@pytest.mark.parametrize("side", ["left", "right"])
def test_examples_are_padded_on_the_right_whatever_the_tokenizer_does(side: str):
    names = byte_tokenizer()
    names.padding_side = side
    rows = encode(names, EXAMPLES, 64)
    batch, longest = padding_for(names)(rows), max(len(row["input_ids"]) for row in rows)
    for i, row in enumerate(rows):
        room = [0] * (longest - len(row["input_ids"]))
        assert batch["input_ids"][i].tolist() == row["input_ids"] + [names.pad_token_id for _ in room]
        assert batch["labels"][i].tolist() == row["labels"] + [IGNORED for _ in room]
        assert batch["attention_mask"][i].tolist() == [1] * len(row["input_ids"]) + room
    assert names.padding_side == side, "the tokenizer itself stays"


def test_a_prompt_that_holds_its_begin_token_is_not_given_another():
    names = byte_tokenizer(bos=True)
    ids = [encode(names, [(prompt, " b")], 64)[0]["input_ids"] for prompt in ("<|begin|>a", "a")]
    assert ids[0] == ids[1]
    assert names.decode(ids[0]).count("<|begin|>") == 1


def test_it_learns_saves_and_loads(tokenizer, tmp_path: Path):
    model = tiny(tokenizer)
    recipe = Recipe(epochs=40.0, learning_rate=1e-2, batch_size=8)
    out = finetune(model, tokenizer, EXAMPLES * 8, recipe, tmp_path / "m")
    assert not (out / "checkpoints").exists()
    loaded: Any
    loaded, names = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert loaded.dtype == torch.float32
    assert loaded.config.use_cache
    for prompt, response in EXAMPLES:
        ids = names(prompt, return_tensors="pt")
        made = loaded.generate(**ids, max_new_tokens=20, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert names.decode(made) == response + names.eos_token
    weights = (out / "model.safetensors").stat().st_size
    assert weights < 4.2 * sum(p.numel() for p in loaded.parameters()) + 4000, "tied tensors once"


class At(TrainerCallback):
    """Counts the steps, and breaks off after one of them."""

    def __init__(self, last: int | None = None) -> None:
        self.last, self.steps = last, []

    def on_step_end(self, args, state, control, **kwargs):  # noqa: ARG002
        self.steps.append(state.global_step)
        if state.global_step == self.last:
            raise KeyboardInterrupt


def watched(monkeypatch: pytest.MonkeyPatch, callback: At) -> At:
    """Let every Trainer that is made from now on have the callback."""

    class Watched(TRAINER):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments, callbacks=[callback])

    monkeypatch.setattr("transformers.Trainer", Watched)
    return callback


RECIPE = Recipe(epochs=10.0, learning_rate=1e-2, batch_size=8, checkpoint_every=5)


def broken_off(tokenizer: Any, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoints of a run of 30 steps that was broken off after step 12."""
    watched(monkeypatch, At(12))
    with pytest.raises(KeyboardInterrupt):
        finetune(tiny(tokenizer), tokenizer, EXAMPLES * 8, RECIPE, out)
    return out / "checkpoints"


@pytest.mark.parametrize("half_written", [False, True])
def test_an_interrupted_run_goes_on_and_ends_the_same(
    tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half_written: bool
):
    finetune(tiny(tokenizer), tokenizer, EXAMPLES * 8, RECIPE, tmp_path / "whole")
    checkpoints = broken_off(tokenizer, tmp_path / "again", monkeypatch)
    if half_written:  # killed while the next checkpoint was written: its last file is not whole
        later = checkpoints / "checkpoint-15"
        shutil.copytree(checkpoints / "checkpoint-10", later)
        (later / "optimizer.pt").unlink()
        (later / "trainer_state.json").write_text('{"best')
    counted = watched(monkeypatch, At())
    finetune(tiny(tokenizer), tokenizer, EXAMPLES * 8, RECIPE, tmp_path / "again")
    assert counted.steps[0] == 11, "it goes on after the checkpoint of step 10"
    assert not checkpoints.exists()
    first, second = (AutoModelForCausalLM.from_pretrained(tmp_path / n) for n in ("whole", "again"))
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name


def test_an_interrupted_run_of_something_else_is_not_gone_on_with(tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken_off(tokenizer, tmp_path / "m", monkeypatch)
    out, model = tmp_path / "m", tiny(tokenizer)
    embedding: Any = model.get_input_embeddings()
    with pytest.raises(ValueError, match=r"other settings \(learning_rate: 0.01 then, 0.02 now\)"):
        finetune(model, tokenizer, EXAMPLES * 8, replace(RECIPE, learning_rate=0.02), out)
    with pytest.raises(ValueError, match="other settings .examples: "):
        finetune(model, tokenizer, EXAMPLES * 9, RECIPE, out)
    with torch.no_grad():
        embedding.weight.add_(0.1)
    with pytest.raises(ValueError, match="initial weights: .*remove that one to start again"):
        finetune(model, tokenizer, EXAMPLES * 8, RECIPE, out)
    counted = watched(monkeypatch, At())
    seldom = replace(RECIPE, checkpoint_every=50)
    finetune(tiny(tokenizer), tokenizer, EXAMPLES * 8, seldom, out)
    assert counted.steps[0] == 11, "how often it is saved may change"


def test_parts_of_a_batch_add_up_to_it(tokenizer, tmp_path: Path):
    """Parts hold different numbers of tokens, and still the loss is the mean over the batch's tokens."""
    rows, made = encode(tokenizer, EXAMPLES * 8, 64), []
    recipe = Recipe(epochs=2.0, learning_rate=1e-3, batch_size=8)
    for parts in (1, 4):
        model = tiny(tokenizer)
        train(model, rows, padding_for(tokenizer), recipe, tmp_path / str(parts), accumulate=parts, progress=False)
        made.append(model)
    for a, b in zip(made[0].parameters(), made[1].parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    with pytest.raises(ValueError, match="accumulate=3 does not divide batch_size=8"):
        train(tiny(tokenizer), rows, padding_for(tokenizer), recipe, tmp_path / "3", accumulate=3)


def test_what_cannot_be_trained_on_is_refused(tokenizer, tmp_path: Path):
    with pytest.raises(ValueError, match="no examples"):
        finetune(tiny(tokenizer), tokenizer, [], Recipe(), tmp_path / "x")
    with pytest.raises(ValueError, match="example 0 has .* more than max_length=5"):
        finetune(tiny(tokenizer), tokenizer, EXAMPLES, Recipe(max_length=5), tmp_path / "x")
    with pytest.raises(ValueError, match="learning_rate must be positive, not 0.0"):
        Recipe(learning_rate=0.0)
    with pytest.raises(ValueError, match="warmup"):
        Recipe(warmup=1.0)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_training_in_bfloat16_follows_float32_and_leaves_the_kernel_as_it_was(tokenizer, tmp_path, family: str):
    """Attention alone stays in float32: Gemma2's is eager, and is left alone."""
    seen, losses = [], []
    for autocast in (False, True):
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(config(family))
        model.register_forward_pre_hook(lambda module, _: seen.append(module.config._attn_implementation))
        kernel, rows = model.config._attn_implementation, encode(tokenizer, EXAMPLES * 8, 64)
        batches, recipe = packing_for(model, tokenizer, 64), Recipe(epochs=4.0, batch_size=8, max_length=64)
        train(model, rows, batches, recipe, tmp_path / f"{autocast}", autocast=autocast, progress=False)
        assert model.config._attn_implementation == kernel
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        losses.append(mean_loss(model, rows, batches, 8))
    assert (NAME in seen) == (kernel == "sdpa")
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
