"""What a route tells of the question that it answers; the rest is read from the trace of its request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rag.core.engine import Run
from rag.core.trace import Span
from rag.core.types import Answer
from rag.serve.describe import as_answer
from rag.serve.observe.logs import keep_private
from rag.serve.observe.metrics import Metrics

if TYPE_CHECKING:
    from starlette.requests import Request


class Recorder:
    """Counts one question at a time: ``started``, then ``admitted`` and ``first_token`` where there is such a moment, then ``finished`` or
    ``failed``. A question that has not ended when its request does was left by its caller. Each call takes microseconds."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.model = ""
        """The name that the caller asked for; "" if it asked for none."""
        self.question = ""
        self.answer: Answer | None = None
        """Both for traces that may hold content; nothing else reads them."""
        self._began: float | None = None
        self._first: float | None = None
        self._stream = False

    def started(self, model: str, question: str = "", *, stream: bool = False) -> None:
        """A question to the served ``model``, before it waits for its turn. Its text is masked in what the request logs."""
        self.close()
        self.model, self.question, self.answer, self._stream = model, question, None, stream
        self._began, self._first = time.perf_counter(), None
        self._metrics.running += 1
        keep_private(question)

    def admitted(self) -> None:
        """The question had its turn."""
        if self._began is not None:
            self._metrics.queued(self.model, time.perf_counter() - self._began)

    def first_token(self) -> None:
        """A piece of the answer is about to be sent; only the first one counts."""
        if self._first is None:
            self._first = time.perf_counter()

    def finished(self, run: Run) -> None:
        """The run came to its end, with a value or an error."""
        if run.error is not None:
            self.failed(run.error)
        elif (began := self._end()) is not None:
            now = time.perf_counter()
            first = now if self._first is None else self._first
            self.answer = as_answer(run.result)
            length = len(self.answer.text)
            self._metrics.answered(self.model, seconds=now - began, first=first - began, stream=self._stream, characters=length)
            generated, calls = run.trace.total("generated_tokens"), run.trace.total("calls")
            if self._first is not None and generated > 1 and calls == 1:  # with more calls, other work lies between the tokens
                self._metrics.wrote(self.model, (now - first) / (generated - 1))

    def failed(self, error: BaseException) -> None:
        """The question ended in ``error``, before, in or after its run."""
        if self._end() is not None:
            self._metrics.failed(self.model, error)

    def close(self, trace: Span | None = None) -> None:
        """The request is over: a question that has not ended was left. ``trace`` is the span around all that the request did."""
        if self._end() is not None:
            self._metrics.left(self.model)
        if trace is not None:
            self._metrics.traced(self.model, trace)

    def _end(self) -> float | None:
        """When the question began, once; None if there is none or it has ended already."""
        began, self._began = self._began, None
        if began is not None:
            self._metrics.running -= 1
        return began


def recorder_of(request: Request) -> Recorder:
    """The recorder that `Observed` made for this request."""
    found: Recorder = request.scope["state"]["recorder"]
    return found
