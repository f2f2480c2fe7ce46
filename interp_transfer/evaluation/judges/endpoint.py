"""Conversations with a model behind any OpenAI-compatible endpoint, by the client of the library openai.

The address comes from OPENAI_BASE_URL unless it is given, the key from OPENAI_API_KEY and from nowhere else; the key is no
field of anything here, and is cut out of whatever text comes back. Retries are our own, not the client's, because each costs a
request of the budget and has to stop when the run does. What goes wrong with one question is that question's problem: it is
left to do, and the others go on. What would go wrong with every question ends the run: a refused key or an unknown model as an
error, a budget that is used up or an endpoint that answers nothing any more with the rest left to do.
"""

import json
import os
import random
import threading
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from interp_transfer.evaluation.judges.local import Answer
from interp_transfer.evaluation.judges.rubric import Message
from interp_transfer.extras import require

ADDRESS, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
OPTIONS = {"max_tokens": 16, "temperature": 0}
"""Of every request, unless others are given: a digit needs no more, and equal questions should get equal answers."""
FIRST_WAIT = 1.0
"""Seconds before the second try; doubled with every further one, and drawn between half of that and all of it."""
LARGEST_REPLY = 1_000_000
"""Bytes."""
QUOTED = 120
"""Characters of an endpoint's error message that a reason quotes."""
_SHORTEST_KEY = 8
"""Shorter ones are placeholders ("none"), and cutting them out would spoil texts."""
_CHARACTERS_PER_TOKEN = 4


class _Broken(Exception):
    """A reply that could not be read to its end: "kind: what happened"."""


class EndpointRefused(ValueError):
    """No question can be answered: the endpoint refuses the key, or has no such model."""


