"""``POST /v1/completions``: OpenAI's older text completions in front of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from rag.serve.asking import Question
from rag.serve.chat import stream
from rag.serve.completions import TextCompletion
from rag.serve.contract import ANSWERING, Events, documented
from rag.serve.limits import read_body
from rag.serve.openai_answers import Error, TextAnswer, TextChunk
from rag.serve.openai_types import CompletionRequest, parse, sampling_of
from rag.serve.service import Service


def routes(service: Service) -> APIRouter:
    """The router."""
    contract = documented(
        "Answer a question that is the prompt",
        takes=CompletionRequest,
        gives={200: {"application/json": TextAnswer, "text/event-stream": Events(TextChunk, Error)}},
        errors=ANSWERING,
    )
    router = APIRouter()
    router.post("/v1/completions", response_model=None, openapi_extra=contract)(_Completions(service).answer)
    return router


@dataclass(frozen=True)
class _Completions:
    service: Service

    async def answer(self, request: Request) -> Response:
        """The prompt is the question; see `rag.serve.openai_types` for what else is read, ignored and refused."""
        asked = parse(CompletionRequest, await read_body(request))
        text = asked.question()
        question = Question.of(asked.model, self.service.pipeline(asked.model), text, asked.graft, sampling_of(asked))
        completion = TextCompletion.of(asked.model, asked.remarks(question.sampled), question.events)
        if not asked.stream:
            return await self.service.asking.whole(request, question, lambda run: JSONResponse(completion.whole(run)))
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        return await self.service.asking.streamed(request, question, lambda first, events: stream(completion, first, events, usage))
