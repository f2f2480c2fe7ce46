"""Chats are rendered by the model's own template wherever prompts are read, and by nothing else."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors

import interp_transfer as it
from interp_transfer.models.chat_templates import render_chat
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.prompts.alpaca import alpaca
from interp_transfer.prompts.chats import Chat, as_prompt
from tests.checkpoints import byte_tokenizer

SITE = "blocks.2.hook_resid_pre"
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}!{% endif %}{% endif %}"
)
CHAT = [{"role": "user", "content": "the cat"}]
RENDERED = "<|user|>the cat<|end|><|assistant|>!"
OTHER = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "dogs run"}]


@pytest.fixture
def model(wrapped: Callable[[str], Any]) -> Iterator[Any]:
    model = wrapped("qwen2")
    tokenizer_of(model).chat_template = TEMPLATE
    yield model
    tokenizer_of(model).chat_template = None


def test_chats_and_texts_in_one_list(model: Any) -> None:
    tokenizer = tokenizer_of(model)
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (RENDERED, "the cat", RENDERED)]
    assert tokenize(model, [CHAT, "the cat", as_prompt(CHAT)]) == expected


def test_a_chat_that_ends_with_an_answer_is_not_asked_again(model: Any) -> None:
    chat = as_prompt([*CHAT, {"role": "assistant", "content": "sat"}])
    assert isinstance(chat, Chat)
    assert render_chat(tokenizer_of(model), chat) == "<|user|>the cat<|end|><|assistant|>sat<|end|>"


@pytest.mark.parametrize("template", [TEMPLATE, "<|begin|>" + TEMPLATE])
def test_the_template_alone_writes_the_bos(folder: Callable[[str], Path], template: str) -> None:
    bos: Any = byte_tokenizer(bos=True)
    bos.chat_template = template
    try:
        other = it.load_model(str(folder("qwen2")), device="cpu", tokenizer=bos)
        (ids,) = tokenize(other, [CHAT])
        assert ids.count(bos.bos_token_id) == template.count("<|begin|>")
        (text,) = tokenize(other, ["<|begin|>the cat"])
        assert text.count(bos.bos_token_id) == 1, "a text that is a rendered template does not get it twice"
    finally:
        bos.chat_template = None


def test_everything_that_takes_prompts_takes_chats(model: Any) -> None:
    rendered = [RENDERED, "<|system|>be brief<|end|><|user|>dogs run<|end|><|assistant|>!"]
    chats = [CHAT, OTHER]
    here, there = it.capture(model, chats, SITE, "last"), it.capture(model, rendered, SITE, "last")
    assert here[SITE].equal(there[SITE])
    vector = it.extract(model, [(CHAT, OTHER)], SITE)
    assert vector.direction.equal(it.extract(model, [tuple(rendered)], SITE).direction)
    steer = vector.add(3.0, it.substring("|assistant|"))
    steered = it.generate(model, chats, steer, max_new_tokens=4)
    assert steered == it.generate(model, rendered, steer, max_new_tokens=4)
    assert it.generate(model, [], steer, max_new_tokens=4) == []


def test_what_cannot_be_a_chat_is_refused(model: Any, wrapped: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match="no chat template, so it cannot read a chat: give the prompt as a text"):
        tokenize(wrapped("llama"), ["a text", CHAT])
    for wrong in ([], [{"role": "user"}]):
        with pytest.raises(ValueError, match="text 1: .*give a text, or a chat such as"):
            tokenize(model, ["a text", wrong])
    with pytest.raises(ValueError, match="a prompt is 3: give a text, or a chat such as"):
        as_prompt(3)
    tokenizer_of(model).chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ValueError, match="template rejects the chat .*: roles must alternate"):
        tokenize(model, [CHAT])


@pytest.mark.parametrize("on_system", ["{{ raise_exception('no system role') }}", ""], ids=["rejects", "drops"])
def test_a_system_prompt_without_a_place_in_the_template_opens_the_users_message(model: Any, on_system: str) -> None:
    tokenizer = tokenizer_of(model)
    tokenizer.chat_template = (
        f"{{% for m in messages %}}{{% if m.role == 'system' %}}{on_system}{{% else %}}<|{{{{ m.role }}}}|>{{{{ m.content }}}}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    chat = as_prompt(OTHER)
    assert isinstance(chat, Chat)
    assert render_chat(tokenizer, chat) == "<|user|>be brief\n\ndogs run<|assistant|>"


def test_a_template_that_rejects_the_chat_in_either_form_is_named(model: Any) -> None:
    tokenizer_of(model).chat_template = "{{ raise_exception('no chats today') }}"
    with pytest.raises(ValueError, match="rejects the chat .*no chats today"):
        tokenize(model, [OTHER])


def test_a_model_without_a_template_gets_one_by_name_or_as_a_function(folder: Callable[[str], Path]) -> None:
    model = it.load_model(str(folder("llama")), device="cpu", dtype="float32", chat_template="alpaca")
    tokenizer = tokenizer_of(model)
    assert tokenize(model, [CHAT], any_length=True)[0] == tokenizer(alpaca("the cat"))["input_ids"]

    def template(messages: list[dict[str, str]], ask: bool) -> str:
        return f"{messages[-1]['content']}{'? ' if ask else ''}"

    same = it.load_model(model, chat_template=template)
    assert same is model and tokenize(model, [CHAT])[0] == tokenizer("the cat? ")["input_ids"]
    acts = it.capture(model, [CHAT], SITE, "post_instruction", progress=False)
    assert tokenizer.decode(acts.token) == "? "
    with pytest.raises(ValueError, match="unknown chat template 'alpaka': did you mean 'alpaca'"):
        it.load_model(model, chat_template="alpaka")


def test_a_text_that_begins_with_several_specials_does_not_get_them_twice(folder: Callable[[str], Path]) -> None:
    two: Any = byte_tokenizer.__wrapped__(bos=True)
    ids = [(token, two.convert_tokens_to_ids(token)) for token in ("<|begin|>", "<|pad|>", "<|end|>")]
    two.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> <|pad|> $A <|end|>", special_tokens=ids
    )
    wrapped = it.load_model(str(folder("qwen2")), device="cpu", tokenizer=two)
    *expected, end = two("a b", verbose=False)["input_ids"]
    for text in ("a b", "<|begin|><|pad|>a b", "a b<|end|>", "<|begin|><|pad|>a b<|end|>"):
        with pytest.warns(UserWarning, match=r"'<\|end\|>', which the tokenizer appends to every text, is left out"):
            assert tokenize(wrapped, [text]) == [[*expected, *([end] if text.endswith("<|end|>") else [])]], text
    with pytest.warns(UserWarning, match="is left out"):
        doubled = tokenize(wrapped, ["<|begin|><|begin|><|pad|>a b"])[0]
    assert doubled.count(two.bos_token_id) == 3, "any other doubled token belongs to the text"


def test_the_last_token_is_the_texts_where_a_tokenizer_appends_an_end(folder: Callable[[str], Path]) -> None:
    plain = it.load_model(str(folder("qwen2")), device="cpu")
    ending: Any = byte_tokenizer.__wrapped__()
    ending.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", special_tokens=[("<|end|>", ending.eos_token_id)]
    )
    model = it.load_model(str(folder("qwen2")), device="cpu", tokenizer=ending)
    with pytest.warns(UserWarning, match="is left out"):
        last = it.capture(model, ["the cat sat"], SITE, "last", progress=False)
    assert (last[SITE] == it.capture(plain, ["the cat sat"], SITE, "last", progress=False)[SITE]).all()
    with pytest.warns(UserWarning, match="is left out"):
        assert it.generate(model, ["the cat"], max_new_tokens=4) == it.generate(plain, ["the cat"], max_new_tokens=4)


def test_a_token_that_the_model_lacks_is_named(folder: Callable[[str], Path]) -> None:
    larger: Any = byte_tokenizer.__wrapped__()
    larger.add_tokens(["<new>"])
    model = it.load_model(str(folder("qwen2")), device="cpu", tokenizer=larger)
    with pytest.raises(ValueError, match=r"text 1 has the token '<new>', number 300, and the model's vocabulary has 300"):
        it.capture(model, ["a", "a <new> b"], SITE)
