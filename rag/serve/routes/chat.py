"""``POST /v1/chat/completions``: OpenAI's chat completions in front of a pipeline."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from sse_starlette import EventSourceResponse

from rag.serve.chat import Completion, close, first_words, stream
from rag.serve.errors import to_request_error
from rag.serve.limits import read_body
from rag.serve.openai_types import ChatRequest, parse
from rag.serve.service import Service
from rag.serve.waiting import GONE, Drain, GivenUp, disconnected, unless


def routes(service: Service) -> APIRouter:
    """The router."""
    router = APIRouter()
    router.post("/v1/chat/completions", response_model=None)(_Chat(service).answer)
    return router


@dataclass(frozen=True)
class _Chat:
    service: Service

    async def answer(self, request: Request) -> Response:
        """The last user message is the question; see `rag.serve.openai_types` for what else is read, ignored and refused."""
        asked = parse(ChatRequest, await read_body(request))
        question = asked.question()
        pipeline = self.service.pipeline(asked.model)
        inputs = {"filter": asked.graft.filter} if asked.graft and asked.graft.filter is not None else {}
        completion = Completion(asked.model, asked.remarks())
        try:
            if asked.stream:
                usage = asked.stream_options is not None and asked.stream_options.include_usage
                return await self._stream(request, completion, pipeline.astream(question, **inputs), usage)
            run = await unless(disconnected(request), pipeline.aexplain(question, **inputs))
            return JSONResponse(completion.whole(run))
        except GivenUp:
            return Response(status_code=GONE)
        except Exception as error:
            raise to_request_error(error) from error

    async def _stream(self, request: Request, completion: Completion, events: AsyncIterator[Any], usage: bool) -> Response:
        try:
            first = await unless(disconnected(request), first_words(events))
        except BaseException:
            await close(events)
            raise
        stopping, drain = anyio.Event(), self.service.drain
        chunks = stream(completion, first, events, usage, Drain(stopping.wait, drain).over)
        return EventSourceResponse(chunks, sep="\n", shutdown_event=stopping, shutdown_grace_period=drain + 2)
