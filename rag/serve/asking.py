"""How every route asks a pipeline: in its turn, within its time, and no longer than the client stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi.responses import JSONResponse, Response

from rag.core.deadline import within
from rag.core.engine import Run
from rag.core.errors import ModelUnavailable
from rag.core.trace import TextDelta, with_tokens
from rag.core.types import SamplingRequest
from rag.core.typing import accepts
from rag.serve.errors import RequestError, to_request_error
from rag.serve.observe.recorder import Recorder, recorder_of
from rag.serve.streaming import Event, EventStream, Stopping
from rag.serve.waiting import GONE, GivenUp, Limited, disconnected, late, unless

if TYPE_CHECKING:
    from starlette.requests import Request

    from rag.core.pipeline import Pipeline
    from rag.serve.admission import Admission
    from rag.serve.breaker import Breaker
    from rag.serve.openai_types import GraftOptions

Writer = Callable[[Sequence[Any], Limited], AsyncIterator[Event]]
"""From the events up to the first words, and the others, to server-sent events."""


@dataclass(frozen=True)
class Question:
    """What is asked of which pipeline, served as ``model``. ``seconds``: how long the caller wants to wait at most. ``events``: a stream
    tells of all that happens and begins with the first event of any kind, not with the first words; what goes wrong between the two is
    then an event of the stream. ``sampled``: the pipeline takes how the answer is to be sampled."""

    model: str
    pipeline: Pipeline
    text: str
    inputs: Mapping[str, Any]
    seconds: float | None = None
    events: bool = False
    sampled: bool = False

    @classmethod
    def of(cls, model: str, pipeline: Pipeline, text: str, given: GraftOptions | None, sampling: SamplingRequest | None = None) -> Question:
        """With what the request's own part, ``graft``, asks for, and ``sampling`` for whichever nodes write the answer and take it."""
        ports = _sampling_ports(pipeline)
        inputs: dict[str, Any] = {} if sampling is None else dict.fromkeys(ports, sampling)
        if given is None:
            return cls(model, pipeline, text, inputs, sampled=bool(ports))
        if given.filter is not None:
            inputs["filter"] = given.filter
        return cls(model, pipeline, text, inputs, given.timeout, given.events, bool(ports))


def _sampling_ports(pipeline: Pipeline) -> list[str]:
    """The open ports, as "node.port", of the nodes whose text is the answer that take a `SamplingRequest`. What else a pipeline has its
    model write (queries, notes) is its own business."""
    return [
        f"{step.name}.{port.name}"
        for step, port in pipeline.plan.open_ports
        if step.final and port.name == "sampling" and accepts(port.type, SamplingRequest())
    ]


@dataclass(frozen=True)
class Work:
    """Runs for the routes what asks no pipeline (searches, embeddings, rankings), in a queue of its own: many of these do not keep a
    question waiting. ``seconds`` is the longest that it may take, waiting included."""

    admission: Admission
    seconds: float

    async def done(self, request: Request, work: Coroutine[Any, Any, Any]) -> Response:
        """What ``work`` gives, as JSON; it is cancelled when the client leaves or the time is over. Raises `RequestError`."""

        async def in_turn() -> Any:
            try:
                async with self.admission.turn("requests"):
                    return await work
            finally:
                work.close()  # it may never have begun

        try:
            return JSONResponse(await unless(disconnected(request, self.seconds), in_turn()))
        except GivenUp as given:
            if given.error is not None:
                raise given.error from None
            return Response(status_code=GONE)
        except Exception as error:
            raise to_request_error(error) from error


