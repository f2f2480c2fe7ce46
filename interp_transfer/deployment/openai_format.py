"""Requests and answers of OpenAI's API, as far as a steered model has them: chat completions and completions.

Answers are the types of the library openai. Requests have one field more than OpenAI's: ``vectors`` holds the strength of each
vector by name. Decoding is greedy unless a request sets ``temperature``, whose default is 1 in OpenAI's API. A field that would
change the answer and is not known here is refused.
"""

import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi.exceptions import RequestValidationError
from openai.types import Completion, CompletionChoice, CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice
from openai.types.chat.chat_completion_chunk import Choice as ChunkChoice
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from starlette.responses import JSONResponse, Response

from interp_transfer.deployment.batching import Piece
from interp_transfer.escape import visible
from interp_transfer.names import cut

MESSAGES = 256
"""Messages of a chat; a chat is rendered once for each of them."""

_IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
"""Fields of OpenAI's API that never change an answer."""


class ApiError(Exception):
    """An error in OpenAI's format."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        kind = "invalid_request_error" if status < 500 else "server_error"  # noqa: PLR2004
        self.status, self.body = status, {"message": visible(message), "type": kind, "param": param, "code": code}

    def response(self) -> Response:
        """The error as a response."""
        return JSONResponse({"error": self.body}, self.status)


def invalid(error: RequestValidationError) -> ApiError:
    """The first thing that is wrong with a request."""
    wrong = error.errors()[0]
    where = [str(part) for part in wrong["loc"][1:]]
    shown = cut(".".join(where))
    if wrong["type"] == "json_invalid":
        return ApiError(400, "the request is no JSON")
    reason = "this server does not know it: leave it out" if wrong["type"] == "extra_forbidden" else wrong["msg"]
    return ApiError(400, f"{shown}: {reason}" if shown else reason, cut(where[0]) if where else None)


ErrorOf = Callable[[Exception], ApiError]


class _Strict(BaseModel):
    """A part of a request. Fields that are null, or that are unknown and switched off, count as not given."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _given(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        known = {name: value for name, value in body.items() if value is not None and name not in _IGNORED}
        return {name: value for name, value in known.items() if value or name in cls.model_fields}


def _encodable(text: str) -> str:
    """Refuse halves of surrogate pairs, which JSON can hold and no tokenizer reads."""
    text.encode()  # its error is a ValueError
    return text


Text = Annotated[str, AfterValidator(_encodable)]


class _Text(_Strict):
    type: Literal["text"]
    text: Text


class _Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[_Text]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class _StreamOptions(_Strict):
    include_usage: bool = False


Stop = Annotated[str, Field(min_length=1, max_length=256)]


class Body(_Strict):
    """What requests for both kinds of completions have."""

    model: str
    max_tokens: int | None = Field(None, ge=1)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] = Field(default_factory=list)
    temperature: float = Field(0.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: Literal[1] = 1
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    vectors: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)

    @property
    def new_tokens(self) -> int | None:
        """The length of the answer, if it is set."""
        return self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end the answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class ChatBody(Body):
    """A request for a chat completion."""

    messages: list[_Message] = Field(min_length=1, max_length=MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1)

    @property
    def new_tokens(self) -> int | None:
        """The length of the answer; the newer of the two names takes precedence."""
        return self.max_completion_tokens or self.max_tokens


class CompletionBody(Body):
    """A request for a completion of a text."""

    prompt: Text


@dataclass(frozen=True)
class Form:
    """The fields that all parts of an answer share.

    Attributes:
        chat: whether it is a chat completion.
        model: the name of the model in the request.
        fingerprint: of the model.
        prompt_tokens: number of tokens of the prompt.
        id: of the answer.
        created: when it was begun, seconds since 1970.
    """

    chat: bool
    model: str
    fingerprint: str
    prompt_tokens: int
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def usage(self, piece: Piece) -> CompletionUsage:
        """The tokens that an answer took, from its last piece."""
        new, read = piece.tokens, self.prompt_tokens
        return CompletionUsage(prompt_tokens=read, completion_tokens=new, total_tokens=read + new)

    def whole(self, text: str, last: Piece) -> BaseModel:
        """An answer that is not streamed."""
        finish, usage = last.finish or "stop", self.usage(last)
        if not self.chat:
            one = CompletionChoice(index=0, text=text, finish_reason=finish, logprobs=None)
            return Completion(object="text_completion", choices=[one], usage=usage, **self._common)
        message = ChatCompletionMessage(role="assistant", content=text)
        choice = Choice(index=0, message=message, finish_reason=finish, logprobs=None)
        return ChatCompletion(object="chat.completion", choices=[choice], usage=usage, **self._common)

    def chunk(self, piece: Piece, first: bool) -> BaseModel:
        """A part of a stream."""
        if not self.chat:  # the type is that of a whole answer, which always has a reason
            text = CompletionChoice.model_construct(index=0, text=piece.text, finish_reason=piece.finish, logprobs=None)
            return Completion(object="text_completion", choices=[text], **self._common)
        delta = ChoiceDelta(role="assistant", content=piece.text) if first else ChoiceDelta(content=piece.text)
        choice = ChunkChoice(index=0, delta=delta, finish_reason=piece.finish, logprobs=None)
        return ChatCompletionChunk(object="chat.completion.chunk", choices=[choice], **self._common)

    def last_chunk(self, last: Piece) -> BaseModel:
        """The part of a stream that holds the usage."""
        kind, name = (ChatCompletionChunk, "chat.completion.chunk") if self.chat else (Completion, "text_completion")
        return kind(object=name, choices=[], usage=self.usage(last), **self._common)  # type: ignore[arg-type]

    @property
    def _common(self) -> dict[str, Any]:
        return {"id": self.id, "created": self.created, "model": self.model, "system_fingerprint": self.fingerprint}


def as_json(part: BaseModel) -> str:
    """JSON of an answer or a part of one, with the fields that were set."""
    return part.model_dump_json(exclude_unset=True)


async def whole(form: Form, pieces: AsyncGenerator[Piece, None]) -> str:
    """Collect an answer."""
    texts, last = [], None
    async for last in pieces:
        texts.append(last.text)
    assert last is not None
    return as_json(form.whole("".join(texts), last))


async def events(form: Form, pieces: AsyncGenerator[Piece, None], with_usage: bool, error_of: ErrorOf) -> AsyncIterator[str]:
    """Write an answer as server-sent events; an error ends them."""
    last, first = None, True
    async with aclosing(pieces):
        try:
            async for last in pieces:
                yield _event(as_json(form.chunk(last, first)))
                first = False
        except Exception as error:  # noqa: BLE001 - the response has begun, so that the error can only be its end
            yield _event(json.dumps({"error": error_of(error).body}))
            return
    if with_usage and last is not None:
        yield _event(as_json(form.last_chunk(last)))
    yield _event("[DONE]")


def _event(data: str) -> str:
    return f"data: {data}\n\n"
