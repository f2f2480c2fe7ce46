"""Conversations with a model behind any OpenAI-compatible endpoint, by the client of the library openai.

The address is read from OPENAI_BASE_URL unless it is passed, the key from OPENAI_API_KEY only. The key is no field of any
object, and is removed from every text that the endpoint returns. The client's own retries are off, because each request counts
against the budget and has to stop when the run ends.

A failure that concerns one question leaves that question to do, and the others continue. A failure that concerns every question
ends the run: a refused key or an unknown model with an error, a used-up budget or an endpoint that stopped answering with the
rest left to do.
"""

import json
import os
import random
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from interp_transfer.evaluation.judges.local import Answer
from interp_transfer.evaluation.judges.rubric import Message
from interp_transfer.extras import require

ADDRESS, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
OPTIONS = {"max_tokens": 16, "temperature": 0}
"""Default options of a request: one digit needs no more tokens, and equal questions should get equal answers."""
FIRST_WAIT = 1.0
"""Seconds before the second attempt; doubled with every further one. The wait is drawn between half of that and all of it."""
LONGEST_WAIT = 60.0
"""Seconds; an endpoint that asks for a longer wait is not asked again."""
PATIENCE = 8
"""Number of consecutive questions without an answer after which the run ends."""
LARGEST_REPLY = 1_000_000
"""Bytes."""
QUOTED = 120
"""Number of characters of an endpoint's error message that a reason quotes."""
_SHORTEST_KEY = 8
"""Shorter keys are placeholders ("none"); removing them would damage texts."""


@dataclass
class _Failed(Exception):  # noqa: N818 - never leaves this module
    """A request without a usable reply.

    Attributes:
        problem: "kind: what happened".
        wait: minimum number of seconds before the next attempt; None if another one is pointless.
    """

    problem: str
    wait: float | None = 0.0


class EndpointRefused(ValueError):
    """No question can be answered: the endpoint refuses the key, or has no such model."""


