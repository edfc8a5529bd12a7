"""Metrics for Prometheus. Those that mean what vLLM's mean have vLLM's names, with ``graft_`` in front.

Labels are bounded: a name that is not of a served pipeline, a known method or a route becomes "other", whatever a caller sends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rag.core import errors
from rag.core.trace import Span
from rag.serve.observe import tree
from rag.serve.observe.shared import Shared

log = logging.getLogger("graft.serve")

OTHER = "other"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
FAILURES = frozenset(name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, errors.GraftError))

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
_SHORT_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, *_SECONDS[:12])
_COUNTS = (0, 1, 2, 4, 8, 16, 32, 64, 100)
_LENGTHS = (50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800)

Jobs = Callable[[], Mapping[tuple[str, str], float]]
"""How many jobs there are of each (kind, status)."""


class Metrics:
    """The metrics of one application, in a registry of its own. ``nodes``: the node names of each served pipeline, by model name.

    ``shared``: the folder in which the processes of one server count together; None: there is one process.
    """

    def __init__(self, nodes: Mapping[str, Collection[str]], shared: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        self._nodes = {model: frozenset(names) for model, names in nodes.items()}
        self.in_flight = 0
        self.running = 0
        model, stream = ["model_name"], ["model_name", "stream"]
        self._requests = self._counter("http_requests", "HTTP requests that have ended", ["route", "method", "status"])
        self._request_seconds = self._histogram("http_request_duration_seconds", "Seconds from request to its end", _SECONDS, ["route"])
        self._runs = self._counter("runs", "Questions by how they ended: answered, failed, left", [*model, "outcome"])
        self._failures = self._counter("run_failures", "Questions that failed, by the kind of error", [*model, "kind"])
        self._first = self._histogram("time_to_first_token_seconds", "Seconds until the first text reached the caller", _SECONDS, stream)
        self._per_token = self._histogram(
            "time_per_output_token_seconds", "Seconds per token after the first, where one streamed call wrote all", _SHORT_SECONDS, model
        )
        self._latency = self._histogram("e2e_request_latency_seconds", "Seconds from question to whole answer", _SECONDS, model)
        self._queued = self._histogram("request_queue_time_seconds", "Seconds that a question waited for its turn", _SHORT_SECONDS, model)
        self._prompt = self._counter("prompt_tokens", "Tokens that language models read", model)
        self._generated = self._counter("generation_tokens", "Tokens that language models wrote", model)
        self._calls = self._counter("model_calls", "Calls of language models", model)
        self._length = self._histogram("answer_characters", "Characters of an answer", _LENGTHS, model)
        self._retrieval_seconds = self._histogram("retrieval_seconds", "Seconds of a retrieval", _SHORT_SECONDS, model)
        self._hits = self._histogram("retrieval_hits", "Passages that a retrieval gave", _COUNTS, model)
        self._node_seconds = self._histogram("node_seconds", "Seconds of a node of the pipeline", _SHORT_SECONDS, [*model, "node"])
        self._watched = _Watched(self)
        self._shared = Shared(shared, (self._watched, ProcessCollector(registry=None))) if shared is not None else None
        if self._shared is None:
            self.registry.register(self._watched)
            ProcessCollector(registry=self.registry)

    def serving(self, model: str, nodes: Collection[str]) -> None:
        """``model`` is served from now on (after a reload, say), by a pipeline of these nodes."""
        self._nodes[model] = frozenset(nodes)

    def watch_queue(self, *, running: Callable[[], float], waiting: Callable[[], float], refused: Callable[[], float]) -> None:
        """Whom a scrape asks about the queue: questions being answered, in the queue, and sent away so far."""
        self._watched.queue = (running, waiting, refused)

    def watch_engine(self, restarts: Callable[[], float], state: Callable[[], str]) -> None:
        """Whom a scrape asks about the model server that we run ourselves."""
        self._watched.engine = (restarts, state)

    def watch_jobs(self, jobs: Jobs) -> None:
        """Whom a scrape asks about jobs. Kinds and statuses must be names from the code, never from a caller."""
        self._watched.jobs = jobs

    def request_ended(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request. ``route`` is the template of a path, or "other"."""
        self._requests.labels(route, method if method in METHODS else OTHER, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def queued(self, model: str, seconds: float) -> None:
        """A question had its turn after ``seconds``."""
        self._queued.labels(self._known(model)).observe(seconds)

    def answered(self, model: str, *, seconds: float, first: float, stream: bool, characters: int) -> None:
        """A question was answered after ``seconds``; the caller saw the first text after ``first``."""
        name = self._known(model)
        self._runs.labels(name, "answered").inc()
        self._latency.labels(name).observe(seconds)
        self._first.labels(name, "true" if stream else "false").observe(first)
        self._length.labels(name).observe(characters)

    def wrote(self, model: str, seconds_per_token: float) -> None:
        """The pace of an answer that one streamed call wrote."""
        self._per_token.labels(self._known(model)).observe(seconds_per_token)

    def failed(self, model: str, error: BaseException) -> None:
        """A question ended in ``error``."""
        self._runs.labels(self._known(model), "failed").inc()
        self._failures.labels(self._known(model), kind_of(error)).inc()

    def left(self, model: str) -> None:
        """The caller left before its answer was there."""
        self._runs.labels(self._known(model), "left").inc()

    def traced(self, model: str, trace: Span) -> None:
        """Add what the spans of a request tell: tokens, retrievals and nodes, those of failed and cancelled runs included."""
        name = self._known(model)
        for counter, key in ((self._prompt, "prompt_tokens"), (self._generated, "generated_tokens"), (self._calls, "calls")):
            total = trace.total(key)
            if total:
                counter.labels(name).inc(total)
        self._add(trace, name, self._nodes.get(model, frozenset()), retrieving=False)

    def text(self) -> bytes:
        """Everything in Prometheus's text format. Asks those who are watched, so it may take a moment: not for the event loop."""
        return generate_latest(self.registry) if self._shared is None else self._shared.text()

    async def share(self) -> None:
        """Tell the other processes what this one would answer now, again and again, until it is cancelled; alone it returns."""
        if self._shared is not None:
            await self._shared.keep()

    def _add(self, span: Span, model: str, nodes: Collection[str], retrieving: bool) -> None:
        if tree.ended(span) and span.node in nodes:
            self._node_seconds.labels(model, span.node).observe(span.seconds)
        if not retrieving and tree.is_retrieval(span):
            retrieving = True  # what it searches below is a part of it
            if tree.ended(span) and not span.error:
                self._retrieval_seconds.labels(model).observe(span.seconds)
                found = tree.hits(span)
                if found is not None:
                    self._hits.labels(model).observe(found)
        for child in span.children:
            self._add(child, model, nodes, retrieving)

    def _known(self, model: str) -> str:
        return model if model in self._nodes else OTHER

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(f"graft_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Iterable[float], labels: list[str]) -> Histogram:
        return Histogram(f"graft_{name}", text, labels, registry=self.registry, buckets=tuple(buckets))


def kind_of(error: BaseException) -> str:
    """The nearest kind of `rag.core.errors` that ``error`` is, or "other"."""
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in FAILURES), OTHER)


