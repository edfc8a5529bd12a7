"""Traces for OpenTelemetry, after its conventions for HTTP servers and generative AI
(https://github.com/open-telemetry/semantic-conventions-genai, in development).

The spans of a request are made when it has ended, from the trace that graft keeps anyway: nothing is added to a run, and an exporter that
is slow or down meets a full queue, never a caller. Nothing of OpenTelemetry is imported unless tracing is on.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rag.core.errors import ConfigError, MissingDependency
from rag.core.trace import Span
from rag.serve.inspection import models_of
from rag.serve.observe import tree

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

    from rag.core.pipeline import Pipeline
    from rag.core.protocols import LanguageModel
    from rag.serve.observe.recorder import Recorder
    from rag.serve.observe.requests import Exchange

log = logging.getLogger("graft.serve")

MAX_SPANS = 500
"""Spans of one request; what a method does beyond that is counted in ``graft.spans.left_out``."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class Tracing:
    """Turns requests into spans of ``provider``.

    ``pipelines`` by served name tell which language model wrote, where a pipeline holds just one. Questions, answers, queries, passages,
    notes and messages of errors go along only with ``content=True``.
    """

    def __init__(self, provider: TracerProvider, pipelines: Mapping[str, Pipeline] = {}, *, content: bool = False) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("graft")
        self._pipelines = pipelines
        self._content = content

    @classmethod
    def from_environment(cls, pipelines: Mapping[str, Pipeline] = {}, *, content: bool = False) -> Tracing | None:
        """Tracing to where OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT say, over HTTP; None if neither is set, or
        with OTEL_SDK_DISABLED=true or OTEL_TRACES_EXPORTER=none. The SDK reads its other variables itself (headers, sampler, queue).

        Raises `MissingDependency` without OpenTelemetry, and `ConfigError` for a protocol other than http/protobuf or a wrong value.
        """
        if _variable("OTEL_SDK_DISABLED").lower() == "true" or _variable("OTEL_TRACES_EXPORTER").lower() == "none":
            return None
        if not any(map(_variable, _ENDPOINTS)):
            return None
        protocol = next(filter(None, map(_variable, _PROTOCOLS)), "http/protobuf")
        if protocol != "http/protobuf":
            raise ConfigError(
                f"traces are sent as http/protobuf, not {protocol}: set {_PROTOCOLS[0]}=http/protobuf and the collector's HTTP port (4318)"
            )
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise MissingDependency(
                f"the environment asks for traces, which need OpenTelemetry ({error}): pip install 'graft-rag[telemetry]', or unset"
                f" {' and '.join(_ENDPOINTS)}"
            ) from error
        named = _variable("OTEL_SERVICE_NAME") or "service.name=" in _variable("OTEL_RESOURCE_ATTRIBUTES")
        try:
            provider = TracerProvider(resource=Resource.create({} if named else {"service.name": "graft"}), shutdown_on_exit=False)
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        except ValueError as error:
            raise ConfigError(f"a variable of OpenTelemetry (OTEL_…) has a value that it does not take: {error}") from error
        return cls(provider, pipelines, content=content)

    def request(self, exchange: Exchange, recorder: Recorder) -> None:
        """The spans of a request that has ended. A failure is logged and harms nothing."""
        try:
            _Writing(self._tracer, exchange, recorder, self._writer(recorder.model, exchange.trace), self._content).request()
        except Exception:
            log.warning("the spans of a request could not be made", exc_info=True)

    def close(self, seconds: float = 5.0) -> None:
        """Send what waits, for at most ``seconds``; what is left then is dropped."""
        closing = threading.Thread(target=self._provider.shutdown, name="graft-tracing-close", daemon=True)
        closing.start()
        closing.join(seconds)
        if closing.is_alive():
            log.warning("the last traces could not be sent within %g s and are dropped", seconds)

    def _writer(self, served: str, trace: Span) -> dict[str, str]:
        """The language model behind ``served``, if there is just one. It is asked its name only after it has answered: it knows it then."""
        pipeline = self._pipelines.get(served)
        models: list[LanguageModel] = [] if pipeline is None else models_of(pipeline)
        if len(models) != 1 or not trace.total("calls"):
            return {}
        kind = type(models[0]).__name__
        return {"gen_ai.provider.name": "openai" if kind == "OpenAICompatible" else kind.lower(), "gen_ai.request.model": models[0].name}


