"""Texts from files, data sets and lists."""

import json
from pathlib import Path
from typing import Any

import pytest

from interp_transfer.prompts.chats import Chat
from interp_transfer.prompts.texts import read_texts

CHAT = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
AS_CHAT = Chat((("user", "Hello"), ("assistant", "Hi")))


def test_a_text_file_has_one_text_a_line(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("one\n\ntwo words\none\n", encoding="utf-8")
    assert read_texts(file) == ["one", "two words"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a text", "a text"),
        (CHAT, AS_CHAT),
        ({"text": "a text", "other": 1}, "a text"),
        ({"messages": CHAT}, AS_CHAT),
        ({"prompt": "Hello", "response": "Hi"}, AS_CHAT),
        ({"prompt": "Hello"}, Chat((("user", "Hello"),))),
        ({"prompt": CHAT[:1], "response": " Hi"}, AS_CHAT),
    ],
)
def test_a_row_is_a_text_or_a_chat(tmp_path: Path, row: Any, expected: Any) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert read_texts(str(file)) == [expected]
    assert read_texts([row]) == [expected]


def test_an_iterable_is_read_to_its_limit() -> None:
    assert read_texts((f"text {i}" for i in iter(int, 1)), most=5) == ["text 0"]
    assert read_texts((f"text {i}" for i in range(10**9)), most=3) == ["text 0", "text 1", "text 2"]


def test_a_data_set_is_streamed(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(9)))
    assert read_texts(str(tmp_path), most=4) == [f"row {i}" for i in range(4)]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{", "line 1: not JSON"),
        ("[" * 20_000, "line 1: no JSON that can be read"),
        ("9" * 5000, "line 1: no JSON that can be read"),
        ('"a \\ud800"', "line 1: no JSON that can be read .*surrogates not allowed"),
        ('"fine"\n7', "line 2: a prompt is 7"),
        ('{"txt": "a"}', "line 1: none of the columns text, messages, prompt is among txt"),
        ('[{"role": "user"}]', "line 1: a message of a chat is"),
        ("", "there are no texts"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, content: str, error: str) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(content)
    with pytest.raises(ValueError, match=error):
        read_texts(file)


def test_what_there_is_not_is_named() -> None:
    for name in ("./nowhere", "nowhere.txt", "/nowhere/texts.jsonl"):
        with pytest.raises(ValueError, match=f"there is no file '{name}'"):
            read_texts(name)
    with pytest.raises(ValueError, match="cannot read the texts 'nobody/no-such-data-set': it is no file, and no data set"):
        read_texts("nobody/no-such-data-set")
