from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from typing import Any, ClassVar, cast

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.testclient import TestClient

from generators.direct import Direct
from generators.models.calling import called, streamed
from rag.core.errors import ConfigError, ModelUnavailable
from rag.core.pipeline import Pipeline
from rag.core.trace import count, listener, span
from rag.core.types import Generation, Prompt, Sampling, SamplingRequest
from rag.serve.observe import spans
from rag.serve.observe.spans import Tracing
from tests.rag.serve.observe.parts import KEY, call, observed, value
from tests.rag.serve.parts import PASSAGE, TEXT, Scripted, pipeline

QUESTION = "Where is the red key of the east airlock?"
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Kept:
    """Tracing into memory, with an application that uses it."""

    def __init__(self, pipe: Pipeline | None = None, **options: Any) -> None:
        pipe = pipe or pipeline()
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.app, _ = observed(pipe, key=KEY, tracing=Tracing(provider, {"graft": pipe}, **options))

    def ask(self, **headers: str) -> dict[str, ReadableSpan]:
        client = TestClient(self.app, raise_server_exceptions=False)
        client.post("/ask/ann?token=hidden", json={"question": QUESTION}, headers={"Authorization": f"Bearer {KEY}", **headers})
        return self.spans()

    def spans(self) -> dict[str, ReadableSpan]:
        return {made.name: made for made in self.exporter.get_finished_spans()}


def test_a_request_is_a_tree_with_the_times_of_its_run() -> None:
    before = time.time_ns()
    found = Kept().ask()
    after = time.time_ns()
    assert set(found) == {"POST /ask/{user}", "invoke_workflow graft", "answer", "retrieval search", "search"}
    chain = [found[name] for name in ("POST /ask/{user}", "invoke_workflow graft", "answer", "retrieval search", "search")]
    assert chain[0].parent is None
    for outer, inner in pairwise(chain):
        assert inner.parent is not None
        assert inner.parent.span_id == outer.context.span_id
        assert outer.start_time <= inner.start_time <= inner.end_time <= outer.end_time
    assert before <= chain[0].start_time < chain[0].end_time <= after
    assert chain[0].kind is SpanKind.SERVER


def test_attributes_follow_the_conventions() -> None:
    found = Kept().ask(**{"X-Request-Id": "r-1"})
    assert dict(found["POST /ask/{user}"].attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/ask/{user}",
        "http.response.status_code": 200,
        "graft.request.id": "r-1",
        "graft.outcome": "whole",
    }
    assert dict(found["invoke_workflow graft"].attributes or {}) == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "graft",
    }
    assert dict(found["retrieval search"].attributes or {}) == {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.data_source.id": "search",
        "gen_ai.retrieval.top_k": 4,
        "graft.retrieval.hits": 1,
    }
    assert found["retrieval search"].kind is SpanKind.CLIENT
    assert dict(found["answer"].attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "scripted",
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 12,
        "graft.model.calls": 1,
    }


def test_a_model_that_opens_a_span_for_a_call_has_it_told_apart() -> None:
    async def answering(question: str) -> str:
        for tokens in (3, 5):
            with span("chat small-model"):
                count(calls=1, prompt_tokens=10, generated_tokens=tokens)
        return "yes"

    kept = Kept(Pipeline().add("answering", answering))
    kept.ask()
    calls = [made for made in kept.exporter.get_finished_spans() if made.name == "chat small-model"]
    assert [(c.attributes or {})["gen_ai.usage.output_tokens"] for c in calls] == [3, 5]
    assert all((c.attributes or {})["gen_ai.request.model"] == "small-model" and c.kind is SpanKind.CLIENT for c in calls)
    assert "gen_ai.operation.name" not in (kept.spans()["answering"].attributes or {})