@dataclass(frozen=True)
class Budget:
    """What one run may spend; None is without limit.

    Attributes:
        requests: HTTP requests, tries included.
        tokens: as the endpoint counts them, prompts and answers, or a quarter of the characters where it does not. What is
            under way when they are used up is finished, so up to ``concurrency`` answers more may be spent.
    """

    requests: int | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        """Reject negative limits."""
        for name, limit in (("requests", self.requests), ("tokens", self.tokens)):
            if limit is not None and limit < 0:
                raise ValueError(f"a budget of {limit} {name}: give 0 or more, or None for no limit")


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible endpoint.

    Attributes:
        model: as the endpoint calls it.
        base_url: address up to and with ``/v1``; from the environment, or OpenAI's own, if not given.
        options: of every request. Some models want others: ``{"max_completion_tokens": 500}`` for those that think first.
        budget: of a run.
        concurrency: requests at a time.
        retries: tries after the first, for time-outs, limits of the rate and errors of the server.
        timeout: seconds to wait for an answer.
        longest_wait: seconds; an endpoint that asks to wait longer is not waited for.
        patience: questions that may stay unanswered in a row before the run ends.
    """

    model: str
    base_url: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=lambda: dict(OPTIONS), hash=False)
    budget: Budget = Budget()
    concurrency: int = 4
    retries: int = 3
    timeout: float | int = 60.0
    longest_wait: float | int = 60.0
    patience: int = 8

    def __post_init__(self) -> None:
        """Reject numbers that make no sense."""
        if self.concurrency < 1 or self.retries < 0 or self.timeout <= 0 or self.patience < 1:
            raise ValueError(
                f"concurrency={self.concurrency}, retries={self.retries}, timeout={self.timeout}, patience={self.patience}: "
                "give at least 1, 0, more than 0, and 1"
            )

        if hidden := [name for name in self.options if name in ("extra_headers", "extra_query")]:
            raise ValueError(
                f"options hold {hidden[0]!r}, which may hold a key, and options are kept beside the verdicts: leave it out"
            )

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's name and the options; not the address, for the same model may move."""
        return {"endpoint model": self.model, "options": dict(self.options)}

    def __call__(self, conversations: Sequence[Sequence[Message]]) -> Generator[tuple[int, Answer], None, None]:
        """Answers as they come; at the end, why the rest was not asked.

        Raises:
            EndpointRefused: when the key or the model is refused, after the answers that had been asked for by then.
            ImportError: without openai, naming the extra that holds it.
            ValueError: for an environment without a key where one is needed, and a key that no header can hold.
        """
        if not conversations:
            return
        client = self._client()
        run, waiting, flying = _Run(self), deque(range(len(conversations))), {}
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="judge")
        refused: EndpointRefused | None = None
        in_a_row = 0
        try:
            while flying or (waiting and not run.ended):
                while waiting and len(flying) < self.concurrency and not run.ended:
                    index = waiting.popleft()
                    future: Future[Answer] = pool.submit(self._one, client, run, conversations[index])
                    flying[future] = index
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    index = flying.pop(future)
                    try:
                        answer = future.result()
                    except EndpointRefused as error:
                        refused = error
                        run.end("refused")
                        continue
                    in_a_row = 0 if answer.final else in_a_row + 1
                    if in_a_row >= self.patience and not run.ended:
                        run.end(f"given up: {in_a_row} questions in a row were not answered, the last for {answer.problem}")
                    yield index, answer
            if refused is not None:
                raise refused
            yield from ((index, Answer(None, run.ended, final=False)) for index in waiting)
        finally:
            run.end("stopped: the run ended")
            pool.shutdown(wait=False, cancel_futures=True)
            client.close()

    def _client(self) -> Any:
        openai = require("openai", "judges", "an endpoint")
        address = self.base_url or os.environ.get(ADDRESS) or None
        key = key_from_environment()
        if not key and address is None:
            raise ValueError(f"no key: set {KEY} in the environment, or {ADDRESS} (base_url=) for an endpoint of your own")
        if address is not None and not _is_address(address):
            raise ValueError(f"{_shown(address)!r} is no address of an endpoint: give one such as http://localhost:8000/v1")
        if address is not None and "@" in urlsplit(address).netloc:  # libraries log addresses
            raise ValueError(
                f"{_shown(address)} was given with a password in it: leave it out, and set {KEY} in the environment"
            )
        return openai.OpenAI(api_key=key or "none", base_url=address, timeout=float(self.timeout), max_retries=0)

    def _one(self, client: Any, run: "_Run", messages: Sequence[Message]) -> Answer:
        """One question, tried again where that may help."""
        from openai import APIError

        problem, pause, reply = "", None, None
        for attempt in range(self.retries + 1):
            if not run.take():
                return Answer(None, f"{run.ended}; before that {problem}" if problem else run.ended, final=False)
            try:
                reply = self._reply(client, messages)
            except APIError as error:
                problem, pause = self._failure(error, run, attempt)
            except _Broken as error:
                problem, pause = str(error), self._backoff(attempt)
            if reply is None:
                if pause is None or attempt == self.retries:
                    break
                if run.stop.wait(pause):
                    return Answer(None, f"{run.ended}; before that {problem}", final=False)
                continue
            answer, tokens = read_reply(run.scrub(reply))
            run.spend(tokens if tokens is not None else _estimate(messages, reply))
            text = None if answer.text is None else run.scrub(answer.text)  # again, for JSON can spell it in many ways
            return Answer(text, run.scrub(answer.problem), answer.final)
        return Answer(None, problem, final=False)

    def _reply(self, client: Any, messages: Sequence[Message]) -> str:
        """The body of one reply, read piece by piece: the client's time-out is for each piece, and nothing bounds their number.

        Raises:
            _Broken: when it takes longer than the time-out in all, is too large, or breaks off.
        """
        begun, body = time.monotonic(), bytearray()
        create = client.chat.completions.with_streaming_response.create
        with create(model=self.model, messages=list(messages), **self.options) as response:
            try:
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > LARGEST_REPLY:
                        raise _Broken(f"nonsense: a reply of more than {LARGEST_REPLY} bytes")
                    if time.monotonic() - begun > self.timeout:
                        raise _Broken(f"timed out: the reply was not whole within {self.timeout:g} s")
            except Exception as error:
                if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2"):  # whichever the client is built on
                    raise
                raise _Broken(f"no connection: the reply broke off ({type(error).__name__})") from None
        return body.decode("utf-8", "replace")

    def _backoff(self, attempt: int) -> float:
        return min(FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.0), self.longest_wait)

    def _failure(self, error: Any, run: "_Run", attempt: int) -> tuple[str, float | None]:
        """What went wrong, and how long to wait before the next try; None if that would be pointless."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        backoff = self._backoff(attempt)
        tries = f"{attempt + 1} tries" if attempt else "1 try"
        if isinstance(error, APITimeoutError):
            return f"timed out: no answer within {self.timeout:g} s, {tries}", backoff
        if isinstance(error, APIConnectionError):
            return f"no connection: {_shown(self._address())} does not answer, {tries}", backoff
        if not isinstance(error, APIStatusError):
            return f"nonsense: {run.quoted(error)}", None
        status, said, where = error.status_code, run.quoted(error), _shown(self._address())
        if status == 401 or (status == 403 and not run.answered):  # later, a 403 is about that question
            raise EndpointRefused(
                f"{where} refused the key ({status}): set {KEY} in the environment to one that may use {self.model!r}"
            ) from None
        if status == 404:
            raise EndpointRefused(
                f"{where} has no model {self.model!r}, or is no OpenAI-compatible address (404: {said}): "
                "check the model's name and the base URL, which usually ends in /v1"
            ) from None
        if status == 402 or (status == 429 and getattr(error, "code", None) == "insufficient_quota"):
            run.end("rate limit: the quota of the key is used up")
            return run.ended, None
        if status == 429 or status in (408, 409) or status >= 500:
            kind = "rate limit" if status == 429 else "server error"
            asked = _retry_after(error.response.headers.get("retry-after"))
            if asked is not None and asked > self.longest_wait:
                return f"{kind}: the endpoint asks to wait {asked:.0f} s ({status})", None
            return f"{kind}: {status}, {tries}: {said}", min(max(backoff, asked or 0.0), self.longest_wait)
        return f"request refused: {status}: {said}", None

    def _address(self) -> str:
        return self.base_url or os.environ.get(ADDRESS) or "https://api.openai.com/v1"


class _Run:
    """What one run has spent, and whether it goes on; shared by its threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.budget, self.stop, self.ended, self.answered = endpoint.budget, threading.Event(), "", False
        self._lock, self._requests, self._tokens = threading.Lock(), 0, 0
        self._secrets = [key_from_environment(), *_userinfo(endpoint._address())]

    def take(self) -> bool:
        """One request of the budget, if there is one left and the run goes on."""
        with self._lock:
            if self.ended:
                return False
            limits = (("requests", self._requests, self.budget.requests), ("tokens", self._tokens, self.budget.tokens))
            for name, spent, limit in limits:
                if limit is not None and spent >= limit:
                    self.ended = f"budget: {limit} {name} are used up"
                    self.stop.set()
                    return False
            self._requests += 1
            return True

    def spend(self, tokens: int) -> None:
        """Note what an answer cost."""
        with self._lock:
            self._tokens += tokens
            self.answered = True

    def end(self, why: str) -> None:
        """Begin nothing more; the first reason stays."""
        with self._lock:
            self.ended = self.ended or why
            self.stop.set()

    def scrub(self, text: str) -> str:
        """The text without what is secret."""
        for secret in self._secrets:
            if len(secret) >= _SHORTEST_KEY:
                text = text.replace(secret, "[key]")
        return text

    def quoted(self, error: Any) -> str:
        """An endpoint's error message, cut short after what is secret was cut out."""
        told = (_at(getattr(error, "body", None), name) for name in ("message", "detail"))
        message = next((text for text in told if isinstance(text, str)), str(error))
        return repr(self.scrub(" ".join(message.split()))[:QUOTED])


