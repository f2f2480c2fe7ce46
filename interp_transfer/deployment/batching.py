"""Answer concurrent requests by one model, each as if it were alone.

Requests that wait are generated together as a group, each under its own interventions; groups that came later take turns with
those before them. One thread uses the model. A request that fails in a group is tried again alone, so that none is harmed by
another. `Batcher.answer` is for asyncio; whoever stops listening frees the request's place.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp_transfer.interventions.generation import check_room, end_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.read_ahead import has_plain_cache
from interp_transfer.interventions.streaming import Sampling, TextPieces, TokenStream
from interp_transfer.models.hooked_model import HookedModel, context_length, huggingface_model
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.prompts.chats import PromptLike

BATCH_SIZE = 32
"""Maximum number of requests in a group."""

GROUPS = 4
"""Groups that take turns. More answer the first token earlier, and all of them more slowly."""

TOKENS = 32768
"""Tokens of all groups, prompts and completions: the memory for keys and values."""

STEPS = 8
"""Tokens that a group generates before it is the next one's turn."""

WAITING = 512
"""Requests that may wait; further ones are refused."""

NEW_TOKENS = 1024
"""Length of an answer for which none is set, or what is left of the context."""


class Busy(RuntimeError):
    """Too many requests wait, or the model is no longer served."""


@dataclass(frozen=True)
class Request:
    """What is to be generated.

    Attributes:
        prompt: token ids.
        max_new_tokens: maximum number of generated tokens.
        setting: the interventions, as the `Batcher`'s ``combine`` reads it.
        stop: texts that end the answer and are no part of it.
        temperature: of sampling; 0 is greedy.
        top_p: of sampling.
        seed: of sampling.
    """

    prompt: list[int]
    max_new_tokens: int
    setting: Any = None
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Piece:
    """A part of an answer.

    Attributes:
        text: what follows the text of the piece before.
        tokens: number of tokens that were generated so far.
        finish: why the answer ends with this piece; None if it does not.
    """

    text: str
    tokens: int
    finish: Literal["stop", "length"] | None = None


Combine = Callable[[Sequence[Any]], tuple[Sequence[Intervention], Int[Tensor, " row"]]]
"""Interventions that put each of several requests under its own setting, and the text number of each request for them."""


@dataclass(eq=False)
class _Row:
    """One request on its way."""

    request: Request
    give: Callable[[Piece | Exception], Any]
    tokenizer: Any
    cancelled: bool = False
    alone: bool = False
    sent: int = 0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Generate from the beginning; text that was given once is not given again."""
        self.text, self.tokens, self.ended = "", 0, False
        self.pieces = TextPieces(self.tokenizer)

    @property
    def done(self) -> bool:
        return self.ended or self.cancelled

    @property
    def length(self) -> int:
        return len(self.request.prompt) + self.request.max_new_tokens

    def take(self, token: int, is_end: bool) -> None:
        """Give the text that a token adds, except what may be the beginning of a stop text."""
        if self.done:
            return
        stop, before = self.request.stop, len(self.text)
        self.tokens += 1
        last = is_end or self.tokens == self.request.max_new_tokens
        self.text += self.pieces.add(token) + (self.pieces.end() if last else "")
        begin = max(0, before + 1 - max(map(len, stop), default=1))
        cuts = [cut for cut in (self.text.find(one, begin) for one in stop) if cut >= 0]
        self.ended = bool(cuts) or last
        if cuts:
            self.text = self.text[: min(cuts)]
        settled = len(self.text) - (0 if self.ended else _beginning(self.text, stop))
        finish = None if not self.ended else "stop" if cuts or is_end else "length"
        piece, self.sent = self.text[self.sent : settled], max(self.sent, settled)
        if piece or finish:
            self.give(Piece(piece, self.tokens, finish))


def _beginning(text: str, stop: Sequence[str]) -> int:
    """Number of characters at the end of a text that a stop text may begin with."""
    return max((n for one in stop for n in range(1, len(one)) if text.endswith(one[:n])), default=0)


@dataclass(eq=False)
class _Group:
    """Requests that are generated together; ``tokens`` is made at the group's first turn."""

    rows: list[_Row]
    tokens: TokenStream | None = None

    @property
    def cost(self) -> int:
        # A group that has ended is empty until the round is over, while others look whether a request fits in.
        return len(self.rows) * max((row.length for row in self.rows), default=0)