class Spanned(Scripted):
    """A model that has a span for each call, as ours do."""

    async def agenerate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        async def written() -> Generation:
            *_, last = [piece async for piece in Scripted.astream(self, prompt, sampling)]
            assert isinstance(last, Generation)
            return last

        return await called("chat", "vllm", "small-model", written(), sampling)

    async def astream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> AsyncIterator[str | Generation]:
        pieces = cast("AsyncGenerator[str | Generation, None]", Scripted.astream(self, prompt, sampling))
        async with aclosing(streamed("vllm", "small-model", pieces, sampling)) as spanned:
            async for piece in spanned:
                yield piece


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_of_a_model_tells_what_was_asked_and_how_it_ended(stream: bool) -> None:
    asked = SamplingRequest(max_tokens=3, temperature=0.5, top_p=0.9, seed=7, presence_penalty=0.5, frequency_penalty=-0.5)
    pipe = Pipeline().add("answer", Direct(Spanned()))
    kept = Kept(Pipeline().add("answer", _Asking(pipe, asked, stream)))
    found = kept.ask()
    call = found["chat small-model"]
    assert call.kind is SpanKind.CLIENT
    assert dict(call.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "small-model",
        "gen_ai.request.max_tokens": 3,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.seed": 7,
        "gen_ai.request.presence_penalty": 0.5,
        "gen_ai.request.frequency_penalty": -0.5,
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 3,
        "graft.model.calls": 1,
    }
    assert TEXT[:5] not in everything(kept)


class _Asking:
    """A node that asks a pipeline with ``sampling``."""

    def __init__(self, pipe: Pipeline, sampling: SamplingRequest, stream: bool) -> None:
        self._pipe, self._sampling, self._stream = pipe, sampling, stream

    async def run(self, question: str) -> str:
        if not self._stream:
            return str(await self._pipe.arun(question, sampling=self._sampling))
        with listener(lambda event: None):
            return str(await self._pipe.arun(question, sampling=self._sampling))


def test_a_call_that_failed_or_was_left_has_a_span_without_usage() -> None:
    failed = Kept(Pipeline().add("answer", Direct(Spanned(error=ModelUnavailable("away"), fails_at=2)))).ask()
    assert "chat small-model" not in failed  # it was not called: the count before it failed

    model = Spanned(hangs_at=3)
    kept = Kept(Pipeline().add("answer", Direct(model)))
    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {KEY}".encode())]
    call(kept.app, leaves=lambda: bool(model.prompts), headers=headers, query_string=b"stream=1")
    attributes = kept.spans()["chat small-model"].attributes or {}
    assert attributes["error.type"] == "cancelled"
    assert not {"gen_ai.usage.output_tokens", "gen_ai.response.finish_reasons"} & attributes.keys()


def test_a_call_is_no_node_of_the_metrics() -> None:
    app, metrics = observed(Pipeline().add("answer", Direct(Spanned())))
    call(app)
    assert value(metrics, "node_seconds_count", model_name="graft", node="answer") == 1
    assert value(metrics, "model_calls_total", model_name="graft") == 1
    assert value(metrics, "generation_tokens_total", model_name="graft") == 12
    nodes = {s.labels["node"] for f in metrics.registry.collect() for s in f.samples if s.name == "graft_node_seconds_count"}
    assert nodes == {"answer"}


def test_the_callers_trace_goes_on() -> None:
    found = Kept().ask(traceparent=f"00-{TRACE}-{CALLER}-01")
    server = found["POST /ask/{user}"]
    assert f"{server.context.trace_id:032x}" == TRACE
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == CALLER
    assert {made.context.trace_id for made in found.values()} == {server.context.trace_id}


@pytest.mark.parametrize("wrong", ["", "00-xyz", f"00-{'0' * 32}-{CALLER}-01", "x" * 5000])
def test_a_wrong_header_of_a_trace_counts_as_none(wrong: str) -> None:
    assert Kept().ask(traceparent=wrong)["POST /ask/{user}"].parent is None


def test_what_a_caller_does_not_want_sampled_is_not() -> None:
    assert Kept().ask(traceparent=f"00-{TRACE}-{CALLER}-00") == {}


def everything(kept: Kept) -> str:
    return "".join(made.to_json() for made in kept.exporter.get_finished_spans())


def test_no_content_and_no_secret_unless_asked_for() -> None:
    failing = Kept(pipeline(Scripted(error=ModelUnavailable(f"no answer to {QUESTION}"))))
    for kept in (Kept(), failing):
        kept.ask()
        text = everything(kept)
        assert "retrieval search" in text
        for private in (QUESTION, "red key", TEXT[:20], PASSAGE.text[:20], PASSAGE.document, KEY, "hidden", "ann"):
            assert private not in text
    failed = failing.spans()["answer"]
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "ModelUnavailable"
    assert failed.status.description is None
    server = failing.spans()["POST /ask/{user}"]
    assert (server.attributes or {})["http.response.status_code"] == 503
    assert server.status.status_code is StatusCode.ERROR


