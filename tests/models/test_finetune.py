"""Fine-tuning: what the loss sees, that packing changes nothing, that an interrupted run goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
from transformers.trainer_callback import TrainerCallback

from interp_transfer.models.finetune import Pack, Recipe, encode, finetune
from interp_transfer.models.tokenizers import train_qwen_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_qwen_tokenizer(vocab_size=400)


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


def test_it_learns_saves_and_loads(tokenizer, tmp_path: Path):
    model = tiny(tokenizer)
    recipe = Recipe(epochs=40.0, learning_rate=1e-2, batch_size=8)
    out = finetune(model, tokenizer, EXAMPLES * 8, recipe, tmp_path / "m", half=True, progress=False)
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
    assert weights < 2.2 * sum(p.numel() for p in loaded.parameters()) + 4000, "float16, tied tensors once"


def test_an_interrupted_run_goes_on_and_ends_the_same(tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = Recipe(epochs=10.0, learning_rate=1e-2, batch_size=8, checkpoint_every=5)
    whole, again = tiny(tokenizer), tiny(tokenizer)
    finetune(whole, tokenizer, EXAMPLES * 8, recipe, tmp_path / "whole", progress=False)

    import transformers

    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):  # noqa: ARG002
            if state.global_step == 12:
                raise KeyboardInterrupt

    steps: list[int] = []

    class Count(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):  # noqa: ARG002
            steps.append(state.global_step)

    original = transformers.Trainer

    def with_callback(callback):
        class WithCallback(original):
            def __init__(self, **arguments: Any) -> None:
                super().__init__(**arguments, callbacks=[callback])

        monkeypatch.setattr(transformers, "Trainer", WithCallback)

    with_callback(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        finetune(again, tokenizer, EXAMPLES * 8, recipe, tmp_path / "again", progress=False)
    assert (tmp_path / "again" / "checkpoints").is_dir()
    with_callback(Count())
    finetune(tiny(tokenizer), tokenizer, EXAMPLES * 8, recipe, tmp_path / "again", progress=False)
    assert steps[0] == 11, "it goes on after the checkpoint of step 10"
    first, second = (AutoModelForCausalLM.from_pretrained(tmp_path / n) for n in ("whole", "again"))
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name


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
