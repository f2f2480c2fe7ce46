"""The server of the explorer's page: nobody gets in without the token, and who leaves stops what is generated."""

import html
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from interp_transfer.deployment.guard import LARGEST_BODY
from interp_transfer.explorer.opening import session
from interp_transfer.explorer.running import Running
from interp_transfer.explorer.session import Session
from interp_transfer.interventions.streaming import TokenStream
from tests.checkpoints import hooks_of
from tests.explorer.conftest import serving, vector_of


@pytest.fixture
def own(a: Any) -> Session:
    return session(a, {"one": vector_of(a)}, prompts=["the cat"])


@pytest.fixture
def place(own: Session) -> Iterator[tuple[int, str]]:
    """Port and token."""
    with serving(own) as (url, _):
        parts = urlsplit(url)
        assert parts.hostname == "127.0.0.1"
        yield parts.port or 0, parse_qs(parts.query)["token"][0]


def send(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], str]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()


def test_the_page_needs_the_token_and_names_its_policy(place: tuple[int, str]) -> None:
    port, token = place
    assert len(token) == 32
    assert send(port, "GET", "/")[0] == 401
    assert send(port, "GET", "/?token=wrong")[0] == 401
    assert send(port, "GET", f"/?token={token}&token=wrong")[0] == 401
    assert send(port, "GET", f"/?token={token}", Host="example.org")[0] == 403
    assert send(port, "GET", f"/?token={token}", Origin="http://example.org")[0] == 403
    status, headers, page = send(port, "GET", f"/?token={token}")
    text = html.unescape(page)
    assert status == 200 and token not in text
    assert headers["cache-control"] == "no-store" and "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "default-src 'none'" in text and "connect-src 'self'" in text and "script-src 'sha256-" in text
    assert send(port, "GET", f"/docs?token={token}")[0] == 404


def test_a_message_is_answered_line_by_line(place: tuple[int, str], own: Session) -> None:
    port, token = place
    hello = send(port, "POST", "/message", json.dumps({"type": "hello"}), Authorization=f"Bearer {token}")
    assert hello[0] == 200 and json.loads(hello[2])["about"]["items"][0]["name"] == "one"
    run = json.dumps({"type": "run", "run": "x", "state": own.state.to_dict()})
    status, _, text = send(port, "POST", "/message", run, Authorization=f"Bearer {token}")
    kinds = [json.loads(line)["type"] for line in text.splitlines()]
    assert status == 200 and kinds[0] == "start" and kinds[-1] == "finished" and kinds.count("tokens") == 2
    for bad, code in (("no", 400), ("[" * 100_000, 400), ("x" * (LARGEST_BODY + 1), 413)):
        assert send(port, "POST", "/message", bad, Authorization=f"Bearer {token}")[0] == code
    assert send(port, "POST", "/message", run)[0] == 401
    assert send(port, "POST", "/message", run, Authorization="Bearer x")[0] == 401
    assert send(port, "POST", "/message", run, Authorization=f"Bearer {token}", Host="evil.example")[0] == 403
    answer = send(port, "POST", "/message", "3", Authorization=f"Bearer {token}")
    assert json.loads(answer[2])["type"] == "error"


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    advance = TokenStream.advance

    def slowly(self: TokenStream, *args: Any) -> None:
        time.sleep(0.1)
        advance(self, *args)

    monkeypatch.setattr(TokenStream, "advance", slowly)


def threads() -> int:
    return sum(thread.name == "interp-transfer-explorer" for thread in threading.enumerate())


def gone(seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while threads() and time.monotonic() < end:
        time.sleep(0.05)
    return not threads()


def test_who_leaves_stops_the_run(place: tuple[int, str], own: Session, a: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    port, token = place
    slow(monkeypatch)
    state = {**own.state.to_dict(), "max_new_tokens": 80}
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/message", json.dumps({"type": "run", "state": state}), {"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    assert json.loads(answer.fp.readline() if answer.chunked is False else answer.readline())["type"] == "start"
    assert threads() == 1
    connection.close()
    answer.close()
    assert gone() and not own.last and not hooks_of(a)


def test_a_new_run_stops_the_one_before(own: Session, a: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slow(monkeypatch)
    found: list[dict[str, Any]] = []
    running = Running(own, found.append)
    for k in range(3):
        running.post({"type": "run", "run": str(k), "state": {**own.state.to_dict(), "prompt": f"text {k}", "example": None}})
        time.sleep(0.35)
    running.post({"type": "ping"})
    assert found[-1] == {"type": "pong"} or {"type": "pong"} in found
    running.post({"type": "stop"})
    assert gone() and threads() == 0
    ended = {event["run"]: event["type"] for event in found if event["type"] in ("stopped", "finished")}
    assert ended == {"0": "stopped", "1": "stopped", "2": "stopped"} and not hooks_of(a)
    running.close()