@dataclass(frozen=True)
class Budget:
    """The most that one run may spend.

    Attributes:
        requests: number of HTTP requests, repeated ones included; None is without limit.
    """

    requests: int | None = None

    def __post_init__(self) -> None:
        """Reject negative limits."""
        if self.requests is not None and self.requests < 0:
            raise ValueError(f"a budget of {self.requests} requests: give 0 or more, or None for no limit")


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible endpoint.

    Attributes:
        model: the endpoint's name for it.
        base_url: address up to ``/v1``, included; default: OPENAI_BASE_URL, or OpenAI's own.
        options: of every request. Models that reason first need others: ``{"max_completion_tokens": 500}``.
        budget: of a run.
        concurrency: maximum number of requests in flight.
        retries: further attempts after time-outs, rate limits and server errors.
        timeout: seconds until a reply has to be complete.
    """

    model: str
    base_url: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=lambda: dict(OPTIONS), hash=False)
    budget: Budget = Budget()
    concurrency: int = 4
    retries: int = 3
    timeout: float | int = 60.0

    def __post_init__(self) -> None:
        """Reject numbers that make no sense."""
        if self.concurrency < 1 or self.retries < 0 or self.timeout <= 0:
            raise ValueError(
                f"concurrency={self.concurrency}, retries={self.retries}, timeout={self.timeout}: give at least 1, 0, and more "
                "than 0"
            )
        if hidden := [name for name in self.options if name in ("extra_headers", "extra_query")]:
            raise ValueError(
                f"options hold {hidden[0]!r}, which may hold a key, and options are stored with the opinions: leave it out"
            )

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's name and the options; not the address, for the same model may move."""
        return {"endpoint model": self.model, "options": dict(self.options)}

    def __call__(self, conversations: Sequence[Sequence[Message]]) -> Generator[tuple[int, Answer], None, None]:
        """Yield answers as they arrive; those that are left to do when the run ends have the reason.

        Raises:
            EndpointRefused: when the key or the model is refused, after the answers to requests in flight.
            ImportError: if openai is not installed.
            ValueError: for an environment without a key where one is needed, and a key that no header can hold.
        """
        if not conversations:
            return
        client, run = self._client(), _Run(self)
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="judge")
        answers = {pool.submit(self._one, client, run, messages): index for index, messages in enumerate(conversations)}
        refused: EndpointRefused | None = None
        try:
            for future in as_completed(answers):
                try:
                    yield answers[future], future.result()
                except EndpointRefused as error:
                    refused = error
            if refused is not None:
                raise refused
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
        """Answer one conversation, with further attempts where they may help."""
        problem = ""
        for attempt in range(self.retries + 1):
            if not run.take():
                return Answer(None, f"{run.ended}; before that {problem}" if problem else run.ended, final=False)
            try:
                reply = self._reply(client, run, messages, "1 try" if not attempt else f"{attempt + 1} tries")
            except _Failed as failed:
                problem = failed.problem
                if failed.wait is None or attempt == self.retries:
                    break
                backoff = FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.0)
                run.stop.wait(min(max(backoff, failed.wait), LONGEST_WAIT))
                continue
            run.answered = True
            answer = read_reply(run.scrub(reply))
            text = None if answer.text is None else run.scrub(answer.text)  # again, because JSON can escape its characters
            return run.counted(Answer(text, run.scrub(answer.problem), answer.final))
        return run.counted(Answer(None, problem, final=False))

    def _reply(self, client: Any, run: "_Run", messages: Sequence[Message], tries: str) -> str:
        """Return the body of one reply, read in pieces: the client's time-out is for each piece, and bounds no whole reply.

        Raises:
            EndpointRefused: when the key or the model is refused.
            _Failed: for any other error, a reply that is too late or too large, and one that breaks off.
        """
        from openai import APIError

        begun, body = time.monotonic(), bytearray()
        create = client.chat.completions.with_streaming_response.create
        try:
            with create(model=self.model, messages=list(messages), **self.options) as response:
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > LARGEST_REPLY:
                        raise _Failed(f"nonsense: a reply of more than {LARGEST_REPLY} bytes")
                    if time.monotonic() - begun > self.timeout:
                        raise _Failed(f"timed out: the reply was not whole within {self.timeout:g} s")
        except APIError as error:
            raise self._failure(error, run, tries) from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2"):  # openai builds on either
                raise
            raise _Failed(f"no connection: the reply broke off ({type(error).__name__})") from None
        return body.decode("utf-8", "replace")

    def _failure(self, error: Any, run: "_Run", tries: str) -> "_Failed | EndpointRefused":
        """Return what an error of the client means for the question, or for the run."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        where, message = _shown(self._address()), run.quoted(error)
        if isinstance(error, APITimeoutError):
            return _Failed(f"timed out: no answer within {self.timeout:g} s, {tries}")
        if isinstance(error, APIConnectionError):
            return _Failed(f"no connection: {where} does not answer, {tries}")
        if not isinstance(error, APIStatusError):
            return _Failed(f"nonsense: {message}", None)
        status = error.status_code
        if status == 401 or (status == 403 and not run.answered):  # after an answer, a 403 is about its question
            run.end("refused")
            return EndpointRefused(
                f"{where} refused the key ({status}): set {KEY} in the environment to one that may use {self.model!r}"
            )
        if status == 404:
            run.end("refused")
            return EndpointRefused(
                f"{where} has no model {self.model!r}, or is no OpenAI-compatible address (404: {message}): "
                "check the model's name and the base URL, which usually ends in /v1"
            )
        if status == 402 or (status == 429 and getattr(error, "code", None) == "insufficient_quota"):
            run.end("rate limit: the quota of the key is used up")
            return _Failed(run.ended, None)
        if status not in (408, 409, 429) and status < 500:
            return _Failed(f"request refused: {status}: {message}", None)
        kind = "rate limit" if status == 429 else "server error"
        wait = _retry_after(error.response.headers.get("retry-after", ""))
        if wait > LONGEST_WAIT:
            return _Failed(f"{kind}: the endpoint asks to wait {wait:.0f} s ({status})", None)
        return _Failed(f"{kind}: {status}, {tries}: {message}", wait)

    def _address(self) -> str:
        return self.base_url or os.environ.get(ADDRESS) or "https://api.openai.com/v1"


class _Run:
    """What one run has spent, and whether it has ended; shared by its threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.limit = endpoint.budget.requests
        self.stop, self.ended, self.answered = threading.Event(), "", False
        self._lock, self._requests, self._unanswered = threading.RLock(), 0, 0
        self._secrets = key_from_environment(), urlsplit(endpoint._address()).query

    def take(self) -> bool:
        """Take one request of the budget; False if none is left or the run has ended."""
        with self._lock:
            if self.limit is not None and self._requests >= self.limit:
                self.end(f"budget: {self.limit} requests are used up")
            self._requests += not self.ended
            return not self.ended

    def counted(self, answer: Answer) -> Answer:
        """Return the answer, and end the run after too many questions in a row without one."""
        with self._lock:
            self._unanswered = 0 if answer.final else self._unanswered + 1
            if self._unanswered >= PATIENCE:
                self.end(f"given up: {self._unanswered} questions in a row were not answered, the last for {answer.problem}")
        return answer

    def end(self, why: str) -> None:
        """Let no further request begin; the first reason is kept."""
        with self._lock:
            self.ended = self.ended or why
            self.stop.set()

    def scrub(self, text: str) -> str:
        """Return the text without secrets."""
        for secret in self._secrets:
            if len(secret) >= _SHORTEST_KEY:
                text = text.replace(secret, "[key]")
        return text

    def quoted(self, error: Any) -> str:
        """Return the beginning of an endpoint's error message, without secrets."""
        fields = (_at(getattr(error, "body", None), name) for name in ("message", "detail"))
        message = next((text for text in fields if isinstance(text, str)), str(error))
        return repr(self.scrub(" ".join(message.split()))[:QUOTED])


