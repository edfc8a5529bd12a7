"""The load sweep against a scripted endpoint: the same pool at every level, failures apart, figures as defined."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from benchmarks import load
from benchmarks.chat_client import Endpoint, Level, Timing, run_level
from benchmarks.load import level_rows, percentile, pool, sweep
from benchmarks.rag_server import rag_server
from rag.core.errors import ConfigError, InputError, ModelUnavailable

WORDS = ["", "one", " two", " three"]


def event(data: Any) -> str:
    return f"data: {json.dumps(data)}\n\n"


def piece(text: str) -> str:
    return event({"choices": [{"index": 0, "delta": {"content": text}}]})


ANSWER = "".join(piece(word) for word in WORDS)
USAGE = event({"choices": [], "usage": {"completion_tokens": 7}})
DONE = "data: [DONE]\n\n"
COMPLETION = "".join(
    event({"choices": [{"index": 0, "text": f" word{i}", "token_ids": [i], "finish_reason": "stop" if i == 4 else None}]}) for i in range(5)
)
COMPLETION += DONE
BODIES = {
    "good": ": a comment\n\n" + ANSWER + USAGE + DONE,
    "without usage": ANSWER + DONE,
    "cut": ANSWER,
    "silent": piece("") + USAGE + DONE,
    "error": piece("one") + event({"error": {"message": "the model is down"}}) + DONE,
    "garbage": piece("one") + "data: {\n\n" + DONE,
    "number": "data: 5\n\n" + DONE,
}


class Server:
    """Answers each question by the script that its text names, else well; keeps what it was asked and how much at a time."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[str | None] = []
        self.at_once = 0
        self.most_at_once = 0
        self.hold: threading.Barrier | None = None
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200, "application/json", json.dumps({"data": [{"id": "scripted", "max_model_len": 4096}]}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/tokenize":  # this and the next are vLLM's, for `rag serve`
                    self._send(200, "application/json", json.dumps({"tokens": [1, 2, 3], "max_model_len": 4096}))
                elif self.path == "/v1/completions":
                    self._send(200, "text/event-stream", COMPLETION)
                else:
                    self._chat(body)

            def _chat(self, body: dict[str, Any]) -> None:
                with outer._lock:
                    outer.bodies.append(body)
                    outer.headers.append(self.headers["Authorization"])
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                if outer.hold is not None:
                    outer.hold.wait(30)
                question = body["messages"][-1]["content"]
                with outer._lock:
                    outer.at_once -= 1
                if question == "refused":
                    self._send(503, "application/json", '{"error": "too busy"}')
                else:
                    self._send(200, "text/event-stream", BODIES.get(question, BODIES["good"]))

            def _send(self, status: int, kind: str, text: str) -> None:
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                """Nothing on stderr."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def questions(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


def level(server: Server, *questions: str, in_flight: int = 1, seconds: float = 60.0) -> Level:
    return asyncio.run(run_level(Endpoint(server.url, None, 16), questions, in_flight, seconds))


def test_a_request_streams_and_counts_the_tokens_of_the_server_or_else_the_pieces(server: Server) -> None:
    found = level(server, "good", "without usage")
    assert [timing.tokens for timing in found.answered] == [7, 3]
    assert all(0 < timing.ttft <= timing.latency <= found.seconds for timing in found.answered)
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["stream"]) == ("scripted", 16, True)
    assert body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("refused", 'status 503: {"error": "too busy"}'),
        ("cut", "broke off before [DONE]"),
        ("silent", "has no text"),
        ("error", 'error in the stream: {"message": "the model is down"}'),
        ("garbage", "an event is not JSON: {"),
        ("number", "an event is no object: 5"),
    ],
)
def test_failures_are_counted_apart_and_the_level_goes_on(server: Server, question: str, reason: str) -> None:
    found = level(server, "good", question, "good")
    assert len(found.answered) == 2
    (failure,) = found.failures
    assert reason in failure


def test_so_many_are_in_flight_and_not_more(server: Server) -> None:
    server.hold = threading.Barrier(4)  # nobody is answered before four are there
    found = level(server, *(f"question {i}" for i in range(12)), in_flight=4)
    assert len(found.answered) == 12
    assert server.most_at_once == 4


def test_every_level_and_repeat_sends_the_same_pool_in_its_order(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    asked = pool(6, seed=3)
    rows = sweep(Endpoint(server.url, None, 16), asked, [1, 3], repeats=2, warmup=4, seconds=60.0)
    sent = server.questions()
    assert sorted(sent[:4]) == sorted(asked[:4])
    assert [sorted(sent[start : start + 6]) for start in range(4, 28, 6)] == [sorted(asked)] * 4
    assert sent[4:10] == asked  # one by one the order shows
    assert len(sent) == 28
    found = {(row.case, row.metric): row.value for row in rows}
    assert found["in_flight=1", "failed"] == found["in_flight=3", "failed"] == 0
    assert found["in_flight=3", "requests"] == 12
    assert capsys.readouterr().out.count("6 answered") == 4


def test_after_its_time_a_level_takes_no_further_requests(server: Server) -> None:
    found = level(server, "good", "good", seconds=0.0)
    assert (found.answered, found.failures, server.bodies) == ([], [], [])


def test_a_server_that_answers_nothing_ends_the_run(server: Server) -> None:
    with pytest.raises(ModelUnavailable, match=r"answered none of 2 requests; the first: status 503"):
        sweep(Endpoint(server.url, None, 16), ["refused"] * 2, [1], repeats=1, warmup=2, seconds=60.0)
    with pytest.raises(ModelUnavailable, match="lists no model"):
        asyncio.run(run_level(Endpoint("http://me:secret@127.0.0.1:9/v1", None, 16), ["a"], 1, 60.0))


def test_the_pool_is_seeded_and_holds_no_question_twice() -> None:
    assert pool(64, 0) == pool(64, 0)
    assert pool(64, 0) != pool(64, 1)
    assert pool(64, 0)[:8] == pool(8, 0)
    many = pool(250, 0)
    assert len(set(many)) == 250
    assert many[100].startswith("Once more (1): ")


def test_percentiles_on_given_numbers() -> None:
    values = [float(n) for n in range(101, 0, -1)]
    assert [percentile(values, percent) for percent in (50, 95, 99)] == [51.0, 96.0, 100.0]
    assert percentile([1.0, 2.0], 95) == pytest.approx(1.95)
    assert percentile([3.0], 99) == 3.0


def test_a_level_is_the_median_of_its_repeats_with_the_ends() -> None:
    def repeat(seconds: float, latency: float, failed: int) -> Level:
        return Level(seconds, [Timing(latency / 2, latency, 10)] * 4, ["why"] * failed)

    rows = level_rows(8, [repeat(2.0, 1.0, 0), repeat(4.0, 5.0, 2), repeat(1.0, 3.0, 0)])
    found = {row.metric: row.value for row in rows}
    assert {row.case for row in rows} == {"in_flight=8"}
    assert (found["qps"], found["qps_min"], found["qps_max"]) == (2.0, 1.0, 4.0)
    assert (found["tokens_per_s"], found["tokens_per_s_max"]) == (20.0, 40.0)
    assert (found["ttft_p50"], found["latency_p50"], found["latency_p95"], found["latency_p99_max"]) == (1.5, 3.0, 3.0, 5.0)
    assert (found["failed"], found["requests"]) == (2, 14)


def test_a_repeat_without_an_answer_has_no_times_and_no_throughput() -> None:
    found = {row.metric: row.value for row in level_rows(1, [Level(2.0, [], ["why"]), Level(2.0, [Timing(1.0, 2.0, 3)], [])])}
    assert (found["qps"], found["latency_p50"], found["failed"]) == (0.25, 2.0, 1)
    nothing = {row.metric: row.value for row in level_rows(1, [Level(2.0, [], ["why"])])}
    assert nothing == {"qps": 0.0, "tokens_per_s": 0.0, "failed": 1, "requests": 1}


def test_the_command_writes_the_figures_and_never_the_key(
    server: Server, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOAD_KEY", "secret")
    file = tmp_path / "load.json"
    arguments = ["--url", server.url, "--key-env", "LOAD_KEY", "--requests", "4", "--concurrency", "1", "2", "--repeats", "2"]
    monkeypatch.setattr("sys.argv", ["load.py", *arguments, "--json", str(file)])
    load.main()
    assert set(server.headers) == {"Bearer secret"}
    assert "secret" not in file.read_text() + capsys.readouterr().out
    rows = json.loads(file.read_text())["rows"]
    metrics = {row["metric"] for row in rows}
    assert {"qps", "tokens_per_s", "ttft_p50", "ttft_p95", "latency_p50", "latency_p95", "failed", "qps_min", "qps_max"} <= metrics
    assert {row["case"] for row in rows} == {"in_flight=1", "in_flight=2"}
    monkeypatch.delenv("LOAD_KEY")
    with pytest.raises(ConfigError, match="--key-env LOAD_KEY: there is no such environment variable"):
        load.main()


def test_without_an_address_it_is_rag_serve_over_the_handbook(server: Server, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "load.json"
    arguments = ["--model-url", server.url, "--no-hybrid", "--requests", "3", "--concurrency", "2", "--repeats", "1", "--json", str(file)]
    monkeypatch.setattr("sys.argv", ["load.py", *arguments])
    load.main()
    found = {row["metric"]: row["value"] for row in json.loads(file.read_text())["rows"]}
    assert (found["failed"], found["requests"]) == (0, 3)
    assert found["tokens_per_s"] == pytest.approx(5 * found["qps"])


def test_a_server_that_does_not_start_is_named_with_its_last_words(tmp_path: Any) -> None:
    with (
        pytest.raises(ModelUnavailable, match=r"rag serve ended with status \d+ while starting; its last words:\n.*corpus"),
        rag_server(tmp_path / "no", "http://127.0.0.1:9/v1", 4),
    ):
        pytest.fail("it started")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--requests", "0"], "at least 1"),
        (["--concurrency", "1", "0"], "at least 1"),
        (["--requests", "8", "--concurrency", "16"], "at least the largest --concurrency"),
        (["--seconds", "nan"], "more than 0"),
        (["--warmup", "-1"], "at least 0"),
        (["--concurrency", "2", "2"], "each level once"),
        (["--url", "http://a/v1", "--model-url", "http://b/v1"], "leave it out with --url"),
        (["--model", "m"], "belong to --url"),
    ],
)
def test_wrong_options_are_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["load.py", *arguments])
    with pytest.raises(SystemExit):
        load.main()
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="http://localhost:8080/v1"):
        Endpoint(url, None, 16)
