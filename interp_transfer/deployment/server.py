"""A server with OpenAI's API for a model and its steering vectors, see ``openai_format`` for what it accepts.

A request names vectors and their strengths. It never names a file: the vectors are those that the server was started with.

`transformers serve` is not the base: its requests load any model, its errors are not OpenAI's, and its generation has no place
for interventions that differ from request to request.

The module imports fastapi, uvicorn and openai, which the extra ``server`` installs.
"""

import asyncio
import logging
import re
import secrets
import socket
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from openai.types import Model
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from interp_transfer.activations.positions import Positions
from interp_transfer.deployment.batching import Batcher, Busy, Request
from interp_transfer.deployment.guard import Guard, is_local
from interp_transfer.deployment.openai_format import ApiError, Body, ChatBody, CompletionBody, Form, events, invalid, whole
from interp_transfer.escape import visible
from interp_transfer.interventions.intervention import Intervention, check_intervention
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.tokens import TextTooLong
from interp_transfer.names import did_you_mean, first_line, quoted
from interp_transfer.prompts.chats import PromptLike
from interp_transfer.vectors.vector import SteeringVector

SHUTDOWN_SECONDS = 2
"""Time for answers in flight after Ctrl-C."""

NAME = re.compile(r"\w[\w.-]{0,63}")
"""A vector's name: no separators of paths and nothing that is not printed."""

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Served:
    """A model as it is served.

    Attributes:
        name: the name that requests give.
        model: a bridge, as ``load_model`` makes it.
        vectors: steering vectors by name.
        strengths: the usual strength of each vector.
        positions: the tokens at which vectors are added.
    """

    name: str
    model: HookedModel
    vectors: Mapping[str, SteeringVector]
    strengths: Mapping[str, float]
    positions: Positions = "all"

    def __post_init__(self) -> None:
        """Refuse names that are not plain, and vectors that do not fit the model."""
        for name, vector in self.vectors.items():
            if not NAME.fullmatch(name):
                raise ValueError(f"a vector's name is {quoted(name)}: give up to 64 letters, digits, '_', '-' and '.'")
            check_intervention(self.model, vector.add(1.0, self.positions))

    def combine(self, settings: Sequence[Mapping[str, float]]) -> tuple[list[Intervention], torch.Tensor]:
        """Put each request under the vectors of its setting, in the order in which the vectors are served."""
        used = [name for name in self.vectors if any(setting.get(name) for setting in settings)]
        strengths = {name: torch.tensor([setting.get(name, 0.0) for setting in settings]) for name in used}
        interventions = [self.vectors[name].add(strengths[name], self.positions) for name in used]
        return interventions, torch.arange(len(settings))

    def setting(self, model: str, vectors: Mapping[str, float]) -> dict[str, float]:
        """Return the strengths that a request means by its model's name and its vectors.

        Raises:
            ApiError: for an unknown model or vector, with the list.
        """
        base, colon, one = (self.name, "", "") if model == self.name else model.rpartition(":")
        if base != self.name or (colon and one not in self.vectors):
            raise ApiError(404, f"unknown model {_listed(model, self.names)}", "model", "model_not_found")
        for name in vectors:
            if name not in self.vectors:
                raise ApiError(404, f"unknown vector {_listed(name, list(self.vectors))}", "vectors", "vector_not_found")
        return {**({one: self.strengths[one]} if colon else {}), **vectors}

    @property
    def names(self) -> list[str]:
        """The names of the model, alone and with each vector."""
        return [self.name, *(f"{self.name}:{vector}" for vector in self.vectors)]


def _listed(name: str, known: list[str]) -> str:
    return f"{quoted(name)}: {did_you_mean(name, known)}there are {', '.join(known) or 'none'}"