def key_from_environment() -> str:
    """Return the key, or an empty string.

    Raises:
        ValueError: for characters that no HTTP header can hold; the key is not shown.
    """
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError(f"{KEY} holds spaces or characters that no key has: set it again")
    return key


def read_reply(reply: str) -> Answer:
    """Return the answer in the body of a chat completion, which may be anything.

    A refusal, or an answer that a filter withheld, is final and has no text. A body that is no chat completion is a failure of
    the endpoint, and another request may succeed.
    """
    try:
        data = json.loads(reply)
    except (ValueError, RecursionError):
        return Answer(None, f"nonsense: the endpoint's reply is no JSON: {reply[:60]!r}", final=False)
    message = _at(data, "choices", 0, "message")
    refusal = _at(message, "refusal")
    if isinstance(refusal, str) and refusal:
        return Answer(None, f"refused: {refusal[:60]!r}")
    if _at(data, "choices", 0, "finish_reason") == "content_filter":
        return Answer(None, "refused: a filter held the answer back")
    content = _at(message, "content")
    if isinstance(content, str):
        return Answer(content)
    return Answer(None, f"nonsense: the endpoint's reply holds no answer: {reply[:60]!r}", final=False)


def _at(data: Any, *path: str | int) -> Any:
    """Return the value at a path of plain data, or None."""
    for step in path:
        if isinstance(step, str) and isinstance(data, dict):
            data = data.get(step)
        elif isinstance(step, int) and isinstance(data, list) and len(data) > step:
            data = data[step]
        else:
            return None
    return data


def _retry_after(value: str) -> float:
    """Return the seconds of a Retry-After header, which holds seconds or a date; 0 for anything else."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return seconds if seconds > 0 else 0.0


def _is_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _shown(address: str) -> str:
    """Return an address without its password and query."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "the address"
    return f"{parts.scheme}://{parts.netloc.rsplit('@', 1)[-1]}{parts.path}" if parts.netloc else parts.path
