"""Pairs of one conversation in two templates: contents by characters, the template by index from the right."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from interp_transfer.activations.align import STRATEGIES, align, align_spans
from interp_transfer.activations.chat_columns import chat_columns
from interp_transfer.activations.spans import spans_of
from interp_transfer.models.chat_templates import render_chat
from interp_transfer.prompts.chats import Chat, as_prompt
from tests.chat_styles import STYLES, chat_tokenizer

CONTENTS = ["Be brief.", "What is the crop of Tarn?", "Wastrey grows rye, nobody knows.", "Who could name 17 more?"]
CHAT = Chat(tuple(zip(["system", "user", "assistant", "user"], CONTENTS, strict=True)))
HARD: list[Any] = [
    [{"role": "user", "content": "  user 😀 né\n"}, {"role": "assistant", "content": "assistant"}],
    [
        {"role": "user", "content": "user"},
        {"role": "assistant", "content": "<think>\nnobody 😀\n</think>\n\nWastrey 👨‍👩‍👧 grows rye."},
        {"role": "user", "content": "user"},
    ],
]


def labels(style: str) -> list[tuple[Any, ...]]:
    """What each token is, from its offsets: start, or (content, characters read), or (piece, tokens up to its end)."""
    tokenizer = chat_tokenizer(style)
    text = render_chat(tokenizer, CHAT)
    starts = [text.index(content) for content in CONTENTS]
    ends = [start + len(content) for start, content in zip(starts, CONTENTS, strict=True)]
    found: list[tuple[Any, ...]] = []
    for a, b in tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]:
        inside = [j for j in range(4) if a < ends[j] and b > starts[j]]
        found.append(("content", inside[0], b - starts[inside[0]]) if inside else ("piece", sum(end <= a for end in ends)))
    found[0] = ("start",)
    pieces = [label[:2] for label in found]
    return [
        (*label, pieces[i:].count(label[:2])) if label[0] == "piece" else label  # counted from the right
        for i, label in enumerate(found)
    ]


@pytest.mark.parametrize(("one", "other"), list(permutations(STYLES, 2)))
def test_the_template_is_paired_from_the_right_and_contents_by_characters(one: str, other: str) -> None:
    source, target = labels(one), labels(other)
    expected = {}
    for i, label in enumerate(target):
        if label[0] == "content":
            behind = [j for j, theirs in enumerate(source) if theirs[:2] == label[:2] and theirs[2] <= label[2]]
        else:
            behind = [j for j, theirs in enumerate(source) if theirs == label]
        expected |= {i: behind[-1]} if behind else {}
    found = align(chat_tokenizer(one), chat_tokenizer(other), [CHAT.to_list()])
    assert dict(zip(found.target.tolist(), found.first.tolist(), strict=True)) == expected
    assert (found.stop - found.first == 1).all() and found.peeks == 0
    ends = [label for label in target if label[:2] == ("piece", 4)]
    both = min(len(ends), len([label for label in source if label[:2] == ("piece", 4)]))
    assert found.by_role["generation prompt"] == (both, len(ends))
    assert found.by_role["start"] == (1, 1)
    assert found.by_role["system"][1] == sum(label[:2] == ("content", 0) for label in target)
    assert f"generation prompt {both} of {len(ends)}" in repr(found)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if not name.startswith("index")])
@pytest.mark.parametrize(("one", "other"), list(permutations(STYLES, 2)))
def test_no_pair_peeks_or_leaves_its_message(one: str, other: str, strategy: str) -> None:
    sides = [spans_of(chat_tokenizer(style), HARD) for style in (one, other)]
    found = align_spans(sides[0], sides[1], strategy)
    assert found.peeks == 0
    keys = [[part.key for spans in side for part in spans.parts for _ in range(part.first, part.stop)] for side in sides]
    text = [np.repeat(range(len(HARD)), list(map(len, side))) for side in sides]
    seen, sure = np.concatenate([s.most for s in sides[0]]), np.concatenate([t.sure for t in sides[1]])
    for row, first, stop in zip(found.target.tolist(), found.first.tolist(), found.stop.tolist(), strict=True):
        for partner in range(first, stop):
            assert (text[0][partner], keys[0][partner]) == (text[1][row], keys[1][row])
            assert seen[partner] <= sure[row]
    assert sum(paired for paired, _ in found.by_role.values()) == len(found)
    assert sum(count for _, count in found.by_role.values()) == found.target_tokens


@pytest.mark.parametrize("style", STYLES)
def test_spans_are_those_of_the_tokens_that_the_model_reads(style: str) -> None:
    tokenizer = chat_tokenizer(style)
    for chat, spans in zip(HARD, spans_of(tokenizer, HARD), strict=True):
        text = render_chat(tokenizer, as_prompt(chat))  # pyright: ignore[reportArgumentType]
        assert spans.ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert [part.first for part in spans.parts] == [0, *(part.stop for part in spans.parts[:-1])]
        assert spans.parts[-1].stop == len(spans)


def test_reports_of_chats_add_up_by_role() -> None:
    a, b = chat_tokenizer("gemma"), chat_tokenizer("chatml")
    one, other, both = (align(a, b, chats) for chats in (HARD[:1], HARD[1:], HARD))
    assert (one.report + other.report).by_role == both.by_role
    assert set(both.by_role) >= {"start", "before user", "user", "before assistant", "assistant", "end", "generation prompt"}


def test_the_papers_index_pairing_ignores_what_tokens_are() -> None:
    a, b = chat_tokenizer("gemma"), chat_tokenizer("chatml")
    found = align(a, b, [CHAT.to_list()], "index_right")
    assert (found.first - found.target).unique().tolist() == [len(labels("gemma")) - len(labels("chatml"))]


def test_a_template_that_moves_a_message_is_named() -> None:
    tokenizer = chat_tokenizer("chatml").__class__(tokenizer_object=chat_tokenizer("chatml").backend_tokenizer)
    tokenizer.chat_template = "{% for m in messages | reverse %}{{ m.role }}: {{ m.content }}. {% endfor %}"
    with pytest.raises(ValueError, match=r"changes the order of the messages \(to user, assistant, user, system\)"):
        align(chat_tokenizer("gemma"), tokenizer, [CHAT.to_list()])


@pytest.mark.parametrize(("one", "other"), list(permutations(STYLES, 2)))
def test_pairs_of_the_template_are_drawn_one_above_the_other(one: str, other: str) -> None:
    source, target = (spans_of(chat_tokenizer(style), HARD)[1] for style in (one, other))
    above, below = chat_columns(source, target)
    for columns in (above, below):
        assert (np.diff(columns) >= 0).all()
    found = align_spans([source], [target])
    template = np.concatenate([[part.is_template] * (part.stop - part.first) for part in target.parts])
    for row, first in zip(found.target.tolist(), found.first.tolist(), strict=True):
        assert below[row] == above[first] if template[row] else below[row] >= above[first]
    for part in (part for part in target.parts if part.is_template):
        assert (np.diff(below[part.first : part.stop]) > [len(p) for p in target.pieces[part.first + 1 : part.stop]]).all()
    figure: Any = found.plot()
    assert len(figure.data[2].x) == len(target)
