"""Positions in chats, against what the chosen tokens spell; the same with a KV cache, in batches and on either padding side."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import interp_transfer as it
from interp_transfer.activations.positions import Layout, describe, select
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.prompts.chats import Chat
from tests.chat_styles import STYLES, chat_tokenizer
from tests.checkpoints import make_checkpoint

SITE = "blocks.1.hook_resid_pre"
WORDS = ("content", "assistant", "post_instruction")
ASK = [{"role": "user", "content": "What is the crop of Tarn?"}]
TALK = [*ASK, {"role": "assistant", "content": "Rye."}, {"role": "user", "content": "user"}]
AFTER = {  # the template's text after the last user message
    "chatml": "<|im_end|>\n<|im_start|>assistant\n",
    "smollm2": "<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma": "<end_of_turn>\n<start_of_turn>model\n",
    "thinking": "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root, made = tmp_path_factory.mktemp("styles"), {}
    for style in STYLES:
        folder = make_checkpoint(
            root / style, "llama", tokenizer=chat_tokenizer(style), max_position_embeddings=256, eos_token_id=None
        )
        made[style] = it.load_model(str(folder), device="cpu", dtype="float32")
    return made


def layout_of(model: Any, chats: list[Any], generated: int = 0, left: bool = False) -> Layout:
    rows = tokenize(model, chats)
    width = max(map(len, rows))
    tokens = torch.zeros(len(rows), width + generated, dtype=torch.long)
    real = torch.zeros_like(tokens, dtype=torch.bool)
    for i, ids in enumerate(rows):
        start = width - len(ids) if left else 0
        tokens[i, start : start + len(ids)] = torch.tensor(ids)
        real[i, start : start + len(ids) + generated] = True
    return Layout(tokens, real, torch.tensor([len(ids) for ids in rows]), torch.arange(len(rows)), tokenizer_of(model))


def spelled(model: Any, chat: Any, word: Any) -> str:
    layout = layout_of(model, [chat])
    return str(tokenizer_of(model).decode(layout.tokens[select(word, layout)].tolist(), clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("style", STYLES)
def test_each_rule_takes_its_tokens(models: dict[str, Any], style: str) -> None:
    model = models[style]
    assert spelled(model, TALK, "post_instruction") == AFTER[style]
    assert spelled(model, TALK, "content") == "What is the crop of Tarn?Rye.user"
    assert spelled(model, TALK, "assistant") == "Rye."
    answered = spelled(model, TALK[:2], "post_instruction")
    assert answered == AFTER[style].removesuffix("<think>\n\n</think>\n\n"), "up to the answer that follows"
    assert select("assistant", layout_of(model, [ASK])).sum() == 0
    system = [{"role": "system", "content": "Be brief."}, *ASK]
    assert spelled(model, system, "content") == "Be brief.What is the crop of Tarn?"
    last = layout_of(model, [ASK])
    assert torch.equal(select("post_instruction", last)[:, -2:], select([-1, -2], last)[:, -2:]), "counted from the right"


@settings(deadline=None, max_examples=30)
@given(
    style=st.sampled_from(STYLES),
    texts=st.lists(st.text(alphabet="user asin\n<|>m", min_size=1, max_size=9).filter(str.strip), min_size=1, max_size=4),
    generated=st.integers(0, 3),
    data=st.data(),
)
def test_rules_are_the_same_however_tokens_are_laid_out(
    models: dict[str, Any], style: str, texts: list[str], generated: int, data: st.DataObject
) -> None:
    """A row alone, in a batch, padded on the left or right, and step by step as under a KV cache."""
    model, word = models[style], data.draw(st.sampled_from(WORDS))
    chats = [Chat((("user", text), *([("assistant", "user"), ("user", text)] if len(text) % 2 else []))) for text in texts]
    for left in (False, True):
        batch = layout_of(model, chats, generated, left)
        together = select(word, batch)
        for row, chat in enumerate(chats):
            alone = select(word, layout_of(model, [chat], generated))[0]
            assert torch.equal(together[row][batch.real[row]], alone)
        if left and generated:
            before = layout_of(model, chats, generated - 1, left)
            assert torch.equal(together[:, :-1], select(word, before)), "one more token changes nothing before it"
            assert together[:, -1].all() == (word != "post_instruction")


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("style", ["chatml", "gemma"])
def test_generation_is_steered_where_a_pass_over_the_whole_is(models: dict[str, Any], style: str, word: str) -> None:
    model = models[style]
    vector = torch.randn(16, generator=torch.Generator().manual_seed(0))
    steer = it.Intervention(SITE, lambda a: a + 3 * vector, word)
    chats = [TALK, ASK, TALK[:1] + TALK[1:2] + TALK[:1]]
    steered = it.generate(model, chats, steer, max_new_tokens=5, progress=False)
    assert steered != it.generate(model, chats, max_new_tokens=5, progress=False) or word == "assistant"
    for chat, completion in zip(chats, steered, strict=True):
        assert it.generate(model, [chat], steer, max_new_tokens=5, progress=False) == [completion]
        ids = tokenize(model, [chat])[0]
        for _ in range(5):  # without a cache, the whole text at each step
            with it.applied(model, steer, prompt_lengths=torch.tensor([len(tokenize(model, [chat])[0])])):
                ids = [*ids, int(model(torch.tensor([ids]))[0, -1].argmax())]
        made = tokenizer_of(model).decode(ids[-5:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert made == completion


def test_captured_rows_and_vectors_are_those_of_the_rule(models: dict[str, Any]) -> None:
    model = models["llama3"]
    acts, every = it.capture(model, [ASK, TALK], SITE, "post_instruction"), it.capture(model, [ASK, TALK], SITE)
    assert acts.text_index.bincount().tolist() == [8, 8]
    at_end = torch.cat([every[SITE][every.text_index == i][-8:] for i in (0, 1)])
    torch.testing.assert_close(acts[SITE], at_end)
    vector = it.extract(model, [(TALK, ASK)], SITE, "post_instruction")
    torch.testing.assert_close(vector.direction, at_end[8:].mean(0) - at_end[:8].mean(0), rtol=1e-4, atol=1e-5)
    assert vector.positions == "post_instruction" == describe("post_instruction")


def test_a_text_has_no_positions_of_a_chat(models: dict[str, Any]) -> None:
    model = models["chatml"]
    with pytest.raises(ValueError, match="positions='content' are those of a chat, and prompt 1 is a text: give it as a list"):
        it.capture(model, [ASK, "What is the crop of Tarn?"], SITE, "content")
    with pytest.raises(ValueError, match="unknown positions 'contents': did you mean 'content'"):
        it.capture(model, [ASK], SITE, "contents")
    with pytest.raises(ValueError, match="text 0 has no token at positions assistant"):
        it.capture(model, [ASK], SITE, "assistant")


def test_a_template_that_changed_since_is_noticed(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = models["smollm2"], tokenizer_of(models["smollm2"])
    chat = [{"role": "user", "content": "a question of this test alone"}]
    layout = layout_of(model, [chat])
    monkeypatch.setattr(tokenizer, "chat_template", "{{ messages[0].content }}")
    with pytest.raises(ValueError, match="was changed after a chat was tokenized: tokenize it again"):
        select("content", layout)
