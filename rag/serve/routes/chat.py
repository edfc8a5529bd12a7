"""``POST /v1/chat/completions``: OpenAI's chat completions in front of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from rag.serve.asking import Question
from rag.serve.chat import Completion, stream
from rag.serve.contract import ANSWERING, Events, documented
from rag.serve.limits import read_body
from rag.serve.openai_answers import ChatAnswer, ChatChunk, Error
from rag.serve.openai_types import ChatRequest, parse, sampling_of
from rag.serve.service import Service


def routes(service: Service) -> APIRouter:
    """The router."""
    contract = documented(
        "Answer the last message of a chat",
        takes=ChatRequest,
        gives={200: {"application/json": ChatAnswer, "text/event-stream": Events(ChatChunk, Error)}},
        errors=ANSWERING,
    )
    router = APIRouter()
    router.post("/v1/chat/completions", response_model=None, openapi_extra=contract)(_Chat(service).answer)
    return router


@dataclass(frozen=True)
class _Chat:
    service: Service

    async def answer(self, request: Request) -> Response:
        """The last user message is the question; see `rag.serve.openai_types` for what else is read, ignored and refused."""
        asked = parse(ChatRequest, await read_body(request))
        text = asked.question()
        question = Question.of(asked.model, self.service.pipeline(asked.model), text, asked.graft, sampling_of(asked))
        remarks, events = asked.remarks(question.sampled), question.events
        if not asked.stream:
            remarks = [*remarks, *(["not followed: graft.events (only a stream tells of steps)"] if events else [])]
            whole = Completion(asked.model, remarks)
            return await self.service.asking.whole(request, question, lambda run: JSONResponse(whole.whole(run)))
        completion = Completion(asked.model, remarks, events)
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        return await self.service.asking.streamed(request, question, lambda first, others: stream(completion, first, others, usage))
