"""An endpoint that does everything wrong, and one that is real."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from interp_transfer.evaluation.judges import Item, ask, endpoint
from interp_transfer.evaluation.judges.endpoint import Budget, Endpoint, EndpointRefused, read_reply
from interp_transfer.evaluation.judges.rubric import COHERENCE, SIMILARITY, RubricJudge

KEY = "sk-very-secret-0123456789"
Reply = tuple[int, dict[str, str], str]


def said(text: Any, **more: Any) -> str:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text, **more}
    return json.dumps({"id": "1", "choices": [{"index": 0, "message": message}], "usage": {"total_tokens": 10}})


def marked(text: Any) -> Reply:
    return 200, {}, said(text)


@dataclass
class Fake:
    """An OpenAI-compatible server that answers as a function of the question says."""

    answer: Callable[[str, int], Reply] = lambda question, times: marked("4")
    asked: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    piece: int = 1 << 20
    pause: float = 0.0
    lock: Any = field(default_factory=threading.Lock)
    url: str = ""

    def times(self, text: str) -> int:
        return sum(text in question for question in self.asked)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    state = Fake()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = body["messages"][-1]["content"]
            with state.lock:
                state.asked.append(question)
                state.keys.append(self.headers["Authorization"])
                state.bodies.append(body)
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
                times = state.asked.count(question)
            try:
                status, headers, text = state.answer(question, times)
            finally:  # before the reply: whoever reads it may ask again at once
                with state.lock:
                    state.at_once -= 1
            try:
                raw = text.encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers, "Content-Length": str(len(raw))}.items():
                    self.send_header(name, value)
                self.end_headers()
                for start in range(0, len(raw), state.piece):
                    self.wfile.write(raw[start : start + state.piece])
                    time.sleep(state.pause)
            except (BrokenPipeError, ConnectionResetError):  # whoever asked has left
                pass

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", state.url)
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    yield state
    server.shutdown()
    server.server_close()


def judge(**options: Any) -> RubricJudge:
    return RubricJudge(COHERENCE, Endpoint("judge-1", **{"timeout": 5.0, **options}))


def asked(n: int = 6, cache: Path | None = None, **options: Any) -> Any:
    """Texts "text 0", "text 1", ... judged."""
    texts = [f"text {i}." for i in range(n)]
    return ask(judge(**options), ["p"] * n, texts, cache=cache, progress=False)


def which(question: str) -> int:
    return int(question.split("text ")[1].split(".")[0])


def test_good_answers(fake: Fake, tmp_path: Path):
    fake.answer = lambda question, times: marked(f" {which(question)}\n")
    judged = asked(cache=tmp_path)
    assert judged.scores == [0, 1, 2, 3, 4, 5]
    assert set(fake.keys) == {f"Bearer {KEY}"}
    assert fake.bodies[0]["model"] == "judge-1"
    assert (fake.bodies[0]["temperature"], fake.bodies[0]["max_tokens"]) == (0, 16)
    again = asked(cache=tmp_path, base_url="http://127.0.0.1:1/v1")  # nobody is there: replayed
    assert (again.scores, again.replayed, len(fake.asked)) == (judged.scores, 6, 6)


def test_references_are_shown(fake: Fake):
    judged = ask(RubricJudge(SIMILARITY, Endpoint("m")), ["p"], ["one"], ["other"], progress=False)
    assert judged.scores == [4]
    assert "<answer>\none\n</answer>" in fake.asked[0]
    assert "<reference>\nother\n</reference>" in fake.asked[0]


def test_a_limited_rate_is_waited_for(fake: Fake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.001)
    fake.answer = lambda question, times: (429, {"Retry-After": "0.3"}, "{}") if times == 1 else marked("3")
    begun = time.monotonic()
    judged = asked(2, concurrency=2)
    assert judged.scores == [3, 3]
    assert len(fake.asked) == 4
    assert time.monotonic() - begun >= 0.3


def test_a_limit_without_end_leaves_the_question(fake: Fake, tmp_path: Path):
    fake.answer = lambda question, times: (429, {}, '{"error": {"message": "slow"}}') if which(question) == 2 else marked("3")
    judged = asked(4, cache=tmp_path, retries=2)
    assert (judged.missing, judged.left, fake.times("text 2")) == (1, [2], 3)
    assert judged.opinions[2].reason.startswith("rate limit: 429, 3 tries")
    fake.answer = lambda question, times: marked("1")
    again = asked(4, cache=tmp_path)
    assert (again.scores, again.replayed) == ([3, 3, 1, 3], 3)


def test_nobody_waits_an_hour(fake: Fake):
    for after in ("3600", formatdate(time.time() + 3600, usegmt=True)):
        fake.asked.clear()
        fake.answer = lambda question, times, after=after: (429, {"Retry-After": after}, "{}")
        judged = asked(1)
        assert len(fake.asked) == 1
        assert judged.opinions[0].reason.startswith("rate limit: the endpoint asks to wait 3")


def test_a_used_up_quota_ends_the_run(fake: Fake):
    fake.answer = lambda question, times: (429, {}, '{"error": {"message": "pay", "code": "insufficient_quota"}}')
    judged = asked(20, concurrency=1)
    assert (len(fake.asked), judged.left) == (1, list(range(20)))
    assert judged.why_missing == {"rate limit": 20}


def test_time_outs(fake: Fake):
    def slow(question: str, times: int) -> Reply:  # noqa: ARG001
        if which(question) == 1:
            time.sleep(0.6)
        return marked("2")

    fake.answer = slow
    judged = asked(3, timeout=0.25, retries=1)
    assert (judged.missing, judged.left, judged.scores) == (1, [1], [2, 2])
    assert judged.opinions[1].reason == "timed out: no answer within 0.25 s, 2 tries"
    assert fake.times("text 1") == 2


def test_a_reply_that_trickles_is_timed_out(fake: Fake):
    fake.piece, fake.pause = 10, 0.05  # each piece comes in time, the whole in half a second
    judged = asked(2, timeout=0.2, retries=0)
    assert judged.left == [0, 1]
    assert judged.why_missing == {"timed out": 2}


def test_a_reply_without_end_is_not_read(fake: Fake):
    fake.answer = lambda question, times: (200, {}, " " * 3_000_000)
    judged = asked(1, retries=1)
    assert judged.opinions[0].reason == "nonsense: a reply of more than 1000000 bytes"
    assert len(fake.asked) == 2


def test_a_reply_that_breaks_off_is_asked_for_again(fake: Fake):
    fake.answer = lambda question, times: (200, {"Content-Encoding": "gzip"}, "no gzip") if times == 1 else marked("4")
    assert asked(1).scores == [4]
    fake.answer = lambda question, times: (200, {"Content-Encoding": "gzip"}, "no gzip")
    judged = asked(1, retries=1)
    assert judged.why_missing == {"no connection": 1}


def test_errors_of_the_server_are_tried_again(fake: Fake):
    fake.answer = lambda question, times: (500 + times, {}, "<html>oh</html>") if times < 3 else marked("5")
    assert asked(2).scores == [5, 5]
    assert len(fake.asked) == 6


@pytest.mark.parametrize(
    "answer",
    [
        "six",
        "6",
        "-1",
        "4.5",
        "4/5",
        "Mark: 4",
        "4 5",
        "",
        "4\n\nbecause",
        "٤",
        "\ud800",
        "<script>alert(1)</script>",
        "4" * 9000,
    ],
)
def test_an_answer_that_is_no_mark_is_missing_and_final(fake: Fake, tmp_path: Path, answer: str):
    fake.answer = lambda question, times: marked(answer)
    judged = asked(1, cache=tmp_path)
    assert judged.why_missing == {"nonsense": 1}
    assert judged.left == []
    assert len(judged.opinions[0].reason) < 400
    judged.opinions[0].reason.encode()
    assert asked(1, cache=tmp_path).replayed == 1
    assert len(fake.asked) == 1


def test_refusals_are_missing_and_final(fake: Fake):
    filtered = json.dumps({"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]})
    fake.answer = lambda question, times: (200, {}, [said(None, refusal="I will not"), filtered][which(question)])
    judged = asked(2)
    assert judged.why_missing == {"refused": 2}
    assert judged.left == []


BODIES = [
    "",
    "no JSON",
    "[]",
    "4",
    "null",
    "{}",
    '{"choices": []}',
    '{"choices": {}}',
    '{"choices": [4]}',
    '{"choices": [{"message": 4}]}',
    said(None),
    said(4),
    said([{"type": "text", "text": "4"}]),
    '{"choices": [{"message": {"content": "4"',
    "[" * 100_000,
    '{"choices": [{"message": {}}], "usage": {"total_tokens": "many"}}',
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_body_of_nonsense_is_missing_and_left(fake: Fake, body: str):
    fake.answer = lambda question, times: (200, {}, body) if which(question) == 0 else marked("1")
    judged = asked(3)
    assert (judged.left, judged.scores) == ([0], [1, 1])
    assert judged.why_missing == {"nonsense": 1}


def test_bodies_of_another_sort(fake: Fake):
    fake.answer = lambda question, times: (200, {"Content-Type": "text/html"}, "<html>log in first</html>")
    judged = asked(2)
    assert judged.why_missing == {"nonsense": 2}
    assert read_reply(said("3")) == endpoint.Answer("3")


@pytest.mark.parametrize(("status", "match"), [(401, "refused the key .401.*OPENAI_API_KEY"), (404, "no model 'judge-1'")])
def test_a_refused_key_or_model_stops_at_once_and_keeps_what_is_finished(fake: Fake, tmp_path: Path, status: int, match: str):
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})
    fake.answer = lambda question, times: marked("4") if which(question) < 3 else (status, {}, body)
    with pytest.raises(EndpointRefused, match=match) as error:
        asked(50, cache=tmp_path, concurrency=2)
    assert len(fake.asked) <= 3 + 2
    assert KEY not in str(error.value)
    fake.answer = lambda question, times: marked("4")
    assert asked(50, cache=tmp_path).replayed == 3


def test_a_forbidden_question_is_that_questions_problem_once_others_were_answered(fake: Fake):
    fake.answer = lambda question, times: (403, {}, "{}") if which(question) == 2 else marked("4")
    judged = asked(4, concurrency=1)
    assert (judged.left, judged.why_missing) == ([2], {"request refused": 1})
    with pytest.raises(EndpointRefused, match="refused the key"):
        ask(judge(), ["p"], ["text 2."], progress=False)


def test_a_bad_request_is_that_questions_problem(fake: Fake):
    fake.answer = lambda question, times: (400, {}, '{"error": {"message": "too long"}}') if which(question) else marked("4")
    judged = asked(2)
    assert judged.scores == [4]
    assert judged.opinions[1].reason == "request refused: 400: 'too long'"


def test_an_endpoint_that_went_away_is_given_up(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(endpoint, "PATIENCE", 5)
    fake.answer = lambda question, times: marked("4") if which(question) < 4 else (503, {}, "")
    judged = asked(100, cache=tmp_path, concurrency=1, retries=0)
    assert len(fake.asked) == 9
    assert (judged.scores, judged.left) == ([4] * 4, list(range(4, 100)))
    assert judged.why_missing == {"given up": 91, "server error": 5}
    assert "5 questions in a row" in judged.opinions[99].reason


def test_nobody_is_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.001)
    judged = asked(3, base_url="http://127.0.0.1:9/v1", retries=1)
    assert judged.why_missing == {"no connection": 3}
    assert judged.opinions[0].reason == "no connection: http://127.0.0.1:9/v1 does not answer, 2 tries"


def test_a_budget_of_requests(fake: Fake, tmp_path: Path):
    fake.answer = lambda question, times: (500, {}, "") if which(question) == 0 and times == 1 else marked("4")
    judged = asked(10, cache=tmp_path, budget=Budget(requests=4), concurrency=2)
    assert len(fake.asked) == 4
    assert (len(judged.scores), len(judged.left)) == (3, 7)
    assert judged.why_missing == {"budget": 7}
    assert "4 requests are used up" in judged.opinions[9].reason
    again = asked(10, cache=tmp_path, budget=Budget(requests=100))
    assert (len(again.scores), again.replayed, len(fake.asked)) == (10, 3, 11)
    assert asked(2, budget=Budget(requests=0)).left == [0, 1]


def test_a_budget_that_tries_have_used_up_says_what_went_wrong(fake: Fake):
    fake.answer = lambda question, times: (503, {}, "")
    judged = asked(3, budget=Budget(requests=2), concurrency=1)
    assert judged.why_missing == {"budget": 3}
    assert "before that server error: 503" in judged.opinions[0].reason


def test_a_negative_budget_is_refused():
    with pytest.raises(ValueError, match="-1 requests"):
        Budget(requests=-1)


def test_requests_run_beside_each_other(fake: Fake):
    def slow(question: str, times: int) -> Reply:  # noqa: ARG001
        time.sleep(0.15)
        return marked("4")

    fake.answer = slow
    assert len(asked(9, concurrency=3).scores) == 9
    assert fake.most_at_once == 3


def test_the_key_appears_nowhere(fake: Fake, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: Any):
    echoes = [
        (200, {}, said(f"your key is {KEY}")),
        (200, {}, said("x" * 50 + KEY)),  # quoted up to its middle
        (200, {}, said(None, refusal=f"no, {KEY}")),
        (200, {}, said("-").replace('"-"', '"' + "".join(f"\\u{ord(c):04x}" for c in KEY) + '"')),
        (200, {}, f"no JSON {KEY}"),
        (200, {}, "z" * 50 + KEY),
        (400, {}, json.dumps({"error": {"message": "y" * 80 + KEY}})),
        (500, {}, KEY),
    ]
    fake.answer = lambda question, times: echoes[which(question)]
    with caplog.at_level(logging.DEBUG):
        judged = asked(len(echoes), cache=tmp_path, retries=0)
    assert judged.missing == len(echoes)
    whole = " ".join(
        [repr(judged), repr(judge()), repr(judge(base_url=f"https://x:{KEY}@host/v1")), str(judge().identity), caplog.text]
        + [opinion.reason for opinion in judged.opinions]
        + [file.read_text() for file in tmp_path.iterdir()]
        + list(capsys.readouterr())
    )
    assert "[key]" in whole
    for length in (len(KEY), 8):
        assert KEY[:length] not in whole


def test_keys_and_addresses_that_are_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ValueError, match="set OPENAI_API_KEY in the environment"):
        asked(1)
    for address in ("localhost:8000", "file:///etc/passwd", "http://", "http://host:port/v1", "http://[half"):
        with pytest.raises(ValueError, match="no address of an endpoint|localhost:8000"):
            asked(1, base_url=address)
    with pytest.raises(ValueError, match="http://host/v1 was given with a password") as error:
        asked(1, base_url="http://user:hidden-password@host/v1")
    assert "hidden" not in str(error.value)
    for key in ("sk-line\nbreak-secret", "sk-ümlaut-secret", "sk with-secret"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(ValueError, match="OPENAI_API_KEY holds") as error:
            asked(1)
        assert "secret" not in str(error.value)


def test_an_endpoint_of_ones_own_needs_no_key(fake: Fake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert asked(1).scores == [4]
    assert fake.keys == ["Bearer none"]


def test_options_belong_to_the_judges_identity(fake: Fake, tmp_path: Path):
    asked(1, cache=tmp_path)
    assert asked(1, cache=tmp_path, options={"max_completion_tokens": 500}).replayed == 0
    assert fake.bodies[1]["max_completion_tokens"] == 500
    assert "temperature" not in fake.bodies[1]
    bads: list[dict[str, Any]] = [{"concurrency": 0}, {"retries": -1}, {"timeout": 0}]
    for bad in bads:
        with pytest.raises(ValueError, match="give at least"):
            Endpoint("m", **bad)


def test_options_that_may_hold_a_key_are_refused():
    with pytest.raises(ValueError, match="'extra_headers', which may hold a key"):
        Endpoint("m", options={"extra_headers": {"Authorization": "secret"}})


def test_an_interruption_ends_the_threads(fake: Fake):
    coming = judge(concurrency=2).opinions([Item("p", f"text {i}.") for i in range(1000)])
    next(coming)
    coming.close()
    seen = len(fake.asked)
    time.sleep(0.3)
    assert len(fake.asked) <= seen + 2
