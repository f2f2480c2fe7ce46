"""A model that is in use by one thread, or in training mode, gives the same answers as one that is alone and evaluated."""

from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import interp_transfer as it
from interp_transfer.models.exclusive import exclusive, locked
from tests.checkpoints import WIDTH, byte_tokenizer, config, hooked_transformer, make_checkpoint

SITE = "blocks.2.hook_resid_pre"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("m") / "llama", "llama")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    return it.load_model(checkpoint, device="cpu")


def steered(model: Any, strength: float) -> tuple[list[str], torch.Tensor]:
    vector = it.SteeringVector(torch.arange(WIDTH).float(), SITE, it.identity(model))
    texts = it.generate(model, ["the cat sat on", "a dog"], it.add(vector, strength), max_new_tokens=8, progress=False)
    return texts, it.capture(model, ["the cat sat on"], "blocks.3.hook_resid_pre", progress=False)["blocks.3.hook_resid_pre"]


@pytest.mark.parametrize("kind", ["bridge", "hooked_transformer"])
def test_threads_that_steer_one_model_do_not_change_each_other(model: Any, checkpoint: Path, kind: str) -> None:
    shared = model if kind == "bridge" else hooked_transformer(checkpoint)
    strengths = (0.0, 2.0, -2.0, 9.0)
    alone = {x: steered(shared, x) for x in strengths}
    wrong: list[float] = []

    def work(x: float) -> None:
        for _ in range(4):
            texts, rows = steered(shared, x)
            if texts != alone[x][0] or not torch.equal(rows, alone[x][1]):
                wrong.append(x)

    threads = [Thread(target=work, args=(x,)) for x in strengths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({str(texts) for texts, _ in alone.values()}) > 1
    assert not wrong


def test_blocks_of_one_thread_are_nested_and_others_wait(model: Any) -> None:
    began, done = Event(), Event()

    def other() -> None:
        began.set()
        with exclusive(model):
            done.set()

    thread = Thread(target=other)
    with exclusive(model), exclusive(model):
        thread.start()
        assert began.wait(10) and not done.wait(0.2)
    thread.join(10)
    assert done.is_set()


def test_threads_that_follow_each_others_model_do_not_wait_for_ever(model: Any, tmp_path: Path) -> None:
    other = it.load_model(make_checkpoint(tmp_path / "other", "llama", seed=1), device="cpu")
    finished: list[int] = []

    def work(one: Any, another: Any) -> None:
        for _ in range(5):
            with locked(one, another), locked(another):
                pass
            it.generate(one, ["the cat"], it.follow(another, SITE, SITE), max_new_tokens=3, progress=False)
        finished.append(1)

    threads = [Thread(target=work, args=pair, daemon=True) for pair in ((model, other), (other, model))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(finished) == 2


def test_a_model_in_training_mode_is_read_without_dropout_and_left_in_it() -> None:
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config("gpt2", resid_pdrop=0.5, embd_pdrop=0.5)).eval()
    model: Any = it.load_model(hf, tokenizer=byte_tokenizer())
    alone = steered(model, 1.0)
    inner = model.original_model
    inner.train()
    inner.lm_head.eval()
    for _ in range(2):
        texts, rows = steered(model, 1.0)
        assert texts == alone[0] and torch.equal(rows, alone[1])
    assert inner.training and not inner.lm_head.training