def application(
    served: Served, *, host: str = "127.0.0.1", api_key: str | None = None, batch_size: int | None = None
) -> FastAPI:
    """Make the ASGI application that serves a model.

    Args:
        served: the model and its vectors.
        host: the address that it will listen on; for one of this machine, requests for other hosts are refused.
        api_key: required of every request.
        batch_size: maximum number of answers that are computed together, see `Batcher`.
    """
    batcher, created = Batcher(served.model, served.combine, batch_size), int(time.time())
    fingerprint = identity(served.model).fingerprint

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    local = frozenset({"localhost", "127.0.0.1", "::1", host})
    app.add_middleware(Guard, hosts=local if is_local(host) else None, key=api_key or None)
    app.add_exception_handler(ApiError, lambda _, error: error.response())  # type: ignore[attr-defined]
    app.add_exception_handler(Exception, lambda _, error: _error_of(error).response())
    app.add_exception_handler(RequestValidationError, lambda _, error: invalid(error).response())  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, lambda _, error: ApiError(error.status_code, str(error.detail)).response())  # type: ignore[attr-defined]

    def about(name: str) -> dict[str, Any]:
        vectors = {v: {"strength": served.strengths[v], "site": served.vectors[v].site} for v in served.vectors}
        known = Model(id=name, created=created, object="model", owned_by="interp_transfer").model_dump(exclude_unset=True)
        return {**known, "vectors": vectors} if name == served.name else known

    @app.get("/v1/models")
    async def models() -> Any:
        return {"object": "list", "data": [about(name) for name in served.names]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Any:
        served.setting(name, {})
        return about(name)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatBody, http: HttpRequest) -> Response:
        if body.messages[-1].role == "assistant":
            raise ApiError(400, "the last message is the assistant's: end with one of the user", "messages")
        return await respond(body, [message.plain() for message in body.messages], http)

    @app.post("/v1/completions")
    async def completions(body: CompletionBody, http: HttpRequest) -> Response:
        return await respond(body, body.prompt, http)

    async def respond(body: Body, prompt: PromptLike, http: HttpRequest) -> Response:
        setting, chat = served.setting(body.model, body.vectors), isinstance(body, ChatBody)
        try:
            ids = await asyncio.to_thread(batcher.read, prompt)
            new = batcher.room(ids, body.new_tokens)
        except ValueError as error:
            code = "context_length_exceeded" if isinstance(error, TextTooLong) else None
            raise ApiError(400, first_line(error), "messages" if chat else "prompt", code) from error
        seed = secrets.randbits(63) if body.seed is None else body.seed
        pieces = batcher.answer(Request(ids, new, setting, body.stops, body.temperature, body.top_p, seed))
        form = Form(chat, body.model, fingerprint, len(ids))
        try:
            if not body.stream:
                return Response(await _unless_gone(http, whole(form, pieces)), media_type="application/json")
            first = await _unless_gone(
                http, anext(pieces)
            )  # a request that fails before its first token gets an error's status
            stream = events(form, _after(first, pieces), body.stream_options.include_usage, _error_of)
            return StreamingResponse(stream, media_type="text/event-stream")
        except _Gone:
            return Response(status_code=499)  # nobody reads it
        except Exception as error:  # noqa: BLE001 - see _error_of
            raise _error_of(error) from error

    return app


async def _after(first: T, rest: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    async with aclosing(rest):
        yield first
        async for one in rest:
            yield one


def _error_of(error: Exception) -> ApiError:
    """What a failed generation tells its client: a ``ValueError`` of the toolkit as it is, of others nothing."""
    if isinstance(error, Busy):
        return ApiError(429, str(error), code="busy")
    if isinstance(error, ValueError):
        return ApiError(400, first_line(error))
    _log.error("%s", "".join(traceback.format_exception(error)))
    return ApiError(500, "the answer could not be computed: the server's log has the reason")


class _Gone(Exception):  # noqa: N818 - never leaves this module
    """The client has closed the connection."""


async def _unless_gone(http: HttpRequest, work: Awaitable[T]) -> T:
    """Wait for work, and cancel it when the client closes the connection.

    Raises:
        _Gone: in that case.
    """

    async def gone() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise _Gone
    finally:
        for one in (task, watch):
            one.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


class _Visible(logging.Formatter):
    """Log lines in which foreign text hides nothing."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"visible": {"()": _Visible, "fmt": "%(levelname)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "visible"}},
    "loggers": {name: {"handlers": ["stderr"], "level": "WARNING", "propagate": False} for name in ("uvicorn", __name__)},
}


def listen(host: str, port: int) -> socket.socket:
    """Take the address, before a model is loaded for it.

    Raises:
        ValueError: for a port that is in use or may not be used, and a host that is not this machine's.
    """
    if not 0 <= port < 1 << 16:
        raise ValueError(f"port {port}: give one from 1 to 65535, or 0 for any that is free")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = (error.strerror or "").partition(" (")[0]
        raise ValueError(f"cannot listen on {host}, port {port}: {reason}; choose another with --port or --host") from error


def listening_at(listening: socket.socket) -> str:
    """The base URL for clients."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve until Ctrl-C."""
    config = uvicorn.Config(
        app, log_config=_LOGGING, access_log=False, server_header=False, timeout_graceful_shutdown=SHUTDOWN_SECONDS
    )
    uvicorn.Server(config).run(sockets=[listening])
