"""The explorer in a browser, served on this machine alone.

The page and its messages need the token that is part of the URL, so that no other user of the machine and no web page can use
it (`deployment.guard`). A message is a request, and its answer a line of JSON for each event; a page that closes the connection
stops what is generated for it.

The module imports fastapi, uvicorn and openai, which the extra ``server`` installs.
"""

import asyncio
import json
import secrets
import socket
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from interp_transfer.deployment.guard import Guard
from interp_transfer.deployment.openai_format import ApiError
from interp_transfer.explorer.page import live_page
from interp_transfer.explorer.running import Running
from interp_transfer.explorer.session import Session

HOST = "127.0.0.1"
LAST = ("hello", "finished", "stopped", "error", "pong")
"""Events that end an answer; an error of one panel does not."""
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'none'",
}
"""Of every answer; what scripts may do is in the page's own policy."""


def application(session: Session, token: str) -> FastAPI:
    """Make the ASGI application.

    Args:
        session: what answers.
        token: that every request has to have.
    """
    app = FastAPI(openapi_url=None)
    app.add_middleware(Guard, hosts=frozenset({"localhost", HOST}), key=token, in_url=True)
    app.add_exception_handler(HTTPException, lambda _, error: ApiError(error.status_code, str(error.detail)).response())  # type: ignore[attr-defined]

    @app.get("/")
    async def page() -> Response:
        return HTMLResponse(await asyncio.to_thread(live_page, session), headers=HEADERS)

    @app.post("/message")
    async def message(http: Request) -> Response:
        try:
            plain = json.loads(await http.body())
        except (ValueError, RecursionError):
            raise HTTPException(400, "the request is no JSON") from None
        return StreamingResponse(_events(session, plain), media_type="application/x-ndjson", headers=HEADERS)

    return app


async def _events(session: Session, message: Any) -> AsyncIterator[bytes]:
    """The events that answer a message; the run is stopped when nobody listens any more."""
    loop, events = asyncio.get_running_loop(), asyncio.Queue()

    def emit(event: dict[str, Any]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(events.put_nowait, event)

    running = Running(session, emit)
    try:
        await asyncio.to_thread(running.post, message)
        while True:
            event = await events.get()
            yield json.dumps(event).encode() + b"\n"
            if event["type"] in LAST and "panel" not in event:
                return
    finally:
        running.post({"type": "stop"})


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(24)


def address(listening: socket.socket, token: str) -> str:
    """The URL of the page."""
    return f"http://{HOST}:{listening.getsockname()[1]}/?token={token}"
