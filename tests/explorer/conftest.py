"""Small models with random weights, a task for them, and the page of an explorer that is served."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.explorer.opening import session
from interp_transfer.explorer.session import Session

SITE, THERE = "blocks.2.hook_resid_pre", "blocks.1.hook_resid_pre"
PAIRS = [(f"the cat {k} sat", f"a dog {k} ran") for k in range(60)]
STRONG = 40.0
"""Changes a completion."""


@pytest.fixture
def a(wrapped: Callable[[str], Any]) -> Any:
    return wrapped("qwen2")


@pytest.fixture
def b(wrapped: Callable[[str], Any]) -> Any:
    return wrapped("llama")


@pytest.fixture(scope="session")
def task() -> it.Task:
    return it.Task.from_pairs(PAIRS, "contains:cat", name="cats", max_new_tokens=8)


@pytest.fixture
def vector(a: Any) -> it.SteeringVector:
    return vector_of(a)


def vector_of(model: Any, site: str = SITE, seed: int = 0) -> it.SteeringVector:
    direction = torch.randn(int(model.cfg.d_model), generator=torch.Generator().manual_seed(seed))
    return it.SteeringVector(direction, site, it.identity(model))


@pytest.fixture
def cats(a: Any, b: Any, task: it.Task) -> Session:
    """The explorer of a task and two models."""
    return session(a, b, task, options=options(source_site=SITE, target_site=THERE))


def options(**changes: Any) -> Any:
    from interp_transfer.explorer.opening import ExploreOptions

    return ExploreOptions(**changes)


def events(session: Session, stopped: Callable[[], bool] = lambda: False, **changes: Any) -> list[dict[str, Any]]:
    """What a run with changed settings emits."""
    found: list[dict[str, Any]] = []
    state = {**session.state.to_dict(), **changes}
    session.handle({"type": "run", "run": "r", "state": state}, found.append, stopped)
    assert all(event["run"] == "r" for event in found)
    return found


def of(kind: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in found if event["type"] == kind]


def texts(found: list[dict[str, Any]]) -> dict[str, str]:
    """The text of each panel."""
    said = {panel["key"]: "" for panel in of("start", found)[0]["panels"]}
    for event in of("text", found):
        said[event["panel"]] += event["text"]
    return said


@contextmanager
def serving(session: Session) -> Iterator[tuple[str, Any]]:
    """The URL of a session's page, and the server; both end with the block."""
    import uvicorn

    from interp_transfer.deployment.server import listen
    from interp_transfer.explorer.local import HOST, address, application, new_token

    listening, token = listen(HOST, 0), new_token()
    config = uvicorn.Config(application(session, token), log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield address(listening, token), server
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
        listening.close()
        for one in threading.enumerate():
            if one.name == "interp-transfer-explorer":  # it ends its token
                one.join(60)
                assert not one.is_alive()
