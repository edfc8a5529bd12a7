"""``GET /v1/answers``: a question in an address, for a browser's ``EventSource``, which can send nothing but that.

Source: the HTML Standard, server-sent events, https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from rag.serve.asking import Question
from rag.serve.chat import Completion, stream
from rag.serve.contract import ANSWERING, LAST_EVENT, Events, documented
from rag.serve.openai_answers import ChatChunk, Error
from rag.serve.openai_types import GraftOptions, Strict, checked_text
from rag.serve.query import parse_query
from rag.serve.service import Service

MAX_QUESTION = 2_000
"""Characters of a question in an address: in Chinese 18,000 bytes of it. Longer ones go to ``POST /v1/chat/completions``."""

_MODEL = {"name": "model", "in": "query", "required": True, "schema": {"type": "string", "maxLength": 200}}
_QUESTION = {"name": "question", "in": "query", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": MAX_QUESTION}}


class Asked(Strict):
    """The query of ``GET /v1/answers``."""

    model: str = Field(max_length=200)
    question: str = Field(max_length=MAX_QUESTION)


def routes(service: Service) -> APIRouter:
    """The router."""
    contract = documented(
        "Answer a question for an EventSource",
        gives={200: {"text/event-stream": Events(ChatChunk, Error)}, 204: None},
        errors=(400, *ANSWERING),
        parameters=[_MODEL, _QUESTION, LAST_EVENT],
    )
    router = APIRouter()
    router.get("/v1/answers", response_model=None, openapi_extra=contract)(_Answers(service).answer)
    return router


@dataclass(frozen=True)
class _Answers:
    service: Service

    async def answer(self, request: Request) -> Response:
        """The events of a streamed chat completion with ``graft.events``, each with an id. An EventSource connects again when a stream
        ends, be it whole or broken, and names the last id that it saw: the question is not asked a second time."""
        if "last-event-id" in request.headers:
            return Response(status_code=204)
        asked = parse_query(Asked, request)
        text = checked_text(asked.question, "question")
        question = Question.of(asked.model, self.service.pipeline(asked.model), text, GraftOptions(events=True))
        completion = Completion(asked.model, [], events=True)
        return await self.service.asking.streamed(
            request, question, lambda first, others: _numbered(stream(completion, first, others, include_usage=False))
        )


async def _numbered(texts: AsyncIterator[str]) -> AsyncIterator[dict[str, str]]:
    """Each as the data of an event whose id is its number."""
    number = 0
    async with aclosing(texts) as all_of_them:  # type: ignore[type-var]
        async for text in all_of_them:
            number += 1
            yield {"id": str(number), "data": text}