@dataclass(eq=False)
class Batcher:
    """A model that answers concurrent requests, see the module.

    Attributes:
        model: a bridge, as ``load_model`` makes it.
        combine: see `Combine`.
        batch_size: maximum number of requests in a group. By default `BATCH_SIZE` for a model in float32, and 1 for others,
            because in 16 bits a batch is rounded otherwise than each text by itself, and answers would depend on who else asks.
    """

    model: HookedModel
    combine: Combine
    batch_size: int | None = None
    _waiting: deque[_Row] = field(default_factory=deque, repr=False)
    _groups: list[_Group] = field(default_factory=list, repr=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)
    _reading: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _thread: threading.Thread | None = field(default=None, repr=False)
    _closed: bool = False

    def __post_init__(self) -> None:
        """Reject an empty batch, and a model that cannot stream."""
        TokenStream(self.model, [[0]], ()).close()
        exact = huggingface_model(self.model).dtype == torch.float32
        self._size = self.batch_size if self.batch_size is not None else BATCH_SIZE if exact else 1
        if self._size < 1:
            raise ValueError(f"batch_size={self.batch_size}: generate at least one answer at a time")
        self._ends = frozenset(end_tokens(self.model))
        self._can_drop = has_plain_cache(huggingface_model(self.model))

    def read(self, prompt: PromptLike) -> list[int]:
        """Return the token ids of a prompt, see ``models.tokens.tokenize``; may be called by several threads."""
        with self._reading:
            return tokenize(self.model, [prompt])[0]

    def room(self, prompt: list[int], max_new_tokens: int | None) -> int:
        """Return the length of an answer: as given, or `NEW_TOKENS` or what is left of the context.

        Raises:
            ValueError: if the context has no room for it.
        """
        left = context_length(self.model) - len(prompt)
        new = min(left, NEW_TOKENS) if max_new_tokens is None else max_new_tokens
        check_room(self.model, [prompt], max(new, 1))
        return new

    async def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """Yield the pieces of an answer as they come, the last one with the reason why it ends.

        Raises:
            Busy: if too many requests wait.
            Exception: what generating raised.
        """
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue()
        row = _Row(request, lambda piece: loop.call_soon_threadsafe(pieces.put_nowait, piece), tokenizer_of(self.model))
        self._submit(row)
        try:
            while True:
                piece = await pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if piece.finish:
                    return
        finally:
            row.cancelled = True

    def close(self) -> None:
        """End the thread; requests that are not answered raise an error."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _submit(self, row: _Row) -> None:
        with self._changed:
            if self._closed or len(self._waiting) >= WAITING:
                raise Busy("the model is no longer served" if self._closed else f"{WAITING} requests wait: try again later")
            self._waiting.append(row)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._groups or self._waiting or self._closed)
                if self._closed:
                    break
                self._join()
            for group in self._groups:
                self._turn(group)
            self._groups = [group for group in self._groups if group.rows]
        for row in [*self._waiting, *(row for group in self._groups for row in group.rows)]:
            self._give(row, Busy("the model is no longer served"))
        for group in self._groups:
            if group.tokens is not None:
                group.tokens.close()

    def _can_join(self, rows: Sequence[_Row] = ()) -> bool:
        """Whether the first request that waits fits into a group with ``rows``, or into a new one."""
        if not self._waiting or len(rows) >= self._size or len(self._groups) >= max(GROUPS, BATCH_SIZE // self._size):
            return False
        group = _Group([*rows, self._waiting[0]])
        longest = max(len(row.request.prompt) for row in group.rows) + max(row.request.max_new_tokens for row in group.rows)
        if rows and (group.rows[0].alone or group.rows[-1].alone):
            return False
        # A row that has ended is computed on, beyond its own length, in a cache that cannot be cut.
        if rows and not self._can_drop and longest > context_length(self.model):
            return False
        return not (rows or self._groups) or group.cost + sum(other.cost for other in self._groups) <= TOKENS

    def _join(self) -> None:
        """Make groups of the requests that wait, in their order, as many as fit."""
        while self._can_join():
            rows: list[_Row] = []
            while self._can_join(rows):
                row = self._waiting.popleft()
                if not row.done:
                    rows.append(row)
            if rows:
                self._groups.append(_Group(rows))

    def _turn(self, group: _Group) -> None:
        """Generate some tokens of a group. Its ``rows`` are empty when it has ended."""
        try:
            left = self._advance(group)
        except Exception as error:  # noqa: BLE001 - whatever a model and its hooks raise is the answer to those that ask it
            left = []
            failed = [row for row in group.rows if not row.done]
            for row in reversed(failed):
                if len(failed) == 1:
                    self._give(row, error)
                else:  # one of them is at fault
                    row.restart()
                    row.alone = True
                    with self._changed:
                        self._waiting.appendleft(row)
        if not left:
            group.rows = []
            if group.tokens is not None:
                group.tokens.close()

    def _advance(self, group: _Group) -> list[int]:
        """Generate until a row ends, at most `STEPS` tokens and at first one; returns the rows that are left."""
        most = STEPS if group.tokens is not None else 1
        if group.tokens is None:
            requests = [row.request for row in group.rows]
            interventions, numbers = self.combine([request.setting for request in requests])
            sampling = [Sampling(one.temperature, one.top_p, one.seed) for one in requests]
            drawn = any(one.temperature for one in sampling)
            group.tokens = TokenStream(
                self.model, [one.prompt for one in requests], interventions, sampling if drawn else None, numbers
            )
        tokens = group.tokens

        def give(new: list[int]) -> bool:
            done = [row.done for row in group.rows]
            for index, token in zip(tokens.rows, new, strict=True):
                row = group.rows[index]
                try:
                    row.take(token, token in self._ends)
                except RuntimeError:  # the loop that listened is closed
                    row.cancelled = True
            return [row.done for row in group.rows] != done or self._can_join() or self._closed

        tokens.advance(give, most)
        left = [index for index in tokens.rows if not group.rows[index].done]
        tokens.keep(left)
        return left

    @staticmethod
    def _give(row: _Row, error: Exception) -> None:
        try:
            row.ended = True
            row.give(error)
        except RuntimeError:
            row.cancelled = True


def same_for_all(interventions: Sequence[Intervention]) -> Combine:
    """The same interventions for every request; to them, each request is text 0."""
    return lambda settings: (interventions, torch.zeros(len(settings), dtype=torch.long))
