"""The server answers the official client as ``generate`` does; what it refuses, it refuses in OpenAI's format."""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
import uvicorn

import interp_transfer as it
from interp_transfer.deployment.guard import LARGEST_BODY, is_local
from interp_transfer.deployment.server import (
    Served,
    _Visible,
    application,
    listen,
    listening_at,
)
from interp_transfer.interventions.streaming import TokenStream
from interp_transfer.models.hooked_model import huggingface_model
from tests.checkpoints import WIDTH, hooks_of, make_checkpoint, word_tokenizer

SITES = {"up": "blocks.1.hook_resid_pre", "down": "blocks.2.hook_resid_pre", "side": "blocks.2.hook_resid_pre"}
TEMPLATE = "{% for m in messages %}{{ m.role[0] + ': ' + m.content + '\n' }}{% endfor %}"
WORDS = tuple("the cat sat on a mat and dogs run far from home they say x 12 + 7 u: s: a: be so it is now".split())  # noqa: SIM905
CHAT: Any = [{"role": "user", "content": "the cat sat on"}]


@dataclass
class Running:
    """A server on a free port of this machine."""

    url: str
    port: int
    served: Served
    server: uvicorn.Server
    clients: list[openai.OpenAI] = field(default_factory=list)

    @property
    def hf(self) -> Any:
        """The model of transformers, whose forward passes are counted."""
        return huggingface_model(self.served.model)

    def client(self, key: str = "none") -> openai.OpenAI:
        self.clients.append(openai.OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=60))
        return self.clients[-1]

    def send(self, body: bytes | str, path: str = "/v1/completions", **headers: str) -> tuple[int, Any]:
        """Post bytes as they are; status and parsed answer."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            named = {"Content-Type": "application/json", **headers}
            connection.request("POST", path, body if isinstance(body, bytes) else body.encode(), named)
            response = connection.getresponse()
            return response.status, json.loads(response.read())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = make_checkpoint(tmp_path_factory.mktemp("m") / "words", "llama", tokenizer=word_tokenizer(WORDS), eos_token_id=33)
    return it.load_model(str(path), device="cpu", chat_template=TEMPLATE)


@pytest.fixture(scope="module")
def served(model: Any) -> Served:
    draw = torch.Generator().manual_seed(0)
    vectors = {
        name: it.SteeringVector(torch.randn(WIDTH, generator=draw), site, it.identity(model)) for name, site in SITES.items()
    }
    return Served("tiny", model, vectors, {"up": 2.0, "down": 1.0, "side": 1.0})


@pytest.fixture(scope="module")
def start(served: Served) -> Iterator[Callable[..., Running]]:
    running: list[tuple[Running, threading.Thread]] = []

    def begin(**options: Any) -> Running:
        listening = listen("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(application(served, **options), log_config=None, timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        own = Running(listening_at(listening), listening.getsockname()[1], served, server)
        running.append((own, thread))
        return own

    yield begin
    for own, thread in running:
        for client in own.clients:
            client.close()
        own.server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
    assert not hooks_of(served.model)


@pytest.fixture(scope="module")
def running(start: Callable[..., Running]) -> Running:
    return start()


def expected(served: Served, prompt: Any, new: int, **strengths: float) -> str:
    interventions = [served.vectors[name].add(strengths[name]) for name in served.vectors if name in strengths]
    return it.generate(served.model, [prompt], *interventions, max_new_tokens=new, progress=False)[0]


def test_models_and_their_vectors_are_listed(running: Running) -> None:
    client = running.client()
    listed = client.models.list().data
    assert [one.id for one in listed] == ["tiny", "tiny:up", "tiny:down", "tiny:side"]
    assert listed[0].vectors["up"] == {"strength": 2.0, "site": SITES["up"]}  # type: ignore[attr-defined]
    assert client.models.retrieve("tiny:up").id == "tiny:up"
    with pytest.raises(openai.NotFoundError, match="there are tiny, tiny:up"):
        client.models.retrieve("other")


def test_a_chat_is_answered_as_generate_answers_it(running: Running) -> None:
    create = running.client().chat.completions.create
    plain = create(model="tiny", messages=CHAT, max_tokens=12)
    steered = create(model="tiny", messages=CHAT, max_completion_tokens=12, extra_body={"vectors": {"up": 1.5, "side": -2}})
    named = create(model="tiny:up", messages=CHAT, max_tokens=12)
    assert plain.choices[0].message.content == expected(running.served, CHAT, 12)
    assert steered.choices[0].message.content == expected(running.served, CHAT, 12, up=1.5, side=-2.0)
    assert named.choices[0].message.content == expected(running.served, CHAT, 12, up=2.0)
    assert len({plain.choices[0].message.content, steered.choices[0].message.content, named.choices[0].message.content}) == 3
    assert plain.object == "chat.completion" and plain.model == "tiny" and plain.choices[0].finish_reason == "length"
    assert plain.usage is not None and plain.usage.completion_tokens == 12
    assert plain.usage.prompt_tokens == len(
        running.served.model.tokenizer("u: the cat sat on\n", add_special_tokens=False)["input_ids"]
    )
    assert plain.system_fingerprint == it.identity(running.served.model).fingerprint


def test_a_system_prompt_and_parts_of_a_message(running: Running) -> None:
    messages: Any = [
        {"role": "developer", "content": "be"},
        {"role": "user", "content": [{"type": "text", "text": "the cat "}, {"type": "text", "text": "sat on"}], "name": "me"},
    ]
    answer = running.client().chat.completions.create(model="tiny", messages=messages, max_tokens=9)
    assert answer.choices[0].message.content == expected(running.served, [{"role": "system", "content": "be"}, *CHAT], 9)


def test_an_answer_can_be_the_next_requests_message(running: Running) -> None:
    create = running.client().chat.completions.create
    first = create(model="tiny", messages=CHAT, max_tokens=3).choices[0].message
    messages = [*CHAT, first, *CHAT]
    history = [*CHAT, {"role": "assistant", "content": first.content}, *CHAT]
    second = create(model="tiny", messages=messages, max_tokens=3).choices[0].message.content
    assert second == expected(running.served, history, 3)


@pytest.mark.parametrize("chat", [True, False])
def test_a_stream_is_the_answer_in_pieces(running: Running, chat: bool) -> None:
    client, more = running.client(), {"vectors": {"down": 1.0}}
    options: Any = {"model": "tiny", "stream": True, "stream_options": {"include_usage": True}, "extra_body": more}
    if chat:
        parts: Any = list(client.chat.completions.create(messages=CHAT, max_tokens=20, **options))
        pieces = [part.choices[0].delta.content for part in parts if part.choices]
        assert parts[0].choices[0].delta.role == "assistant" and parts[1].choices[0].delta.role is None
    else:
        parts = list(client.completions.create(prompt="x", max_tokens=20, **options))
        pieces = [part.choices[0].text for part in parts if part.choices]
    assert "".join(pieces) == expected(running.served, CHAT if chat else "x", 20, down=1.0)
    assert len(pieces) > 2 and len({part.id for part in parts}) == 1
    assert [part.choices[0].finish_reason for part in parts[:-1]] == [None] * (len(parts) - 2) + ["length"]
    assert parts[-1].choices == [] and parts[-1].usage.completion_tokens == 20


def test_the_first_piece_comes_before_the_answer_is_finished(running: Running) -> None:
    passes: list[int] = []
    handle = running.hf.register_forward_hook(lambda *_: passes.append(1) or time.sleep(0.02))
    try:
        stream = running.client().completions.create(model="tiny", prompt="dogs run", max_tokens=60, stream=True)
        next(iter(stream))
        assert len(passes) < 30
        stream.close()
        after = len(passes)
        time.sleep(1.0)
        assert len(passes) < after + 20, "a client that left still uses the model"
    finally:
        handle.remove()


def test_a_client_that_leaves_without_a_stream_frees_the_model(running: Running) -> None:
    passes: list[int] = []
    handle = running.hf.register_forward_hook(lambda *_: passes.append(1) or time.sleep(0.02))
    try:
        with closing(HTTPConnection("127.0.0.1", running.port, timeout=0.3)) as connection, pytest.raises(TimeoutError):
            body = json.dumps({"model": "tiny", "prompt": "dogs run", "max_tokens": 80})
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            connection.getresponse()
        after = len(passes)
        time.sleep(1.0)
        assert 0 < len(passes) < after + 20
    finally:
        handle.remove()


def test_32_concurrent_requests_get_the_answers_that_they_get_alone(running: Running) -> None:
    client, served = running.client(), running.served
    prompts = ["the cat sat", "x", "dogs run far from home", "12 + 7"]
    asked = [(prompts[i % 4], list(SITES)[i % 3], (i - 16) / 4, 4 + i % 9) for i in range(32)]

    def one(prompt: str, name: str, strength: float, new: int, stream: bool) -> str:
        options: Any = {"model": "tiny", "prompt": prompt, "max_tokens": new, "extra_body": {"vectors": {name: strength}}}
        if not stream:
            return client.completions.create(**options).choices[0].text
        return "".join(part.choices[0].text for part in client.completions.create(**options, stream=True))

    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda k: one(*asked[k], stream=k % 2 == 0), range(32)))
    assert together == [one(*each, stream=False) for each in asked]
    assert together == [expected(served, prompt, new, **{name: strength}) for prompt, name, strength, new in asked]
    assert len(set(together)) > 16


def test_sampling_is_repeated_by_its_seed(running: Running) -> None:
    def drawn(**options: Any) -> str:
        create = running.client().completions.create
        return create(model="tiny", prompt="the cat", max_tokens=20, **options).choices[0].text

    assert drawn() == drawn() == drawn(temperature=0) == expected(running.served, "the cat", 20)
    assert drawn(temperature=1, seed=5) == drawn(temperature=1, seed=5) != drawn(temperature=1, seed=6)
    assert drawn(temperature=1) != drawn(temperature=1)


def test_stop_texts_are_no_part_of_the_answer(running: Running) -> None:
    whole = expected(running.served, "dogs run", 30)
    stop = whole[20:27]
    answer = running.client().completions.create(model="tiny", prompt="dogs run", max_tokens=30, stop=[stop, "never"])
    assert answer.choices[0].text == whole[: whole.index(stop)] and answer.choices[0].finish_reason == "stop"


def test_fields_that_change_nothing_are_taken(running: Running) -> None:
    more = {"logprobs": None, "frequency_penalty": 0, "tools": [], "user": "me", "metadata": {"a": "b"}, "n": 1, "echo": False}
    answer = running.client().completions.create(model="tiny", prompt="the cat", max_tokens=3, extra_body=more)
    assert answer.choices[0].text == expected(running.served, "the cat", 3)


REFUSED: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"vectors": {"refusal": 1}}, 404, "unknown vector 'refusal': there are up, down, side", "vectors"),
    ({"vectors": {"../../etc/passwd": 1}}, 404, "unknown vector", "vectors"),
    ({"vectors": {"\x1b[2J": 1}}, 404, "unknown vector", "vectors"),
    ({"vectors": {"up": float("nan")}}, 400, "vectors.up: Input should be a finite number", "vectors"),
    ({"vectors": {"up": float("inf")}}, 400, "vectors.up: Input should be a finite number", "vectors"),
    ({"vectors": {"up": 1e300}}, 400, "check the vector and its strength", None),
    ({"vectors": {"up": 10**400}}, 400, "vectors.up", "vectors"),
    ({"vectors": {"up": "1"}}, 400, "vectors.up: Input should be a valid number", "vectors"),
    ({"vectors": {"up": True}}, 400, "vectors.up: Input should be a valid number", "vectors"),
    ({"vectors": ["up"]}, 400, "vectors: Input should be a valid dictionary", "vectors"),
    ({"model": "other"}, 404, "unknown model 'other': there are tiny, tiny:up", "model"),
    ({"model": "tiny:/etc/passwd"}, 404, "unknown model", "model"),
    ({"model": None}, 400, "model: Field required", "model"),
    ({"prompt": ["a", "b"]}, 400, "prompt: Input should be a valid string", "prompt"),
    ({"prompt": ""}, 400, "has no tokens", "prompt"),
    ({"prompt": "a " * 400}, 400, "the model's context is 96", "prompt"),
    ({"max_tokens": 500}, 400, "500 are to come, the model's context is 96", "prompt"),
    ({"max_tokens": 0}, 400, "max_tokens: Input should be greater than or equal to 1", "max_tokens"),
    ({"max_tokens": 2.5}, 400, "max_tokens", "max_tokens"),
    ({"temperature": -1}, 400, "temperature", "temperature"),
    ({"temperature": float("nan")}, 400, "temperature", "temperature"),
    ({"n": 2}, 400, "n: Input should be 1", "n"),
    ({"stop": ""}, 400, "stop", "stop"),
    ({"stop": ["a"] * 5}, 400, "stop", "stop"),
    ({"seed": 10**30}, 400, "seed", "seed"),
    ({"logprobs": 3}, 400, "logprobs: this server does not know it", "logprobs"),
    ({"suffix": "x"}, 400, "suffix: this server does not know it", "suffix"),
    ({"vector": {"up": 1}}, 400, "vector: this server does not know it", "vector"),
]


@pytest.mark.parametrize(("change", "status", "message", "param"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused_in_openais_format(
    running: Running, change: dict[str, Any], status: int, message: str, param: str | None
) -> None:
    body = {"model": "tiny", "prompt": "the cat", "max_tokens": 5, **change}
    for stream in (False, True):
        got, answer = running.send(json.dumps({**body, "stream": stream}))
        assert got == status and set(answer) == {"error"}
        error = answer["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
        assert message in error["message"] and error["param"] == param
        assert error["message"].isprintable() and "Traceback" not in error["message"] and ".py" not in error["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe", ""),
        (b"[1]", "valid dictionary"),
        (b'"a"', "valid dictionary"),
        (b"", "required"),
        (b"[" * 100_000, ""),
        (b'{"model": "tiny", "prompt": "\\ud800"}', "prompt"),
        (b'{"model": "tiny", "prompt": "a", "seed": ' + b"9" * 6000 + b"}", ""),
    ],
    ids=["cut", "no text", "list", "string", "empty", "deep", "surrogate", "long number"],
)
def test_bodies_that_are_no_request(running: Running, body: bytes, message: str) -> None:
    status, answer = running.send(body)
    assert status == 400 and set(answer["error"]) == {"message", "type", "param", "code"}
    assert message in answer["error"]["message"]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least 1 item"),
        ([{"role": "tool", "content": "a"}], "messages.0.role"),
        ([{"role": "user"}], "messages.0.content: Field required"),
        ([{"role": "user", "content": 3}], "messages.0.content"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}],
            "messages.0.content",
        ),
        ([*CHAT, {"role": "assistant", "content": "so"}], "the last message is the assistant's"),
        (CHAT * 300, "at most 256 items"),
    ],
    ids=["none", "tool", "empty", "number", "image", "assistant", "many"],
)
def test_chats_that_are_refused(running: Running, messages: Any, message: str) -> None:
    status, answer = running.send(json.dumps({"model": "tiny", "messages": messages}), "/v1/chat/completions")
    assert status == 400 and message in answer["error"]["message"]
    assert answer["error"]["param"] == "messages"


def test_unknown_addresses_and_methods(running: Running) -> None:
    assert running.send("{}", "/v1/embeddings")[0] == 404
    assert running.send("{}", "/v1/models")[0] == 405
    assert "error" in running.send("{}", "/docs")[1]


def test_an_oversized_body_is_refused_before_it_is_read(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as sock:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {LARGEST_BODY + 1}\r\n\r\n"
        sock.sendall(head.encode())  # and nothing of the body
        assert b" 413 " in sock.recv(4096)
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        sock.settimeout(20)
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for _ in range(LARGEST_BODY // 0x10000 + 1):  # without its end
            sock.sendall(chunk)
        assert b" 413 " in sock.recv(4096)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[", "10.0.0.1"])
def test_other_hosts_and_web_pages_are_refused(running: Running, host: str) -> None:
    body = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 1})
    status, answer = running.send(body, Host=host)
    assert status == 403 and answer["error"]["code"] == "wrong_host"
    status, answer = running.send(body, Origin=f"http://{host}")
    assert status == 403 and answer["error"]["code"] == "wrong_origin"


def test_names_of_this_machine_are_taken(running: Running) -> None:
    body = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 1})
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:8000"):
        assert running.send(body, Host=host)[0] == 200
    assert running.send(body, Host="localhost", Origin="http://localhost")[0] == 200
    assert all(map(is_local, ("127.0.0.9", "::1", "localhost")))
    assert not any(map(is_local, ("0.0.0.0", "::", "10.0.0.1", "evil")))


def test_no_answer_allows_other_pages_to_read_it(running: Running) -> None:
    with closing(HTTPConnection("127.0.0.1", running.port, timeout=20)) as connection:
        connection.request("OPTIONS", "/v1/completions", headers={"Access-Control-Request-Method": "POST"})
        response = connection.getresponse()
        response.read()
    assert response.status == 405 and not [name for name in response.headers if name.lower().startswith("access-control")]


def test_a_key_is_required_where_one_is_set(start: Callable[..., Running]) -> None:
    guarded = start(api_key="sesame-ä")
    with pytest.raises(openai.AuthenticationError, match="the key is missing or wrong"):
        guarded.client("sesam").models.list()
    body = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 1})
    assert guarded.send(body)[0] == 401
    assert guarded.send(body, Authorization="Bearer sesame-ä".encode().decode("latin-1"))[0] == 200


def test_an_error_after_the_first_piece_ends_the_stream(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    advance, calls = TokenStream.advance, []

    def fails(self: TokenStream, give: Any, most: int = 1) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("/secret/path \x1b[2J")
        advance(self, give, most)

    monkeypatch.setattr(TokenStream, "advance", fails)
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(_Visible("%(message)s").format(record))  # type: ignore[method-assign]
    log = logging.getLogger("interp_transfer.deployment.server")
    log.addHandler(handler)
    try:
        stream = running.client().completions.create(model="tiny", prompt="dogs run far", max_tokens=30, stream=True)
        with pytest.raises(openai.APIError, match="could not be computed") as error:
            list(stream)
        assert "secret" not in str(error.value)
        with pytest.raises(openai.InternalServerError, match="could not be computed") as error:
            running.client().completions.create(model="tiny", prompt="dogs run far", max_tokens=30)
        assert "secret" not in str(error.value)
    finally:
        log.removeHandler(handler)
    assert len(said) == 2 and all("/secret/path" in one and "\x1b" not in one for one in said)
    monkeypatch.undo()
    answer = running.client().completions.create(model="tiny", prompt="dogs", max_tokens=5)
    assert answer.choices[0].text == expected(running.served, "dogs", 5)


def test_stopping_the_server_ends_streams(start: Callable[..., Running]) -> None:
    own = start()
    handle = own.hf.register_forward_hook(lambda *_: time.sleep(0.2))
    try:
        stream = own.client().completions.create(model="tiny", prompt="dogs run", max_tokens=80, stream=True)
        next(iter(stream))
        own.server.should_exit = True
        begun = time.monotonic()
        with pytest.raises((openai.APIError, Exception)):
            list(stream)
        assert time.monotonic() - begun < 8
    finally:
        handle.remove()


@pytest.mark.parametrize("name", ["a/b", "..", "", "a\\b", "a:b", "a\n", "a\x1b", "-" * 65])
def test_a_vectors_name_is_plain(served: Served, name: str) -> None:
    with pytest.raises(ValueError, match="a vector's name is"):
        Served("tiny", served.model, {name: served.vectors["up"]}, {name: 1.0})


def test_a_vector_of_another_model_is_refused(served: Served, folder: Callable[[str], Path]) -> None:
    other = it.load_model(str(folder("qwen2")), device="cpu")
    with pytest.raises(ValueError, match="not for"):
        Served("tiny", other, served.vectors, served.strengths)


def test_a_port_in_use_is_refused(running: Running) -> None:
    with pytest.raises(ValueError, match=r"Address already in use; choose another"):
        listen("127.0.0.1", running.port)
    with pytest.raises(ValueError, match="give one from 1 to 65535"):
        listen("127.0.0.1", 70000)