class _Watched(Collector):
    """What is not counted but asked for when somebody looks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.queue: tuple[Callable[[], float], Callable[[], float], Callable[[], float]] | None = None
        self.jobs: Jobs | None = None
        self.engine: tuple[Callable[[], float], Callable[[], str]] | None = None

    def describe(self) -> list[Metric]:
        """Nothing, so that registering asks nobody yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The families. Whoever cannot answer is left out, and the log says so: a scrape never fails for it."""
        yield _gauge("http_requests_in_flight", "HTTP requests that are being answered", self._metrics.in_flight)
        for family in (self._queue, self._jobs, self._engine):
            try:
                yield from list(family())
            except Exception:
                log.warning("a part of the metrics cannot be told", exc_info=True)

    def _queue(self) -> Iterator[Metric]:
        running: float = self._metrics.running
        if self.queue is not None:
            running = self.queue[0]()
            yield _gauge("num_requests_waiting", "Questions in the queue", self.queue[1]())
            yield CounterMetricFamily("graft_refused_requests", "Questions sent away because the queue was full", value=self.queue[2]())
        yield _gauge("num_requests_running", "Questions that are being answered", running)

    def _jobs(self) -> Iterator[Metric]:
        if self.jobs is not None:
            family = GaugeMetricFamily("graft_jobs", "Jobs by kind and status", labels=["kind", "status"])
            for labels, number in self.jobs().items():
                family.add_metric(labels, number)
            yield family

    def _engine(self) -> Iterator[Metric]:
        if self.engine is not None:
            yield CounterMetricFamily("graft_engine_restarts", "Times the model server was started anew", value=self.engine[0]())
            yield _gauge("engine_ready", "Whether the model server that is run here is ready", float(self.engine[1]() == "ready"))


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"graft_{name}", text, value=value)