class Asking:
    """Runs questions for the routes. ``seconds`` is the longest that an answer may take; ``drain`` how long a stream may go on after
    SIGTERM. A pipeline whose model did not answer several times is left alone for a while (`Breaker`)."""

    def __init__(self, admission: Admission, breaker: Callable[[], Breaker], seconds: float, drain: float) -> None:
        self.admission = admission
        self._breaker = breaker
        self._breakers: dict[int, Breaker] = {}
        self._seconds = seconds
        self._drain = drain
        self._stopping = Stopping()

    async def whole(self, request: Request, question: Question, answer: Callable[[Run], Response]) -> Response:
        """``answer`` of the run, once it is over. Raises `RequestError`."""
        seconds = self._limit(question)
        breaker = self._of(question.pipeline)
        recorder = recorder_of(request)
        recorder.started(question.model, question.text)

        async def asked() -> Run:
            async with self.admission.turn():
                recorder.admitted()
                with within(seconds):
                    return await question.pipeline.aexplain(question.text, **question.inputs)

        try:
            breaker.check()
            run = await unless(disconnected(request, seconds), asked())
            self._learn(breaker, run.error)
            recorder.finished(run)
            return answer(run)
        except GivenUp as given:
            return _given_up(given, recorder)
        except Exception as error:
            recorder.failed(error)
            raise to_request_error(error) from error

    async def streamed(self, request: Request, question: Question, write: Writer) -> Response:
        """What ``write`` makes of the events, as a stream. Raises `RequestError` for what goes wrong before the first words."""
        seconds = self._limit(question)
        breaker = self._of(question.pipeline)
        recorder = recorder_of(request)
        recorder.started(question.model, question.text, stream=True)
        place = AsyncExitStack()
        events = self._recorded(question.pipeline.astream(question.text, **question.inputs), recorder, breaker)
        limited = Limited(events, asyncio.get_running_loop().time() + seconds, late(seconds))

        async def begun() -> list[Any]:
            await place.enter_async_context(self.admission.turn())
            recorder.admitted()
            with within(seconds), with_tokens(question.events):
                return await first_words(events, question.events)

        try:
            breaker.check()
            first = await unless(disconnected(request, seconds), begun())
        except BaseException as error:
            await limited.close()
            await place.aclose()
            if isinstance(error, GivenUp):
                return _given_up(error, recorder)
            if isinstance(error, Exception):
                recorder.failed(error)
                raise to_request_error(error) from error
            raise
        return EventStream(write(first, limited), limited, place, recorder, self._stopping, self._drain)

    async def _recorded(self, events: AsyncIterator[Any], recorder: Recorder, breaker: Breaker) -> AsyncIterator[Any]:
        """The events, as they come; ``recorder`` and ``breaker`` are told of the first words and of the end."""
        async with aclosing(events) as all_of_them:  # type: ignore[type-var]
            try:
                async for event in all_of_them:
                    if isinstance(event, TextDelta):
                        recorder.first_token()
                    elif isinstance(event, Run):
                        self._learn(breaker, event.error)
                        recorder.finished(event)
                    yield event
            except Exception as error:
                recorder.failed(error)
                raise

    def _limit(self, question: Question) -> float:
        return min(self._seconds, question.seconds or self._seconds)

    def _of(self, pipeline: Pipeline) -> Breaker:
        return self._breakers.setdefault(id(pipeline), self._breaker())

    @staticmethod
    def _learn(breaker: Breaker, error: BaseException | None) -> None:
        if error is None:
            breaker.succeeded()
        elif isinstance(error, ModelUnavailable):
            breaker.failed()


async def first_words(events: AsyncIterator[Any], early: bool = False) -> list[Any]:
    """The events up to the first text or the end; ``early``: the first one. A run that fails before raises here, while a status can be
    sent."""
    seen = []
    async for event in events:
        seen.append(event)
        if isinstance(event, Run):
            _ = event.value
            return seen
        if early or isinstance(event, TextDelta):
            return seen
    raise RequestError(500, "the run ended without a result", type="server_error", code="internal_error")


def _given_up(given: GivenUp, recorder: Recorder) -> Response:
    if given.error is not None:
        recorder.failed(given.error)
        raise given.error
    return Response(status_code=GONE)
