"""Thinking models: judged and measured is what follows the reasoning block."""

from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation import evaluator as module
from interp_transfer.evaluation.completions import completions_each
from interp_transfer.evaluation.evaluator import evaluator
from interp_transfer.evaluation.reasoning import reasoning_lengths, without_reasoning
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.prompts.chats import Chat
from tests.chat_styles import chat_tokenizer
from tests.checkpoints import make_checkpoint

SITE = "blocks.1.hook_resid_pre"
CHATS = [Chat((("user", f"What is the crop of Tarn {n}?"),)) for n in range(3)]
OPEN = "<|im_start|>assistant\n<think>\n"
SAID = ["<think>\nhm\n</think>\n\nrye", "oats", "<think>\nhm"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("thinking")
    make_checkpoint(folder, "qwen2", tokenizer=chat_tokenizer("thinking"), max_position_embeddings=256)
    model = it.load_model(str(folder), device="cpu", dtype="float32")
    plain = tokenizer_of(model).chat_template.replace("enable_thinking is defined and not enable_thinking", "false")
    return it.load_model(model, chat_template=plain)  # a thinking model without a switch


def ids_of(model: Any, texts: list[str]) -> list[list[int]]:
    return [tokenizer_of(model)(text, add_special_tokens=False)["input_ids"] for text in texts]


def test_completions_are_without_their_blocks(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert without_reasoning(model, CHATS, SAID) == ["rye", "oats", ""]
    opened = [text + OPEN for text in "abc"]
    assert without_reasoning(model, opened, ["hm\n</think>\n\nrye", "hm", "</think>oats"]) == ["rye", "", "oats"]
    monkeypatch.setattr("interp_transfer.evaluation.completions.generate", lambda *_, **__: SAID)
    assert completions_each(model, CHATS, [()], 8) == [["rye", "oats", ""]]


def test_blocks_are_counted_in_tokens(model: Any) -> None:
    ids = ids_of(model, SAID)
    lengths = reasoning_lengths(model, CHATS, ids)
    assert lengths[1:] == [0, len(ids[2])]
    assert tokenizer_of(model).decode(ids[0][: lengths[0]]) == "<think>\nhm\n</think>"
    assert reasoning_lengths(model, ["a" + OPEN] * 2, ids_of(model, ["hm</think>rye", "hm"]))[1] == len(
        ids_of(model, ["hm"])[0]
    )


def test_skipped_tokens_are_read_and_not_scored(model: Any) -> None:
    prompts, answers = tokenize(model, CHATS[:2]), ids_of(model, [SAID[0], SAID[1]])
    steer = it.Intervention(SITE, lambda a: a + 1, "all")
    skip = reasoning_lengths(model, CHATS[:2], answers)
    (found,) = teacher_forced_each(model, prompts, answers, [(steer,)], skip=skip)
    longer, rest = [prompts[0] + answers[0][: skip[0]], prompts[1]], [answers[0][skip[0] :], answers[1]]
    (moved,) = teacher_forced_each(model, longer, rest, [(steer,)])
    for name in ("kl", "agreement", "loss", "loss_before"):
        torch.testing.assert_close(getattr(found, name), getattr(moved, name))
    (whole,) = teacher_forced_each(model, prompts, answers, [(steer,)])
    assert whole.kl[0] != found.kl[0] and torch.allclose(whole.kl[1], found.kl[1])
    with pytest.raises(ValueError, match="a token in each answer"):
        teacher_forced_each(model, prompts, answers, [()], skip=[len(answers[0]), 0])


def test_clean_kl_starts_after_the_block(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(chat, Chat((("user", f"{chat.request} Now!"),))) for chat in CHATS]
    task = it.Task.from_pairs({"test": pairs}, judge="lacks:rye", max_new_tokens=8)
    monkeypatch.setattr(module, "generate_tokens", lambda *_, **__: ids_of(model, SAID))
    test = evaluator(model, task, "test", n=3)
    assert len(test.clean_kl.answers) == 2 and sorted(test.clean_kl.skip)[0] == 0 < sorted(test.clean_kl.skip)[1]
    assert test.few(1).clean_kl.skip == test.clean_kl.skip[:1]
    steer = it.Intervention(SITE, lambda a: a + 1, "content")
    (kl,) = test.clean_kl(model, [(steer,)])
    assert len(kl) == 2 and (kl > 0).all()
    monkeypatch.setattr(module, "generate_tokens", lambda *_, **__: ids_of(model, [SAID[2]] * 3))
    with pytest.raises(ValueError, match="none of 3 clean answers ends its reasoning within 8 tokens: give the task a larger"):
        evaluator(model, task, "test", n=3)