class _Writing:
    """The spans of one request."""

    def __init__(self, tracer: Any, exchange: Exchange, recorder: Recorder, writer: Mapping[str, str], content: bool) -> None:
        self._tracer = tracer
        self._exchange = exchange
        self._recorder = recorder
        self._writer = writer
        self._content = content
        self._room = MAX_SPANS
        # One reading of both clocks for all spans of the request, so that they fit together.
        self._wall = exchange.began_ns - int(exchange.trace.started * 1e9)

    def request(self) -> None:
        """The server's span, and those below it."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        exchange = self._exchange
        method = "_OTHER" if exchange.method == "other" else exchange.method
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "http.route": exchange.route,
            "http.response.status_code": exchange.status,
            "graft.request.id": exchange.id,
            "graft.outcome": exchange.outcome,
        }
        name = f"{'HTTP' if method == '_OTHER' else method} {exchange.route}"
        span = self._tracer.start_span(
            name, context=_parent(exchange), kind=SpanKind.SERVER, attributes=attributes, start_time=self._time(exchange.trace.started)
        )
        if span.is_recording():  # else it was not sampled, and nothing below it is
            if exchange.status >= 500:
                span.set_attribute("error.type", str(exchange.status))
                span.set_status(Status(StatusCode.ERROR))
            below = set_span_in_context(span)
            for child in exchange.trace.children:
                self._write(child, below, outermost=True)
            left_out = _size(exchange.trace) - 1 - MAX_SPANS
            if left_out > 0:
                span.set_attribute("graft.spans.left_out", left_out)
        span.end(self._time(exchange.trace.started + exchange.trace.seconds))

    def _write(self, span: Span, context: Context, outermost: bool = False) -> None:
        from opentelemetry.trace import Status, StatusCode, set_span_in_context

        if self._room == 0:
            return
        self._room -= 1
        name, kind, attributes = self._run() if outermost and span.node == "pipeline" else self._described(span)
        made = self._tracer.start_span(name, context=context, kind=kind, attributes=attributes, start_time=self._time(span.started))
        if span.error:
            error, _, reason = span.error.partition(": ")
            made.set_attribute("error.type", error)
            made.set_status(Status(StatusCode.ERROR, reason if self._content else None))
        below = set_span_in_context(made)
        for child in span.children:
            self._write(child, below)
        request = self._exchange.trace
        made.end(self._time(span.started + span.seconds if tree.ended(span) else request.started + request.seconds))

    def _described(self, span: Span) -> tuple[str, Any, dict[str, Any]]:
        """Name, kind and attributes of a node, a retrieval or a call of a model."""
        from opentelemetry.trace import SpanKind

        attributes: dict[str, Any] = {"graft.notes": span.notes} if self._content and span.notes else {}
        if tree.is_retrieval(span):
            found = {
                "gen_ai.operation.name": "retrieval",
                "gen_ai.data_source.id": tree.source(span),
                "gen_ai.retrieval.top_k": tree.asked_for(span),
                "graft.retrieval.hits": tree.hits(span),
                "gen_ai.retrieval.query.text": span.inputs.get("query") if self._content else None,
            }
            attributes |= {key: value for key, value in found.items() if value is not None}
            return f"retrieval {tree.source(span)}", SpanKind.CLIENT, attributes
        operation = tree.operation(span)
        if operation is None and "calls" not in span.counts:
            return span.node, SpanKind.INTERNAL, attributes
        attributes |= {"gen_ai.operation.name": operation or "chat", **self._writer}
        if operation is not None:
            attributes["gen_ai.request.model"] = span.node.removeprefix(operation).strip()
            attributes |= {f"gen_ai.request.{name}": value for name, value in tree.request(span).items()}
            if "provider" in span.inputs:
                attributes["gen_ai.provider.name"] = span.inputs["provider"]
            if span.output in ("stop", "length"):
                attributes["gen_ai.response.finish_reasons"] = [span.output]
        if "calls" in span.counts:  # else it failed, or was left, before anybody could tell
            attributes["gen_ai.usage.input_tokens"] = int(span.counts.get("prompt_tokens", 0))
            attributes["gen_ai.usage.output_tokens"] = int(span.counts.get("generated_tokens", 0))
            attributes["graft.model.calls"] = int(span.counts["calls"])
        return span.node, SpanKind.INTERNAL if operation is None else SpanKind.CLIENT, attributes

    def _run(self) -> tuple[str, Any, dict[str, Any]]:
        from opentelemetry.trace import SpanKind

        recorder = self._recorder
        attributes: dict[str, Any] = {"gen_ai.operation.name": "invoke_workflow"}
        if recorder.model:
            attributes["gen_ai.workflow.name"] = recorder.model
        if self._content:
            attributes["gen_ai.input.messages"] = _message("user", recorder.question)
            if recorder.answer is not None:
                attributes["gen_ai.output.messages"] = _message("assistant", recorder.answer.text, finish_reason="stop")
                attributes["gen_ai.retrieval.documents"] = _json(
                    [{"id": hit.passage.id, "score": hit.score, "content": hit.passage.text} for hit in recorder.answer.sources]
                )
        return f"invoke_workflow {recorder.model}".rstrip(), SpanKind.INTERNAL, attributes

    def _time(self, monotonic: float) -> int:
        """Nanoseconds since the epoch."""
        return self._wall + int(monotonic * 1e9)


def _parent(exchange: Exchange) -> Context:
    """Who called, by the W3C headers; a wrong header counts as none."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    given = {name: exchange.header(name.encode()) for name in ("traceparent", "tracestate")}
    return TraceContextTextMapPropagator().extract({name: value for name, value in given.items() if value}, context=Context())


def _message(role: str, text: str, **more: str) -> str:
    return _json([{"role": role, "parts": [{"type": "text", "content": text}], **more}])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _size(span: Span) -> int:
    return 1 + sum(map(_size, span.children))


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()