def test_content_on_demand() -> None:
    kept = Kept(content=True)
    found = kept.ask()
    run = found["invoke_workflow graft"].attributes or {}
    assert json.loads(str(run["gen_ai.input.messages"])) == [{"role": "user", "parts": [{"type": "text", "content": QUESTION}]}]
    assert json.loads(str(run["gen_ai.output.messages"]))[0]["parts"][0]["content"] == TEXT
    assert json.loads(str(run["gen_ai.retrieval.documents"]))[0]["content"] == PASSAGE.text
    assert (found["retrieval search"].attributes or {})["gen_ai.retrieval.query.text"] == QUESTION
    assert KEY not in everything(kept)
    failing = Kept(pipeline(Scripted(error=ModelUnavailable("no answer"))), content=True).ask()
    assert failing["answer"].status.description == "no answer"


def test_a_caller_that_leaves_has_its_spans() -> None:
    model = Scripted(hangs_at=3)
    kept = Kept(pipeline(model))
    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {KEY}".encode())]
    call(kept.app, leaves=lambda: bool(model.prompts), headers=headers, query_string=b"stream=1")
    found = kept.spans()
    assert (found["POST /ask/{user}"].attributes or {})["graft.outcome"] == "left"
    assert (found["answer"].attributes or {})["error.type"] == "cancelled"


def test_spans_of_a_request_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(question: str) -> str:
        for _ in range(50):
            with span("step"):
                pass
        return "yes"

    monkeypatch.setattr(spans, "MAX_SPANS", 10)
    kept = Kept(Pipeline().add("busy", busy))
    server = kept.ask()["POST /ask/{user}"]
    assert len(kept.exporter.get_finished_spans()) == 11
    assert (server.attributes or {})["graft.spans.left_out"] == 42


def test_a_failure_to_trace_harms_no_request(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def start_span(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no spans today")

    kept = Kept()
    kept.app.user_middleware[0].kwargs["tracing"]._tracer = Broken()
    reply = TestClient(kept.app).post("/ask/ann", json={"question": QUESTION}, headers={"Authorization": f"Bearer {KEY}"})
    assert reply.json() == {"answer": TEXT}
    assert "spans of a request could not be made" in caplog.text


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No variable of OpenTelemetry is set."""
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_SDK_DISABLED": "True"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_tracing_is_off_unless_an_endpoint_is_set(variables: dict[str, str], clean: pytest.MonkeyPatch) -> None:
    for name, given in variables.items():
        clean.setenv(name, given)
    assert Tracing.from_environment() is None


def test_other_protocols_and_wrong_values_are_refused(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317")
    clean.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ConfigError, match="http/protobuf, not grpc"):
        Tracing.from_environment()
    clean.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    clean.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    with pytest.raises(ConfigError, match="max_queue_size"):
        Tracing.from_environment()


def test_opentelemetry_is_not_imported_while_tracing_is_off() -> None:
    code = (
        "import sys; from rag.serve.observe.spans import Tracing; from rag.serve.observe.requests import Observed;"
        "assert Tracing.from_environment() is None; assert not [m for m in sys.modules if m.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": ""}, timeout=60)


class Collector(BaseHTTPRequestHandler):
    """Takes traces as a collector does."""

    bodies: ClassVar[list[bytes]] = []
    paths: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.paths.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_closing_sends_what_waits_to_the_collector(collector: str, clean: pytest.MonkeyPatch) -> None:
    clean.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
    tracing = Tracing.from_environment()
    assert tracing is not None
    call(observed(tracing=tracing)[0])
    tracing.close()
    assert Collector.paths == ["/v1/traces"]
    assert b"POST /ask/{user}" in Collector.bodies[0]
    assert b"service.name" in Collector.bodies[0]


def test_a_collector_that_is_down_slows_nothing(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    clean.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    clean.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    tracing = Tracing.from_environment()
    assert tracing is not None
    app, _ = observed(tracing=tracing)
    began = time.perf_counter()
    for _ in range(20):
        assert call(app)[0]["status"] == 200
    assert time.perf_counter() - began < 5
    began = time.perf_counter()
    tracing.close(0.3)
    assert time.perf_counter() - began < 2
