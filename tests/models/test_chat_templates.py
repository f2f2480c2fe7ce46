"""Chats rendered by templates of five styles, and where each message is in the rendering."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_transfer.models.chat_templates import located, render_chat, template_fingerprint, use_chat_template
from interp_transfer.prompts.alpaca import alpaca
from interp_transfer.prompts.chats import Chat
from tests.chat_styles import STYLES, chat_tokenizer
from tests.checkpoints import byte_tokenizer

CHAT = Chat((("system", "Be brief."), ("user", "user"), ("assistant", "assistant"), ("user", "Who is the user? ")))
"""Contents that occur in templates and in each other."""

WORDS = st.text(alphabet="user asitn\n<|>m_", min_size=1, max_size=12).filter(str.strip)


@pytest.fixture
def tokenizer() -> Any:
    made: Any = byte_tokenizer.__wrapped__()
    return made


def contents(tokenizer: Any, chat: Chat) -> list[tuple[int, str, str]]:
    text, passages = located(tokenizer, chat)
    assert text == render_chat(tokenizer, chat)
    return [(p.message, p.role, text[p.start : p.stop].strip()) for p in passages]


@pytest.mark.parametrize("style", STYLES)
@settings(deadline=None, max_examples=25)
@given(system=st.none() | WORDS, turns=st.lists(WORDS, min_size=1, max_size=4))
def test_every_message_is_located_whatever_it_says(style: str, system: str | None, turns: list[str]) -> None:
    roles = [("user", "assistant")[i % 2] for i in range(len(turns))]
    chat = Chat((*([("system", system)] if system else []), *zip(roles, turns, strict=True)))
    expected = [(i, role, content.strip()) for i, (role, content) in enumerate(chat.messages)]
    assert contents(chat_tokenizer(style), chat) == expected
    places = [p.place for p in located(chat_tokenizer(style), chat)[1]]
    assert places == [p.place for p in located(chat_tokenizer("chatml"), chat)[1]], "the same in every template"


def test_a_content_is_not_mistaken_for_the_template_or_for_another_message() -> None:
    text, passages = located(chat_tokenizer("chatml"), CHAT)
    assert [text[: p.start].count("user") for p in passages] == [0, 1, 2, 3]


def test_a_system_prompt_without_a_place_is_located_in_the_users_message() -> None:
    text, passages = located(chat_tokenizer("gemma"), CHAT)
    assert text.startswith("<|begin_of_text|><start_of_turn>user\nBe brief.\n\nuser<end_of_turn>")
    assert [p.role for p in passages] == ["system", "user", "assistant", "user"]


def test_reasoning_is_switched_off_and_reasoning_blocks_are_no_content() -> None:
    thinking, plain = chat_tokenizer("thinking"), chat_tokenizer("chatml")
    assert render_chat(thinking, Chat(CHAT.messages[:2])).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    block = ("assistant", "<think>\nuser user\n</think>\n\nuser")
    last, earlier = Chat((("user", "a"), block)), Chat((("user", "a"), block, ("user", "b")))
    shown = [(0, "user", "a"), (1, "reasoning", "user user"), (1, "assistant", "user")]
    assert contents(thinking, last) == contents(plain, last) == shown
    assert contents(thinking, earlier) == [shown[0], shown[2], (2, "user", "b")], "the template leaves earlier blocks out"
    assert located(thinking, earlier)[1][-1].place == located(plain, earlier)[1][-1].place


def test_blank_messages_have_no_passage() -> None:
    assert contents(chat_tokenizer("chatml"), Chat((("system", " "), ("user", "a")))) == [(1, "user", "a")]


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", r"does not render message 0 \(user: 'Who are"),
        ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}", r"message 1 \(assistant"),
        ("{% for m in messages %}{{ m.content.replace('Who', 'How') }}{% endfor %}", "does not render message 0"),
        ("{{ raise_exception('no chats today') }}", "rejects the chat .*no chats today .*roles are user, assistant"),
        ("{{ messages[0].content + 1 }}", "rejects the chat .*can only concatenate"),
        ("{{ messages[7].content.x }}", "rejects the chat .*has no element 7"),
        ("{% for %}", "rejects the chat .*: change the messages"),
        (None, r"no chat template.*load_model\(\.\.\., chat_template='alpaca'\)"),
    ],
)
def test_a_template_that_raises_or_changes_messages_is_named_in_one_line(
    tokenizer: Any, template: str | None, error: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=error) as caught:
        render_chat(tokenizer, Chat((("user", "Who are\nyou?"), ("assistant", "I am."))))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("style", STYLES)
def test_a_role_that_a_template_does_not_have_is_refused_or_rendered(style: str) -> None:
    chat = Chat((("user", "a"), ("tool", "17")))
    if style == "gemma":
        with pytest.raises(ValueError, match="tool role not supported .its roles are user, tool.: change the messages"):
            render_chat(chat_tokenizer(style), chat)
    else:
        assert contents(chat_tokenizer(style), chat)[1] == (1, "tool", "17")


def test_a_message_that_is_left_out_is_noticed_where_its_words_are_elsewhere(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages if m.role == 'user' %}user: {{ m.content }}{% endfor %}"
    with pytest.raises(ValueError, match=r"does not render message 1 \(assistant: 'user'"):
        render_chat(tokenizer, Chat((("user", "Who?"), ("assistant", "user"))))


def test_a_message_that_is_rendered_twice_has_no_one_place(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ messages[0].content }} -- {{ messages[0].content }}"
    with pytest.raises(ValueError, match="does not render message 0"):
        located(tokenizer, Chat((("user", "a"),)))


def test_alpaca_is_named(tokenizer: Any) -> None:
    use_chat_template(tokenizer, "alpaca")
    assert render_chat(tokenizer, Chat((("user", "Sort."),))) == alpaca("Sort.")
    whole = render_chat(tokenizer, CHAT)
    first = "Be brief.\n\n### Instruction:\nuser\n\n### Response:\nassistant\n\n"
    assert whole == f"{first}### Instruction:\nWho is the user? \n\n### Response:\n"
    assert [role for _, role, _ in contents(tokenizer, CHAT)] == ["system", "user", "assistant", "user"]
    with pytest.raises(ValueError, match="Alpaca has the roles user and assistant"):
        render_chat(tokenizer, Chat((("user", "a"), ("tool", "b"))))
    with pytest.raises(ValueError, match="unknown chat template 'alpacca': did you mean 'alpaca'"):
        use_chat_template(tokenizer, "alpacca")


def test_a_function_is_a_template(tokenizer: Any) -> None:
    def shout(messages: list[dict[str, str]], ask: bool) -> str:
        return "".join(f"{m['role'].upper()}> {m['content']}\n" for m in messages) + ("ASSISTANT>" if ask else "")

    use_chat_template(tokenizer, shout)
    assert render_chat(tokenizer, Chat((("user", "a"),))) == "USER> a\nASSISTANT>"
    assert [role for _, role, _ in contents(tokenizer, CHAT)] == ["system", "user", "assistant", "user"]
    first = template_fingerprint(tokenizer)
    use_chat_template(tokenizer, lambda messages, ask: messages[0]["content"] + str(ask))
    assert template_fingerprint(tokenizer) != first
    use_chat_template(tokenizer, lambda messages, ask: 3)  # noqa: ARG005 # pyright: ignore
    with pytest.raises(ValueError, match="it returned a int, not a text"):
        render_chat(tokenizer, CHAT)
    use_chat_template(tokenizer, "{{ messages[0].content }}")
    assert render_chat(tokenizer, Chat((("user", "a"),))) == "a", "a template replaces a function"


def test_a_named_template_and_a_function_get_the_bos_of_texts() -> None:
    tokenizer: Any = byte_tokenizer.__wrapped__(bos=True)
    use_chat_template(tokenizer, "alpaca")
    assert render_chat(tokenizer, Chat((("user", "Sort."),))) == "<|begin|>" + alpaca("Sort.")
    use_chat_template(tokenizer, lambda messages, ask: messages[0]["content"])  # noqa: ARG005
    assert [render_chat(tokenizer, Chat((("user", text),))) for text in ("a", "<|begin|>a")] == ["<|begin|>a"] * 2
