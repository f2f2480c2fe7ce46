"""What a server on this machine refuses before it reads a request."""

import hmac
import ipaddress
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from interp_transfer.deployment.openai_format import ApiError
from interp_transfer.names import quoted

LARGEST_BODY = 1 << 20
"""Bytes of a request."""


class Guard:
    """Refuses requests before they are read: of other hosts and of web pages, without the key, and those that are too large.

    A web page can send requests to this machine, and by a name of its own that leads here it could read the answers.

    Args:
        app: the application that is guarded.
        hosts: names of this machine; None for a server that is meant for others.
        key: that every request has to have as its bearer token.
        in_url: take the key as the URL's ``token`` as well, which a browser that opens a page can send.
    """

    def __init__(self, app: Any, hosts: frozenset[str] | None, key: str | None, in_url: bool = False) -> None:
        self.app, self.hosts, self.key, self.in_url = app, hosts, key, in_url

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, size = Headers(scope=scope), 0

        async def limited() -> Any:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > LARGEST_BODY:
                raise HTTPException(413, _TOO_LARGE)
            return message

        error = self._refusal(headers, scope.get("query_string", b""))
        await (self.app(scope, limited, send) if error is None else error.response()(scope, receive, send))

    def _refusal(self, headers: Headers, query: bytes) -> ApiError | None:
        host = headers.get("host", "")
        if self.hosts is not None and _hostname(host) not in self.hosts:
            return ApiError(403, f"the host {quoted(host)} is not this machine", code="wrong_host")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return ApiError(403, "web pages may not use this server", code="wrong_origin")
        given = headers.get("authorization", "").removeprefix("Bearer ").encode("latin-1")
        if self.in_url and not given:
            given = parse_qs(query.decode("latin-1")).get("token", [""])[-1].encode()
        if self.key is not None and not hmac.compare_digest(given, self.key.encode()):
            return ApiError(401, "the key is missing or wrong", code="invalid_api_key")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15 or int(length) > LARGEST_BODY:  # noqa: PLR2004
            return ApiError(413, _TOO_LARGE)
        return None


_TOO_LARGE = f"the request is larger than {LARGEST_BODY} bytes: shorten it"


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def is_local(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