def key_from_environment() -> str:
    """The key, or nothing.

    Raises:
        ValueError: when it holds what no HTTP header can; the key is not shown.
    """
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError(f"{KEY} holds spaces or characters that no key has: set it again")
    return key


def read_reply(reply: str) -> tuple[Answer, int | None]:
    """The answer in the body of a chat completion, and the tokens it cost if that is said; the body may be anything.

    A refusal, or a filter that held the answer back, is a final answer without a text; a body that is no chat completion is the
    endpoint's failure and may be asked for again.
    """
    try:
        data = json.loads(reply)
    except (ValueError, RecursionError):
        return Answer(None, f"nonsense: the endpoint's reply is no JSON: {reply[:60]!r}", final=False), None
    total = _at(data, "usage", "total_tokens")
    tokens = total if isinstance(total, int) and not isinstance(total, bool) and total >= 0 else None
    message = _at(data, "choices", 0, "message")
    refusal = _at(message, "refusal")
    if isinstance(refusal, str) and refusal:
        return Answer(None, f"refused: {refusal[:60]!r}"), tokens
    if _at(data, "choices", 0, "finish_reason") == "content_filter":
        return Answer(None, "refused: a filter held the answer back"), tokens
    content = _at(message, "content")
    if isinstance(content, str):
        return Answer(content), tokens
    return Answer(None, f"nonsense: the endpoint's reply holds no answer: {reply[:60]!r}", final=False), tokens


def _at(data: Any, *path: str | int) -> Any:
    """What is at a path of plain data, or None."""
    for step in path:
        if isinstance(step, str) and isinstance(data, dict):
            data = data.get(step)
        elif isinstance(step, int) and isinstance(data, list) and len(data) > step:
            data = data[step]
        else:
            return None
    return data


def _retry_after(value: str | None) -> float | None:
    """Seconds that an endpoint asks to wait, given as seconds or as a date."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if seconds == seconds else None


def _estimate(messages: Sequence[Message], reply: str) -> int:
    return (sum(len(message["content"]) for message in messages) + len(reply)) // _CHARACTERS_PER_TOKEN


def _is_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _userinfo(address: str) -> list[str]:
    parts = urlsplit(address)
    return [secret for secret in (parts.password, parts.query) if secret]


def _shown(address: str) -> str:
    """An address without what may be secret in it."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "the address"
    return f"{parts.scheme}://{parts.netloc.rsplit('@', 1)[-1]}{parts.path}" if parts.netloc else parts.path
